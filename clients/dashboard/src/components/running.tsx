/** The tasks that run longest. */
import type { StatisticsItem } from "../../../js/src/index.ts";
import { listPause, now, useWatch } from "../gateway.ts";
import { isSlow } from "../overview.ts";
import type { Query } from "../route.ts";
import { RUNNING, startOf } from "../states.ts";
import { use } from "../store.ts";
import { filterOf } from "../task-query.ts";
import { Skeleton } from "./layout.tsx";
import { Link, TaskLink } from "./link.tsx";
import { SilentMark } from "./silent.tsx";
import { Text } from "./text.tsx";
import { Bar, Since } from "./values.tsx";

const LIMIT = 8;

/** @param query what selects the tasks. */
export function Running({ items, query }: { readonly items: readonly StatisticsItem[]; readonly query: Query }) {
  const running: Query = [...query, ["state", RUNNING]];
  const { value, error } = useWatch((client) => client.tasks(filterOf(running), { sort: "oldest", limit: LIMIT }), `running ${JSON.stringify(running)}`, listPause);
  const at = use(now);
  const itemOf = new Map(items.map((item) => [`${item.cluster ?? ""} ${item.name}`, item]));
  return (
    <section class="card">
      <h2><Link to={{ view: "tasks", query: [...running, ["sort", "oldest"]] }}>Running longest</Link></h2>
      {!value ? error ? <p class="muted"><Text value={error.message} /></p> : <Skeleton rows={3} /> : !value.tasks.length ? <p class="muted">Nothing runs.</p> : (
        <ul class="lines">
          {value.tasks.map((task) => (
            <li key={`${task.cluster} ${task.uuid}`} class="inline">
              <span class="cut grow"><TaskLink uuid={task.uuid} cluster={task.cluster}><Text value={task.name ?? task.uuid} max={80} /></TaskLink> <Text class="muted" value={task.args ?? ""} max={60} /></span>
              <SilentMark task={task} />
              {task.progress !== null && <Bar value={task.progress} />}
              {isSlow(task, itemOf.get(`${task.cluster ?? ""} ${task.name}`), at) && <span class="warn" title="Longer than 99 % of the tasks of this name">slow</span>}
              <span class="num"><Since value={startOf(task) ?? task.received} /></span>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
