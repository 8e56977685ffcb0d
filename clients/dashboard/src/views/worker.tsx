/** One worker: its status, what it runs now, and its last tasks. */
import type { Task, Worker } from "../../../js/src/index.ts";
import { CopyButton, Empty, ErrorBox, Skeleton, ViewFrame } from "../components/layout.tsx";
import { Link, WorkerLink } from "../components/link.tsx";
import { TaskRows } from "../components/task-rows.tsx";
import { Text } from "../components/text.tsx";
import { Duration, Time } from "../components/values.tsx";
import { WorkerStatus } from "../components/worker-status.tsx";
import { now, useWatch } from "../gateway.ts";
import { selecting } from "../overview.ts";
import { valueOf } from "../route.ts";
import { RUNNING } from "../states.ts";
import { useComputed } from "../store.ts";
import { filterOf } from "../task-query.ts";
import { count } from "../text.ts";
import { duration } from "../time.ts";
import { activeOf, behindOf, mute, software } from "../workers.ts";
import type { View } from "./registry.ts";
import { MuteNote } from "./workers.tsx";

const LAST = 50;

const WorkerView: View = ({ route }) => {
  const hostname = route.id;
  const wanted = valueOf(route.query, "cluster");
  const { value, error } = useWatch((client) => client.workers(), "workers");
  const same = value?.filter((one) => one.hostname === hostname) ?? [];
  const worker = same.find((one) => !wanted || one.cluster === wanted);
  const cluster = worker?.cluster ?? (wanted || undefined);
  const tasksQuery = selecting("hostname", { name: hostname, cluster });
  const key = JSON.stringify(tasksQuery);
  const running = useWatch((client) => client.tasks(filterOf([...tasksQuery, ["state", RUNNING]]), { limit: 200 }), `running ${key}`);
  const last = useWatch((client) => client.tasks(filterOf(tasksQuery), { limit: LAST }), `last ${key}`);
  const isMine = (task: Task): boolean => task.worker === hostname;
  const current = running.value?.tasks.filter(isMine);
  const before = last.value?.tasks.filter(isMine);
  const state = worker ? "ready" : error ? "error" : value ? "empty" : "loading";
  return (
    <ViewFrame name="worker" state={state} title={<Text value={hostname} max={200} />} tools={<CopyButton text={hostname} label="Copy name" />}>
      {error && <ErrorBox error={error} />}
      {state === "loading" && <Skeleton />}
      {state === "empty" && (
        <Empty title={<>No worker <Text value={hostname} /> is known.</>}>
          <p>The gateway forgets a worker an hour after its last event.</p>
          <Link to={{ view: "workers" }}>All workers</Link>
        </Empty>
      )}
      {worker && <MuteNote workers={mute([worker])} />}
      {worker && <Facts worker={worker} others={same.filter((one) => one !== worker)} />}
      <section class="stack" data-list="running">
        <h2>Runs now{current ? ` (${count(current.length)}${running.value!.more ? " or more" : ""})` : ""}</h2>
        {running.error && <ErrorBox error={running.error} />}
        {current && (current.length ? <TaskRows label="Tasks that it runs now" tasks={current} /> : <p class="muted">No task that the gateway knows.</p>)}
      </section>
      <section class="stack" data-list="last">
        <div class="inline">
          <h2>Last tasks</h2>
          <Link to={{ view: "tasks", query: tasksQuery }} class="push">All of its tasks</Link>
        </div>
        {last.error && <ErrorBox error={last.error} />}
        {before && (before.length ? <TaskRows label="Its last tasks" tasks={before} /> : <p class="muted">None that the gateway knows.</p>)}
      </section>
    </ViewFrame>
  );
};
export default WorkerView;

function Facts({ worker, others }: { readonly worker: Worker; readonly others: readonly Worker[] }) {
  const behind = useComputed(() => behindOf(worker, now.value), now);
  const active = activeOf(worker);
  const { processed, loadavg, pid, freq, online, offline, timestamp, cluster, sends_task_events: sends } = worker;
  return (
    <dl class="card fields worker-facts">
      <dt>Status</dt><dd><WorkerStatus worker={worker} /></dd>
      {cluster !== undefined && <><dt>Cluster</dt><dd>
        <Text value={cluster} />{others.map(({ hostname, cluster }) => <>, another in <WorkerLink hostname={hostname} cluster={cluster}><Text value={cluster} /></WorkerLink></>)}
      </dd></>}
      <dt>Active</dt><dd>{active === null ? "–" : count(active)}</dd>
      <dt>Processed</dt><dd>{processed === null ? "–" : `${count(processed)} since its start`}</dd>
      <dt>Load</dt><dd>{loadavg?.map((one) => one.toFixed(2)).join(" · ") ?? "–"}</dd>
      <dt>Task events</dt><dd>{sends === false ? "none" : sends ? "yes" : "not known"}</dd>
      <dt>Software</dt><dd><Text value={software(worker) || "–"} /></dd>
      <dt>Process</dt><dd>{pid ?? "–"}</dd>
      <dt>Last event</dt><dd>{behind === null ? <Time value={timestamp} as="both" /> : <><Time value={timestamp} as="short" /> <span class="warn">by its clock, which is about {duration(60 * Math.round(Math.abs(behind) / 60))} {behind > 0 ? "behind" : "ahead"}</span></>}</dd>
      <dt>Heartbeats</dt><dd>{freq === null ? "–" : <>every <Duration value={freq} /></>}</dd>
      {online !== null && <><dt>Started</dt><dd><Time value={online} as="both" /></dd></>}
      {offline !== null && <><dt>Shut down</dt><dd><Time value={offline} as="both" /></dd></>}
    </dl>
  );
}
