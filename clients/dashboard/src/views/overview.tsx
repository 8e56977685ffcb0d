/** The overview: what runs, what waits, what fails, and who works. All numbers are the gateway's. */
import type { Failure, Queue, Statistics, Worker } from "../../../js/src/index.ts";
import { FilterParts } from "../components/filter-parts.tsx";
import { HistoryStrip } from "../components/history-strip.tsx";
import { Empty, ErrorBox, Skeleton, StartWorker, ViewFrame } from "../components/layout.tsx";
import { Link, TaskLink, WorkerLink } from "../components/link.tsx";
import { NameTable } from "../components/name-table.tsx";
import { Running } from "../components/running.tsx";
import { Text } from "../components/text.tsx";
import { ClusterName, Time } from "../components/values.tsx";
import { WorkerStatus } from "../components/worker-status.tsx";
import { useGaps } from "../gaps.ts";
import { health, may, useWatch } from "../gateway.ts";
import { goQuery } from "../navigation.ts";
import { type Emptiness, emptiness, isCutOff, problems, tasksOf } from "../overview.ts";
import { PARAMETERS, type Query, type Route, valueOf, type ViewName, withValue } from "../route.ts";
import { useStatistics } from "../statistics.ts";
import { use } from "../store.ts";
import { filterOf } from "../task-query.ts";
import { count, plural } from "../text.ts";
import { keyOfWorker, selects } from "../workers.ts";
import type { View } from "./registry.ts";

const WINDOWS = ["5m", "15m", "1h", "6h", "24h"];
const DEFAULT_WINDOW = "1h";

/** Return a view, with what this one selects. */
const viewWith = (query: Query, view: ViewName): { readonly view: ViewName; readonly query: Query } => ({ view, query: query.filter(([name]) => PARAMETERS[view].includes(name)) });

const OverviewView: View = ({ route }: { readonly route: Route }) => {
  const { query } = route;
  const window = valueOf(query, "window") || DEFAULT_WINDOW;
  const filter = filterOf(query);
  const { name, cluster } = filter;
  const key = JSON.stringify(filter);
  const isWhole = key === "{}";
  const inCluster = selects(viewWith(query, "queues").query);
  const { value, error, sent } = useStatistics({ window, name, cluster });
  const seesWorkers = use(may).includes("workers");
  const { value: allWorkers } = useWatch((client) => (seesWorkers ? client.workers() : null), `workers ${seesWorkers}`);
  const { value: allQueues } = useWatch((client) => (seesWorkers ? client.queues() : null), `queues ${seesWorkers}`);
  const [workers, queues] = [allWorkers?.filter(inCluster) ?? null, allQueues?.filter(inCluster) ?? null];
  const { value: failures } = useWatch((client) => client.failures({ limit: 5, name, cluster }), `failures ${key}`);
  const gaps = useGaps(sent);
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
      {value && (workers || !seesWorkers) && <Problems statistics={value} workers={workers} queues={queues} query={query} />}
      {value && !(why && !workers?.length) && (
        <>
          <HistoryStrip buckets={value.total.buckets} since={value.since} gaps={gaps} />
          {value.names.length > 0 && <NameTable statistics={value} names={value.names} />}
          {value.other && <p class="muted">Further names have {plural(value.other.running, "running task")}, {count(value.other.waiting)} waiting.</p>}
          <div class="cards">
            <Running items={value.names} query={viewWith(query, "tasks").query} />
            <Failures failures={failures} query={query} />
            {seesWorkers ? <><Workers workers={workers} query={query} /><Queues queues={queues} query={query} /></> : (
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
  const isAway = why !== "only-sent" && isCutOff(sources);
  return (
    <Empty title={isAway ? "The gateway has no broker, so nothing is known yet." : `${why === "only-sent" ? "Tasks were sent. " : ""}No worker has been heard.`}>
      <StartWorker />
    </Empty>
  );
}

interface ProblemsProps {
  readonly statistics: Statistics;
  readonly workers: readonly Worker[] | null;
  readonly queues: readonly Queue[] | null;
  readonly query: Query;
}

function Problems({ statistics, workers, queues, query }: ProblemsProps) {
  const found = problems(statistics.total, workers, queues);
  if (!found.length) return null;
  return (
    <ul class="stack">
      {found.map(({ text, view, stale }) => (
        <li key={text} class="note inline"><Text value={text} max={600} /> <Link class="push" to={viewWith(stale ? [...query, ["stale", "1"]] : query, view)}>Look</Link></li>
      ))}
    </ul>
  );
}

function Failures({ failures, query }: { readonly failures: readonly Failure[] | null; readonly query: Query }) {
  return (
    <section class="card">
      <h2><Link to={viewWith(query, "failures")}>Failures</Link></h2>
      {!failures ? <Skeleton rows={3} /> : !failures.length ? <p class="muted">Nothing has failed. </p> : (
        <ul class="lines">
          {failures.map(({ signature, exception, message, count: number, uuid, last }) => (
            <li key={signature} class="inline">
              <strong class="bad num" title="Since the first">{count(number)}×</strong>
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

function Workers({ workers, query }: { readonly workers: readonly Worker[] | null; readonly query: Query }) {
  const shown = [...(workers ?? [])].sort((a, b) => Number(b.alive) - Number(a.alive)).slice(0, MAX_WORKERS);
  return (
    <section class="card">
      <h2><Link to={viewWith(query, "workers")}>Workers</Link></h2>
      {!workers ? <Skeleton rows={3} /> : !workers.length ? <p class="muted">No worker has been heard.</p> : (
        <ul class="lines">
          {shown.map((worker) => (
            <li key={keyOfWorker(worker)} class="inline">
              <WorkerStatus worker={worker} />
              <span class="cut grow"><WorkerLink hostname={worker.hostname} cluster={worker.cluster} /><ClusterName of={worker} /></span>
              {worker.alive && <span class="num">{count(worker.active ?? 0)} running</span>}
            </li>
          ))}
        </ul>
      )}
      {workers && workers.length > MAX_WORKERS && <Link to={viewWith(query, "workers")}>{count(workers.length - MAX_WORKERS)} more</Link>}
    </section>
  );
}

const MAX_QUEUES = 8;

function Queues({ queues, query }: { readonly queues: readonly Queue[] | null; readonly query: Query }) {
  const shown = [...(queues ?? [])].sort((a, b) => (b.depth ?? -1) - (a.depth ?? -1)).slice(0, MAX_QUEUES);
  return (
    <section class="card">
      <h2><Link to={viewWith(query, "queues")}>Queues</Link></h2>
      {!queues ? <Skeleton rows={3} /> : !queues.length ? <p class="muted">No queue is known.</p> : (
        <ul class="lines">
          {shown.map((queue) => {
            const { name, cluster, depth, consumers, oldest, error } = queue;
            return <li key={`${cluster} ${name}`} class="inline">
              <span class="cut grow"><Link to={tasksOf(queue)}><Text value={name} max={60} /></Link><ClusterName of={queue} /></span>
              {error ? <span class="warn" title={error}>not readable</span> : (
                <>
                  <span class="num"><strong>{depth === null ? "–" : count(depth)}</strong> ready</span>
                  {oldest !== null && <span class="muted">oldest <Time value={oldest} /></span>}
                  <span class={consumers === 0 ? "bad" : "muted"}>{consumers === null ? "" : plural(consumers, "consumer")}</span>
                </>
              )}
            </li>;
          })}
        </ul>
      )}
    </section>
  );
}
