/** All workers: which ones are alive, what they do, and which ones send no task events. */
import { useState } from "preact/hooks";
import type { Worker } from "../../../js/src/index.ts";
import { Empty, ErrorBox, Skeleton, StartWorker, ViewFrame } from "../components/layout.tsx";
import { Link, WorkerLink } from "../components/link.tsx";
import { type Column, DataTable } from "../components/table.tsx";
import { Text } from "../components/text.tsx";
import { ClusterName, Time } from "../components/values.tsx";
import { WorkerStatus } from "../components/worker-status.tsx";
import { health, useWatch } from "../gateway.ts";
import { href, valueOf, withValue } from "../route.ts";
import { use } from "../store.ts";
import { count } from "../text.ts";
import { activeOf, keyOfWorker, lookOfStatus, mute, muteAdvice, selects, software, sorted, STATUSES, type WorkerSort } from "../workers.ts";
import type { View } from "./registry.ts";

const none = <span class="muted">–</span>;
const numberOf = (value: number | null) => (value === null || value < 0 ? none : count(value));

const COLUMNS: readonly Column<Worker>[] = [
  { key: "worker", label: "Worker", sort: "hostname", cell: (worker) => <Name of={worker} /> },
  { key: "status", label: "Status", width: "11.5rem", sort: "status", cell: (worker) => <WorkerStatus worker={worker} /> },
  { key: "active", label: "Active", width: "5rem", isNumber: true, sort: "active", title: "Tasks that it runs now", cell: (worker) => numberOf(activeOf(worker)) },
  { key: "processed", label: "Processed", width: "6.5rem", isNumber: true, from: 2, sort: "processed", title: "Tasks since its start", cell: ({ processed }) => numberOf(processed) },
  { key: "load", label: "Load", width: "9rem", isNumber: true, from: 3, sort: "load", title: "Of its machine, over 1, 5 and 15 minutes", cell: ({ loadavg }) => loadavg?.map((one) => one.toFixed(2)).join(" ") ?? none },
  { key: "events", label: "Task events", width: "7rem", from: 2, cell: (worker) => <SendsEvents worker={worker} /> },
  { key: "software", label: "Software", width: "12rem", from: 4, cell: (worker) => <Text value={software(worker) || "–"} max={60} /> },
  { key: "started", label: "Started", width: "8rem", from: 3, title: "Its last start, if that was seen", cell: ({ online }) => <Time value={online} /> },
];

const WorkersView: View = ({ route }) => {
  const { value, status, error } = useWatch((client) => client.workers(), "workers");
  const [sort, setSort] = useState<{ readonly key: WorkerSort; readonly descending: boolean }>({ key: "status", descending: true });
  const all = value ?? [];
  const wanted = valueOf(route.query, "status");
  const found = all.filter(selects(route.query));
  const shown = found.filter((worker) => !wanted || worker.status === wanted);
  const alive = found.filter((worker) => worker.alive).length;
  const state = error && !value ? "error" : !value ? "loading" : shown.length ? "ready" : "empty";
  return (
    <ViewFrame name="workers" state={state} title="Workers"
      tools={value && <span role="status">{count(alive)} of {count(found.length)} alive</span>}>
      {error && <ErrorBox error={error} />}
      {state === "loading" && <Skeleton />}
      {!!value?.length && (
        <div class="inline" role="group" aria-label="Status">
          {["", ...STATUSES.filter((one) => one === wanted || found.some((worker) => worker.status === one))].map((one) => (
            <Link key={one} to={{ ...route, query: withValue(route.query, "status", one) }} class="chip" current={one === wanted}>
              {one ? <><span aria-hidden="true">{lookOfStatus(one).shape}</span> {one} {count(found.filter((worker) => worker.status === one).length)}</> : "All"}
            </Link>
          ))}
          <Link to={{ view: "queues", query: route.query.filter(([name]) => name === "cluster") }} class="chip push">Queues</Link>
        </div>
      )}
      <MuteNote workers={mute(shown)} />
      {state === "ready" && (
        <DataTable label="Workers" columns={COLUMNS} rows={sorted(shown, sort.key, sort.descending)} rowKey={keyOfWorker}
          href={(worker) => href({ view: "worker", id: worker.hostname, query: worker.cluster === undefined ? [] : [["cluster", worker.cluster]] })}
          sort={sort} onSort={(key, descending) => setSort({ key: key as WorkerSort, descending })}
          isFailure={(worker) => !worker.alive} />
      )}
      {state === "empty" && (status === "known" && all.length ? (
        <Empty title="No worker matches.">
          <Link to={{ view: "workers" }}>Show all {count(all.length)}</Link>
        </Empty>
      ) : <NoWorkers />)}
    </ViewFrame>
  );
};
export default WorkersView;

const Name = ({ of }: { readonly of: Worker }) => <><WorkerLink hostname={of.hostname} cluster={of.cluster} /><ClusterName of={of} /></>;

function SendsEvents({ worker }: { readonly worker: Worker }) {
  const { sends_task_events: sends } = worker;
  if (sends === false) return <span class="warn" title="It has run tasks, and has sent no events of them">⚠ none</span>;
  return sends ? <span class="good">yes</span> : <span class="muted" title="It has run no task since the gateway's start">not known</span>;
}

/** Names the workers that send no task events, and says what to do. */
export function MuteNote({ workers }: { readonly workers: readonly Worker[] }) {
  const isControlled = !!use(health)?.control;
  if (!workers.length) return null;
  const named = workers.slice(0, 5);
  return (
    <div class="note" data-note="no-task-events">
      <p>
        {named.map((worker, index) => (
          <span key={keyOfWorker(worker)}>{index > 0 && ", "}<Name of={worker} /></span>
        ))}
        {workers.length > named.length && ` and ${count(workers.length - named.length)} more`}
        {workers.length === 1 ? ` is alive and has processed ${count(workers[0]!.processed ?? 0)} tasks, and sends no task events.` : " are alive, and send no task events."}
      </p>
      <p>{muteAdvice(workers.length, isControlled)}</p>
    </div>
  );
}

function NoWorkers() {
  return (
    <Empty title="No worker has been heard.">
      <StartWorker />
    </Empty>
  );
}
