/** Queues: how many messages wait, who takes them, and whether they become fewer. */
import { useMemo } from "preact/hooks";
import type { Queue } from "../../../js/src/index.ts";
import { Empty, ErrorBox, Skeleton, ViewFrame } from "../components/layout.tsx";
import { Link } from "../components/link.tsx";
import { type Column, DataTable } from "../components/table.tsx";
import { Text } from "../components/text.tsx";
import { ClusterName, Since } from "../components/values.tsx";
import { useFetched } from "../gateway.ts";
import { tasksOf } from "../overview.ts";
import { keyOfQueue, priorities, problem, type Trend, Trends } from "../queues.ts";
import { href } from "../route.ts";
import { count, plural } from "../text.ts";
import { duration } from "../time.ts";
import { selects } from "../workers.ts";
import type { View } from "./registry.ts";

const none = <span class="muted">–</span>;
const numberOf = (value: number | null) => (value === null ? none : count(value));

const QueuesView: View = ({ route }) => {
  const fetched = useFetched<{ readonly queues: readonly Queue[]; readonly omitted?: number; readonly errors?: Readonly<Record<string, string>> }>("/queues", {}, 5);
  const { error } = fetched;
  const value = fetched.value?.queues;
  const omitted = fetched.value?.omitted ?? 0;
  const trends = useMemo(() => new Trends(), []);
  if (value) trends.add(value);
  const inCluster = selects(route.query);
  const queues = (value ?? []).filter(inCluster);
  const rows = [...queues].sort((one, other) => Number(!!problem(other)) - Number(!!problem(one)) || (other.depth ?? -1) - (one.depth ?? -1) || (one.name < other.name ? -1 : 1));
  const abandoned = queues.filter(({ consumers, depth }) => consumers === 0 && depth);
  const total = queues.reduce((sum, { depth }) => sum + (depth ?? 0), 0);
  const state = !value ? (error ? "error" : "loading") : rows.length ? "ready" : "empty";
  return (
    <ViewFrame name="queues" state={state} title="Queues" tools={value && <span role="status">{plural(total, "message")} ready in {plural(queues.length, "queue")}</span>}>
      {error && <ErrorBox error={error} />}
      {state === "loading" && <Skeleton />}
      {Object.entries(fetched.value?.errors ?? {}).filter(([cluster]) => inCluster({ cluster })).map(([name, text]) => (
        <p key={name} class="note" data-note="not-readable">The queues of {name ? <>the broker <Text value={name} max={40} /></> : "the broker"} cannot be read: <Text value={text} max={500} /></p>
      ))}
      {abandoned.length > 0 && (
        <div class="note" data-note="no-consumer">
          <p>
            No worker consumes {abandoned.slice(0, 5).map((queue, index) => <span key={keyOfQueue(queue)}>{index > 0 && ", "}<Text value={queue.name} max={80} /><ClusterName of={queue} /></span>)}
            {abandoned.length > 5 && ` and ${count(abandoned.length - 5)} more`}: {abandoned.length === 1 ? "its" : "their"} tasks wait.
          </p>
          <p>Start a worker for it: <code>celery -A proj worker -E -Q NAME</code>.</p>
        </div>
      )}
      {state === "ready" && (
        <DataTable label="Queues" columns={columnsOf(rows, trends)} rows={rows} rowKey={keyOfQueue} href={(queue) => href(tasksOf(queue))}
          isFailure={(queue) => problem(queue) !== null} />
      )}
      {state === "empty" && (
        <Empty title="No queue is known.">
          <p>A queue appears with the first event that names it: clients send its name with <code>task_send_sent_event</code>.</p>
        </Empty>
      )}
      {value && (
        <p class="muted">
          {omitted > 0 && `${count(omitted)} more are left out: at most 200 of a broker are read. `}
          Shown are the queues that events of tasks name, and with <code>--control</code> those that workers consume. <code>--queues</code> of the
          gateway lists others. Messages that a worker has prefetched are not ready any more.
        </p>
      )}
    </ViewFrame>
  );
};
export default QueuesView;

/** Return the columns. A column that no broker of these queues has a value for is left out. */
function columnsOf(queues: readonly Queue[], trends: Trends): readonly Column<Queue>[] {
  const has = (field: keyof Queue): boolean => queues.some((queue) => queue[field] != null);
  const columns: (Column<Queue> | false)[] = [
    { key: "name", label: "Queue", cell: (queue) => <Link to={tasksOf(queue)}><Text value={queue.name} max={120} /><ClusterName of={queue} /></Link> },
    { key: "depth", label: "Ready", width: "6rem", isNumber: true, title: "Messages that no worker has taken", cell: ({ depth }) => numberOf(depth) },
    has("unacknowledged") && { key: "unacknowledged", label: "Taken", width: "6rem", isNumber: true, from: 2, title: "Messages that workers have taken and not acknowledged", cell: ({ unacknowledged }) => numberOf(unacknowledged) },
    has("consumers") && { key: "consumers", label: "Consumers", width: "6.5rem", isNumber: true, from: 2, cell: ({ consumers, depth }) => (
      <span class={consumers === 0 && depth ? "bad" : undefined}>{numberOf(consumers)}</span>
    ) },
    has("oldest") && { key: "oldest", label: "Oldest", width: "7rem", isNumber: true, from: 3, cell: ({ oldest }) => <Since value={oldest} /> },
    { key: "trend", label: "Trend", width: "13rem", from: 2, title: "Since this view was opened, at most two minutes", cell: (queue) => <TrendText trend={trends.of(queue)} /> },
    has("priorities") && { key: "priorities", label: "By priority", width: "10rem", from: 4, cell: (queue) => (
      <Text value={priorities(queue).map(([priority, number]) => `${priority}: ${count(number)}`).join("  ")} max={80} />
    ) },
    queues.some(problem) && { key: "problem", label: "Problem", width: "30%", from: 3, cell: (queue) => <Text value={problem(queue) ?? ""} class="warn" max={160} /> },
  ];
  return columns.filter((column) => column !== false);
}

function TrendText({ trend: { kind, perSecond, seconds } }: { readonly trend: Trend }) {
  const perMinute = Math.max(1, Math.round(Math.abs(perSecond) * 60));
  switch (kind) {
    case "grows":
      return <span class="warn">▴ grows by {count(perMinute)}/min</span>;
    case "drains":
      return <span class="good" title={`${count(perMinute)} fewer each minute`}>▾ empty in {duration(seconds!)}</span>;
    case "steady":
      return <span>does not change</span>;
    default:
      return <span class="muted">{kind === "empty" ? "empty" : "–"}</span>;
  }
}
