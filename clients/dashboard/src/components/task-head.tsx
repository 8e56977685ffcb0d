/** The head of a task: what it is, where it runs, and how it goes. Also in the panel of a workflow. */
import type { Task } from "../../../js/src/types.ts";
import { now } from "../gateway.ts";
import { isReady, ranOf } from "../states.ts";
import { literal } from "../route.ts";
import { useComputed } from "../store.ts";
import { plural } from "../text.ts";
import { duration } from "../time.ts";
import { CopyButton } from "./layout.tsx";
import { Link, WorkerLink, WorkflowLink } from "./link.tsx";
import { Text } from "./text.tsx";
import { Bar, Duration, StateBadge, Time } from "./values.tsx";

/** Return when a task has ended; null while it goes on. */
export function endOf({ succeeded, failed, revoked, lost }: Task): number | null {
  return succeeded ?? failed ?? revoked ?? lost;
}

/** Return when a task began: sent, else received, else started. */
export function beginOf({ sent, received, started, attempts }: Task): number | null {
  const first = attempts?.[0];
  return first?.sent ?? first?.received ?? sent ?? received ?? started;
}

/** The state in words: `FAILURE after 3 tries · 4.9 s in all`. */
export function Outcome({ task }: { readonly task: Task }) {
  const begun = beginOf(task);
  const ended = endOf(task);
  const isOver = isReady(task.state) || task.stale;
  const seconds = useComputed(() => (begun === null ? null : (isOver && ended !== null ? ended : now.value) - begun), now);
  return (
    <span class="outcome inline">
      <StateBadge state={task.state} />
      {task.attempt > 1 && <span>{isOver ? `after ${task.attempt} tries` : `try ${task.attempt}`}</span>}
      {task.retries > 0 && task.attempt <= 1 && <span>{plural(task.retries, "retry", "retries")}</span>}
      {seconds !== null && seconds >= 0 && <span class="muted">{duration(isOver ? seconds : Math.floor(seconds))} {isOver ? "in all" : "so far"}</span>}
      {task.progress !== null && !isReady(task.state) && <span class="inline"><Bar value={task.progress} /> {Math.round(100 * task.progress)} %</span>}
    </span>
  );
}

/** Where a task belongs: its id, workflow, worker and queue, and its times. */
export function Facts({ task }: { readonly task: Task }) {
  const { uuid, root_id, worker, client, queue, cluster, pid } = task;
  const inCluster = cluster === undefined ? [] : [["cluster", cluster] as const];
  const waits = ["PENDING", "RECEIVED", "RETRY"].includes(task.state);
  return (
    <dl class="fields task-facts">
      <dt>Id</dt>
      <dd class="inline"><span class="mono"><Text value={uuid} max={300} /></span><CopyButton text={uuid} label="Copy the id" /></dd>
      {root_id !== null && root_id !== uuid && <><dt>Workflow</dt><dd><WorkflowLink rootId={root_id} cluster={cluster} /></dd></>}
      {worker !== null && <><dt>Worker</dt><dd><WorkerLink hostname={worker} cluster={cluster} />{pid !== null && <span class="muted"> pid {pid}</span>}</dd></>}
      {queue !== null && <><dt>Queue</dt><dd><Link to={{ view: "tasks", query: [["queue", literal(queue)], ...inCluster] }}><Text value={queue} max={100} /></Link></dd></>}
      {client !== null && <><dt>Sent by</dt><dd><Text value={client} max={100} /></dd></>}
      {cluster !== undefined && <><dt>Cluster</dt><dd><Text value={cluster} max={100} /></dd></>}
      <dt>Begun</dt>
      <dd><Time value={beginOf(task)} as="both" /></dd>
      {endOf(task) !== null && <><dt>{task.stale ? "Lost" : "Ended"}</dt><dd><Time value={endOf(task)} as="both" /></dd></>}
      <dt>Waited{task.eta && " (with eta)"}</dt>
      <dd><Duration value={task.queued_seconds} /></dd>
      <dt>Ran</dt>
      <dd><Duration value={ranOf(task)} /></dd>
      {waits && <Moment label="Runs at" value={task.eta} />}
      {(waits || task.state === "REVOKED") && <Moment label="Expires" value={task.expires} />}
    </dl>
  );
}

/** A time that the client has given, as it was sent. */
function Moment({ label, value }: { readonly label: string; readonly value: string | number | null }) {
  if (value === null) return null;
  const time = typeof value === "string" && Date.parse(value) / 1_000;
  return <><dt>{label}</dt><dd>{time ? <Time value={time} as="both" /> : <Text value={value} max={60} />}</dd></>;
}
