/** Failures by exception and place: how many, of which tasks, since when. */
import { useState } from "preact/hooks";
import type { Failure } from "../../../js/src/index.ts";
import { CopyButton, Empty, ErrorBox, Panel, Skeleton, ViewFrame } from "../components/layout.tsx";
import { Link, TaskLink, WorkerLink } from "../components/link.tsx";
import { type Column, DataTable } from "../components/table.tsx";
import { LongText, Text } from "../components/text.tsx";
import { Time } from "../components/values.tsx";
import { useWatch } from "../gateway.ts";
import { goQuery } from "../navigation.ts";
import { href, literal, type Query, valueOf, withValue } from "../route.ts";
import { count, plural } from "../text.ts";
import type { View } from "./registry.ts";

const LIMIT = 200;
const MAX_NAMES = 50;
const AGES: readonly (readonly [value: string, label: string])[] = [["", "All"], ["10m", "10 minutes"], ["1h", "1 hour"], ["24h", "24 hours"], ["7d", "7 days"]];

const COLUMNS: readonly Column<Failure>[] = [
  { key: "count", label: "Count", width: "5rem", isNumber: true, title: "Since the first", cell: (failure) => count(failure.count) },
  { key: "exception", label: "Exception", cell: ({ exception, message, uuid }) => (
    <TaskLink uuid={uuid}><Text value={exception} class="bad" max={80} /> <Text value={message} class="muted" max={200} /></TaskLink>
  ) },
  { key: "frame", label: "Raised in", width: "24%", from: 3, cell: ({ frame }) => <Text value={frame ?? "–"} class="mono" max={120} /> },
  { key: "names", label: "Tasks", width: "20%", from: 2, cell: ({ names }) => <Names names={names} /> },
  { key: "first", label: "First", width: "7rem", from: 4, cell: ({ first }) => <Time value={first} /> },
  { key: "last", label: "Last", width: "7rem", cell: ({ last }) => <Time value={last} /> },
];

/** Return the names of a failure, the most frequent first. */
const ordered = (names: Failure["names"]) => Object.entries(names).sort(([a, one], [b, other]) => other - one || (a < b ? -1 : 1));

function Names({ names }: { readonly names: Failure["names"] }) {
  const all = ordered(names);
  return <><Text value={all[0]?.[0] ?? "–"} max={80} />{all.length > 1 && ` and ${count(all.length - 1)} more`}</>;
}

const FailuresView: View = ({ route }) => {
  const [selected, select] = useState<string | null>(null);
  const [name, cluster, since] = ["name", "cluster", "since"].map((field) => valueOf(route.query, field)) as [string, string, string];
  const key = JSON.stringify([name, cluster, since]);
  const { value, error } = useWatch(
    (client) => client.failures({ limit: LIMIT, name: name || undefined, cluster: cluster || undefined, since: since || undefined }),
    `failures ${key}`,
  );
  const state = !value ? (error ? "error" : "loading") : value.length ? "ready" : "empty";
  const current = value?.find(({ signature }) => signature === selected);
  const total = value?.reduce((sum, failure) => sum + failure.count, 0) ?? 0;
  return (
    <ViewFrame name="failures" state={state} title="Failures"
      tools={value && <span role="status">{plural(total, "failure")} of {plural(value.length, "kind")}{value.length === LIMIT && " or more"}{since && " since the first"}</span>}>
      <form class="inline failure-filter" onSubmit={(event) => event.preventDefault()}>
        <label>
          Task name{" "}
          <input type="search" name="name" value={name} placeholder="shop.*" spellcheck={false}
            onChange={(event) => goQuery(withValue(route.query, "name", event.currentTarget.value.trim()))} />
        </label>
        <div class="inline" role="group" aria-label="Since">
          {AGES.map(([age, label]) => (
            <Link key={age} to={{ ...route, query: withValue(route.query, "since", age) }} class="chip" current={age === since}>{label}</Link>
          ))}
          {!AGES.some(([age]) => age === since) && <span class="chip">since <Text value={since} max={40} /></span>}
        </div>
      </form>
      {error && <ErrorBox error={error} />}
      {state === "loading" && <Skeleton />}
      {state === "ready" && (
        <DataTable label="Failures" columns={COLUMNS} rows={value!} rowKey={({ signature }) => signature}
          href={({ uuid }) => href({ view: "task", id: uuid })} selected={selected} onSelect={select} isFailure={() => true} />
      )}
      {state === "empty" && <NothingFailed isFiltered={!!(name || cluster)} since={since} query={route.query} />}
      {current && <Details failure={current} cluster={cluster} onClose={() => select(null)} />}
    </ViewFrame>
  );
};
export default FailuresView;

interface NothingFailedProps {
  readonly isFiltered: boolean;
  readonly since: string;
  readonly query: Query;
}

function NothingFailed({ isFiltered, since, query }: NothingFailedProps) {
  const age = AGES.find(([value]) => value && value === since)?.[1];
  const when = age ? ` in the last ${age.replace(/^1 /, "")}` : since ? " since then" : "";
  return (
    <Empty title={isFiltered ? `No task that matches has failed${when}.` : `Nothing has failed${when}.`}>
      {isFiltered || since ? (
        <Link to={{ view: "failures", query: query.filter(([field]) => field === "cluster" && !isFiltered) }}>Show all failures</Link>
      ) : (
        <p>The gateway has received no event of a failed task.</p>
      )}
    </Empty>
  );
}

interface DetailsProps {
  readonly failure: Failure;
  readonly cluster: string;
  readonly onClose: () => void;
}

function Details({ failure, cluster, onClose }: DetailsProps) {
  const { exception, message, frame, first, last, uuid, worker, names } = failure;
  const all = ordered(names);
  return (
    <Panel label="The failure" onClose={onClose}>
      <h2 class="bad"><Text value={exception} max={200} /></h2>
      <div class="stack">
        <LongText value={message} maxLines={40} />
        <div><CopyButton text={`${exception}: ${message}`} label="Copy message" /></div>
        <dl class="fields">
          <dt>Raised in</dt><dd><Text value={frame ?? "not known"} class="mono" max={400} /></dd>
          <dt>Count</dt><dd>{count(failure.count)} since the first</dd>
          <dt>First</dt><dd><Time value={first} as="both" /></dd>
          <dt>Last</dt><dd><Time value={last} as="both" /></dd>
          <dt>Newest task</dt><dd><TaskLink uuid={uuid} /></dd>
          <dt>Worker</dt><dd>{worker === null ? "–" : <WorkerLink hostname={worker} cluster={failure.cluster} />}</dd>
        </dl>
        <h3>Tasks</h3>
        <ul>
          {all.slice(0, MAX_NAMES).map(([name, number]) => (
            <li key={name} class="inline">
              <Link to={{ view: "tasks", query: failedTasks(name, exception, cluster) }}><Text value={name} max={200} /></Link> {count(number)}
            </li>
          ))}
          {all.length > MAX_NAMES && <li>and {count(all.length - MAX_NAMES)} more names</li>}
        </ul>
      </div>
    </Panel>
  );
}

function failedTasks(name: string, exception: string, cluster: string): Query {
  const query: Query = [["name", literal(name)], ["state", "FAILURE"], ["q", exception]];
  return cluster ? [...query, ["cluster", cluster]] : query;
}
