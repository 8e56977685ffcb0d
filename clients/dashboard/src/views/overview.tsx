/** The overview: what runs, what waits, what fails, and who works. All numbers are the gateway's. */
import type { Failure, Queue, Statistics, Worker } from "../../../js/src/index.ts";
import { matcher } from "../../../js/src/filter.ts";
import { FilterParts } from "../components/filter-parts.tsx";
import { HistoryStrip } from "../components/history-strip.tsx";
import { Empty, ErrorBox, Skeleton, StartWorker, ViewFrame } from "../components/layout.tsx";
import { Link, TaskLink, WorkerLink } from "../components/link.tsx";
import { NameTable } from "../components/name-table.tsx";
import { Running } from "../components/running.tsx";
import { Text } from "../components/text.tsx";
import { Time } from "../components/values.tsx";
import { WorkerStatus } from "../components/worker-status.tsx";
import { useGaps } from "../gaps.ts";
import { health, may, useWatch } from "../gateway.ts";
import { goQuery } from "../navigation.ts";
import { type Emptiness, emptiness, isCutOff, problems } from "../overview.ts";
import { type Query, type Route, valueOf, withValue } from "../route.ts";
import { use } from "../store.ts";
import { filterOf } from "../task-query.ts";
import { count, plural } from "../text.ts";
import { keyOfWorker } from "../workers.ts";
import type { View } from "./registry.ts";

const WINDOWS = ["5m", "15m", "1h", "6h", "24h"];
const DEFAULT_WINDOW = "1h";

const OverviewView: View = ({ route }: { readonly route: Route }) => {
  const { query } = route;
  const window = valueOf(query, "window") || DEFAULT_WINDOW;
  const filter = filterOf(query);
  const { name, cluster } = filter;
  const key = JSON.stringify(filter);
  const isWhole = key === "{}";
  const passes = matcher([cluster ? { cluster: [cluster].flat() } : {}]);
  const inCluster = ({ cluster }: Worker | Queue): boolean => passes({ cluster });
  const statistics = useWatch((client) => client.statistics({ window, name, cluster }), `statistics ${window} ${key}`);
  const seesWorkers = use(may).includes("workers");
  const { value: allWorkers } = useWatch((client) => (seesWorkers ? client.workers() : null), `workers ${seesWorkers}`);
  const { value: allQueues } = useWatch((client) => (seesWorkers ? client.queues() : null), `queues ${seesWorkers}`);
  const [workers, queues] = [allWorkers?.filter(inCluster) ?? null, allQueues?.filter(inCluster) ?? null];
  const { value: failures } = useWatch((client) => client.failures({ limit: 5, name, cluster }), `failures ${key}`);
  const { value, error } = statistics;
  const gaps = useGaps(value);
  const why = value && workers && isWhole ? emptiness(value.total, value.names.length, workers) : null;
  return (
    <ViewFrame name="overview" state={value ? (why && !workers?.length ? "empty" : "ready") : error ? "error" : "loading"} title="Overview"
      tools={
        <label class="inline">
          <span class="muted">window</span>
          <select value={window} onChange={(event) => goQuery(withValue(query, "window", event.currentTarget.value === DEFAULT_WINDOW ? "" : event.currentTarget.value))}>
            {[...new Set([...WINDOWS, window])].map((one) => <option key={one} value={one}>{one}</option>)}
          </select>
        </label>
      }>
      <FilterParts query={query} />
      {error && <ErrorBox error={error} />}
      {!value && !error && <Skeleton rows={10} />}
      {why && <WhyEmpty why={why} />}
      {value && (workers || !seesWorkers) && <Problems statistics={value} workers={workers} queues={queues} />}
      {value && !(why && !workers?.length) && (
        <>
          <HistoryStrip buckets={value.total.buckets} since={value.since} gaps={gaps} />
          {value.names.length > 0 && <NameTable statistics={value} names={value.names} />}
          {value.other && <p class="muted">Further names have {plural(value.other.running, "running task")}, {count(value.other.waiting)} waiting.</p>}
          <div class="cards">
            <Running items={value.names} query={query.filter(([name]) => name !== "window")} />
            <Failures failures={failures} query={query.filter(([name]) => name !== "window")} />
            {seesWorkers ? <><Workers workers={workers} /><Queues queues={queues} /></> : (
              <p class="card muted">Workers and queues are not shown: the token's scope must have "workers" in "may".</p>
            )}
          </div>
        </>
      )}
    </ViewFrame>
  );
};
export default OverviewView;

function WhyEmpty({ why }: { readonly why: Exclude<Emptiness, null> }) {
  const sources = use(health)?.sources ?? [];
  if (why === "no-task-events") {
    return (
      <Empty title="Workers are alive, and no task has been reported.">
        <p>If tasks run, start the workers with <code>-E</code>, or the gateway with <code>--control</code>: then they send events of tasks.</p>
      </Empty>
    );
  }
  if (why === "only-sent") {
    return (
      <Empty title="Tasks were sent, and no worker has been heard.">
        <p>They wait in their queues until a worker starts: <code>celery -A proj worker -E</code></p>
      </Empty>
    );
  }
  const isAway = isCutOff(sources);
  return (
    <Empty title={isAway ? "The gateway has no broker, so nothing is known yet." : "No worker has been heard."}>
      <StartWorker />
    </Empty>
  );
}

function Problems({ statistics, workers, queues }: { readonly statistics: Statistics; readonly workers: readonly Worker[] | null; readonly queues: readonly Queue[] | null }) {
  const found = problems(statistics.total, workers, queues);
  if (!found.length) return null;
  return (
    <ul class="stack">
      {found.map(({ text, view, stale }) => (
        <li key={text} class="note inline"><Text value={text} max={600} /> <Link class="push" to={{ view, query: stale ? [["stale", "1"]] : [] }}>Look</Link></li>
      ))}
    </ul>
  );
}

function Failures({ failures, query }: { readonly failures: readonly Failure[] | null; readonly query: Query }) {
  return (
    <section class="card">
      <h2><Link to={{ view: "failures", query }}>Failures</Link></h2>
      {!failures ? <Skeleton rows={3} /> : !failures.length ? <p class="muted">Nothing has failed. </p> : (
        <ul class="lines">
          {failures.map(({ signature, exception, message, count: number, uuid, last }) => (
            <li key={signature} class="inline">
              <strong class="bad num">{count(number)}×</strong>
              <span class="cut grow"><TaskLink uuid={uuid}><Text value={exception} max={80} /></TaskLink> <Text class="muted" value={message} max={160} /></span>
              <Time value={last} />
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

const MAX_WORKERS = 12;

function Workers({ workers }: { readonly workers: readonly Worker[] | null }) {
  const shown = [...(workers ?? [])].sort((a, b) => Number(b.alive) - Number(a.alive)).slice(0, MAX_WORKERS);
  return (
    <section class="card">
      <h2><Link to={{ view: "workers" }}>Workers</Link></h2>
      {!workers ? <Skeleton rows={3} /> : !workers.length ? <p class="muted">No worker has been heard.</p> : (
        <ul class="lines">
          {shown.map((worker) => (
            <li key={keyOfWorker(worker)} class="inline">
              <WorkerStatus worker={worker} />
              <span class="cut grow"><WorkerLink hostname={worker.hostname} cluster={worker.cluster} /></span>
              {worker.alive && <span class="num">{count(worker.active ?? 0)} running</span>}
            </li>
          ))}
        </ul>
      )}
      {workers && workers.length > MAX_WORKERS && <Link to={{ view: "workers" }}>{count(workers.length - MAX_WORKERS)} more</Link>}
    </section>
  );
}

const MAX_QUEUES = 8;

function Queues({ queues }: { readonly queues: readonly Queue[] | null }) {
  const shown = [...(queues ?? [])].sort((a, b) => (b.depth ?? -1) - (a.depth ?? -1)).slice(0, MAX_QUEUES);
  return (
    <section class="card">
      <h2><Link to={{ view: "queues" }}>Queues</Link></h2>
      {!queues ? <Skeleton rows={3} /> : !queues.length ? <p class="muted">No queue is known.</p> : (
        <ul class="lines">
          {shown.map(({ name, cluster, depth, consumers, oldest, error }) => (
            <li key={`${cluster} ${name}`} class="inline">
              <span class="cut grow"><Link to={{ view: "tasks", query: [["queue", name]] }}><Text value={name} max={60} /></Link></span>
              {error ? <span class="warn" title={error}>not readable</span> : (
                <>
                  <span class="num"><strong>{depth === null ? "–" : count(depth)}</strong> ready</span>
                  {oldest !== null && <span class="muted">oldest <Time value={oldest} /></span>}
                  <span class={consumers === 0 ? "bad" : "muted"}>{consumers === null ? "" : plural(consumers, "consumer")}</span>
                </>
              )}
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
