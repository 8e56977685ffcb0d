/** The overview: what runs, what waits, what fails, and who works. All numbers are the gateway's. */
import type { Failure, Queue, Statistics, Worker } from "../../../js/src/index.ts";
import { HistoryStrip } from "../components/history-strip.tsx";
import { Empty, ErrorBox, Skeleton, ViewFrame } from "../components/layout.tsx";
import { Link, TaskLink, WorkerLink } from "../components/link.tsx";
import { NameTable } from "../components/name-table.tsx";
import { Running } from "../components/running.tsx";
import { Text } from "../components/text.tsx";
import { Since, Time } from "../components/values.tsx";
import { health, useWatch } from "../gateway.ts";
import { goQuery } from "../navigation.ts";
import { type Emptiness, emptiness, isCutOff, problems } from "../overview.ts";
import { type Route, valueOf, withValue } from "../route.ts";
import { count, plural } from "../text.ts";
import type { View } from "./registry.ts";

const WINDOWS = ["5m", "15m", "1h", "6h", "24h"];
const DEFAULT_WINDOW = "1h";

const OverviewView: View = ({ route }: { readonly route: Route }) => {
  const { query } = route;
  const window = valueOf(query, "window") || DEFAULT_WINDOW;
  const name = valueOf(query, "name");
  const cluster = valueOf(query, "cluster");
  const statistics = useWatch((client) => client.statistics({ window, ...(name ? { name } : {}) }), `statistics ${window} ${name}`);
  const { value: workers } = useWatch((client) => client.workers(), "workers");
  const { value: queues } = useWatch((client) => client.queues(), "queues");
  const { value: failures } = useWatch((client) => client.failures({ limit: 5, ...(name ? { name } : {}) }), `failures ${name}`);
  const { value, error } = statistics;
  const why = value && workers && !name ? emptiness(value.total, value.names.length, workers) : null;
  const names = value?.names.filter((item) => !cluster || item.cluster === cluster) ?? [];
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
      {error && <ErrorBox error={error} />}
      {!value && !error && <Skeleton rows={10} />}
      {why && <WhyEmpty why={why} />}
      {value && workers && <Problems statistics={value} workers={workers} queues={queues} />}
      {value && !(why && !workers?.length) && (
        <>
          <HistoryStrip buckets={value.total.buckets} since={value.since} />
          {names.length > 0 && <NameTable statistics={value} names={names} />}
          {value.other && <p class="muted">Further names have {plural(value.other.running, "running task")}, {count(value.other.waiting)} waiting.</p>}
          <div class="cards">
            <Running items={value.names} />
            <Failures failures={failures} />
            <Workers workers={workers} />
            <Queues queues={queues} />
          </div>
        </>
      )}
    </ViewFrame>
  );
};
export default OverviewView;

function WhyEmpty({ why }: { readonly why: Exclude<Emptiness, null> }) {
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
  const isAway = isCutOff(health.value?.sources ?? []);
  return (
    <Empty title={isAway ? "The gateway has no broker, so nothing is known yet." : "No worker has been heard."}>
      {!isAway && <p>Workers send a first event when they start:</p>}
      <pre>{"celery -A proj worker -E\ncelery-gateway check"}</pre>
      <p><code>celery-gateway check</code> prints what keeps events from arriving, and how to mend it.</p>
    </Empty>
  );
}

function Problems({ statistics, workers, queues }: { readonly statistics: Statistics; readonly workers: readonly Worker[]; readonly queues: readonly Queue[] | null }) {
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

function Failures({ failures }: { readonly failures: readonly Failure[] | null }) {
  return (
    <section class="card">
      <h2><Link to={{ view: "failures" }}>Failures</Link></h2>
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
const MARKS = { online: ["●", "good"], stopping: ["◐", "warn"], silent: ["▲", "warn"], offline: ["○", "muted"], unknown: ["?", "muted"] } as const;

function Workers({ workers }: { readonly workers: readonly Worker[] | null }) {
  const shown = [...(workers ?? [])].sort((a, b) => Number(b.alive) - Number(a.alive)).slice(0, MAX_WORKERS);
  return (
    <section class="card">
      <h2><Link to={{ view: "workers" }}>Workers</Link></h2>
      {!workers ? <Skeleton rows={3} /> : !workers.length ? <p class="muted">No worker has been heard.</p> : (
        <ul class="lines">
          {shown.map(({ hostname, cluster, status, active, since }) => (
            <li key={`${cluster} ${hostname}`} class="inline">
              <span class={`${MARKS[status][1]} nowrap`}><span aria-hidden="true">{MARKS[status][0]}</span> {status}</span>
              <span class="cut grow"><WorkerLink hostname={hostname} cluster={cluster} /></span>
              {status === "online" || status === "stopping" ? <span class="num">{count(active ?? 0)} running</span> : <span class="muted">for <Since value={since} /></span>}
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
