/** The tasks that run longest. */
import type { StatisticsItem } from "../../../js/src/index.ts";
import { now, useWatch } from "../gateway.ts";
import { isSlow } from "../overview.ts";
import { Skeleton } from "./layout.tsx";
import { Link, TaskLink } from "./link.tsx";
import { Text } from "./text.tsx";
import { Bar, Since } from "./values.tsx";

const LIMIT = 8;

export function Running({ items }: { readonly items: readonly StatisticsItem[] }) {
  const { value, error } = useWatch((client) => client.tasks({ state: ["STARTED", "PROGRESS"] }, { sort: "oldest", limit: LIMIT }), "running");
  const itemOf = new Map(items.map((item) => [`${item.cluster ?? ""} ${item.name}`, item]));
  return (
    <section class="card">
      <h2><Link to={{ view: "tasks", query: [["state", "STARTED,PROGRESS"], ["sort", "oldest"]] }}>Running longest</Link></h2>
      {!value ? error ? <p class="muted"><Text value={error.message} /></p> : <Skeleton rows={3} /> : !value.tasks.length ? <p class="muted">Nothing runs.</p> : (
        <ul class="lines">
          {value.tasks.map((task) => (
            <li key={`${task.cluster} ${task.uuid}`} class="inline">
              <span class="cut grow"><TaskLink uuid={task.uuid} cluster={task.cluster}><Text value={task.name ?? task.uuid} max={80} /></TaskLink> <Text class="muted" value={task.args ?? ""} max={60} /></span>
              {task.progress !== null && <Bar value={task.progress} />}
              {isSlow(task, itemOf.get(`${task.cluster ?? ""} ${task.name}`), now.value) && <span class="warn" title="Longer than 99 % of the tasks of this name">slow</span>}
              <span class="num"><Since value={task.started ?? task.received} /></span>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
