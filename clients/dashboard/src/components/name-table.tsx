/** The numbers by task name. */
import type { Statistics, StatisticsItem } from "../../../js/src/index.ts";
import { endedPerMinute, selecting } from "../overview.ts";
import { href, type Query } from "../route.ts";
import { RUNNING, WAITING } from "../states.ts";
import { count, percent } from "../text.ts";
import { duration } from "../time.ts";
import { useState } from "preact/hooks";
import { Link, TaskLink } from "./link.tsx";
import { type Column, DataTable } from "./table.tsx";
import { Text } from "./text.tsx";
import { ClusterName, Duration, Sparkline, Time } from "./values.tsx";

const queryOf = (item: StatisticsItem, ...more: Query): Query => selecting("name", item, ...more);

/** On a phone, the name needs the space. */
const COUNT_WIDTH = "min(4.8rem, 20vw)";

function Count({ value, query, kind }: { readonly value: number; readonly query: Query; readonly kind?: string }) {
  if (!value) return <span class="muted">0</span>;
  return <Link to={{ view: "tasks", query }} class={`num ${kind ?? ""}`}>{count(value)}</Link>;
}

const columnsOf = (statistics: Statistics, { seconds } = statistics.total.buckets): readonly Column<StatisticsItem>[] => [
  { key: "name", label: "task", cell: (item) => <Link to={{ view: "tasks", query: queryOf(item) }}><Text value={item.name ?? "–"} /><ClusterName of={item} /></Link> },
  { key: "running", label: "running", isNumber: true, width: COUNT_WIDTH, cell: (item) => <Count value={item.running} query={queryOf(item, ["state", RUNNING])} kind="busy" /> },
  { key: "waiting", label: "waiting", isNumber: true, width: COUNT_WIDTH, cell: (item) => <Count value={item.waiting} query={queryOf(item, ["state", WAITING])} /> },
  { key: "rate", label: "/min", isNumber: true, width: "4.2rem", from: 2, title: `Ended tasks a minute, over at most the last ${duration((Math.ceil(60 / seconds) + 1) * seconds)}`, cell: (item) => <span class="num">{count(Math.round(endedPerMinute(item, statistics)))}</span> },
  { key: "done", label: <span class="visually-hidden">done over time</span>, width: "5.4rem", from: 3, cell: (item) => <Sparkline values={item.buckets.succeeded} label="done" width={64} /> },
  {
    key: "failed", label: "failed", isNumber: true, width: COUNT_WIDTH, title: "Of the tasks that ended in the window",
    cell: (item) => (item.failed ? <Link class="num bad" to={{ view: "tasks", query: queryOf(item, ["state", "FAILURE"]) }} title={`${count(item.failed)} failed`}>{percent(item.failed, item.failed + item.succeeded)}</Link> : <span class="muted">–</span>),
  },
  { key: "failures", label: <span class="visually-hidden">failed over time</span>, width: "4.2rem", from: 4, cell: (item) => (item.failed ? <Sparkline values={item.buckets.failed} label="failed" kind="failed" width={48} /> : null) },
  { key: "p50", label: "run p50", isNumber: true, width: "5.2rem", title: "Runtime: half of the tasks took no longer", from: 3, cell: (item) => <Duration value={item.runtime?.p50} /> },
  { key: "p95", label: "p95", title: "Runtime: 95 of 100 tasks took no longer", isNumber: true, width: "4.6rem", from: 3, cell: (item) => <Duration value={item.runtime?.p95} /> },
  { key: "wait50", label: "wait p50", title: "From sent, or from the eta, to started: half of the tasks waited no longer", isNumber: true, width: "5.2rem", from: 4, cell: (item) => <Duration value={item.wait?.p50} /> },
  { key: "wait95", label: "p95", isNumber: true, width: "4.6rem", from: 4, cell: (item) => <Duration value={item.wait?.p95} /> },
  {
    key: "last", label: "last failure", from: 3, width: "14%",
    cell: ({ last_failure: last, cluster }) => last && <TaskLink uuid={last.uuid} cluster={cluster}><Time value={last.time} /> · <Text value={last.exception ?? "failed"} max={80} /></TaskLink>,
  },
];

/** More rows are shown on demand. */
const SHOWN = 30;

export interface NameTableProps {
  readonly statistics: Statistics;
  readonly names: readonly StatisticsItem[];
}

export function NameTable({ statistics, names }: NameTableProps) {
  const [isWhole, showWhole] = useState(false);
  const shown = isWhole ? names : names.slice(0, SHOWN);
  return (
    <div class="stack names">
      <DataTable label="Tasks by name" columns={columnsOf(statistics)} rows={shown} rowKey={(item) => `${item.cluster ?? ""} ${item.name}`}
        href={(item) => href({ view: "tasks", query: queryOf(item) })} isFailure={(item) => item.failed > 0} />
      {names.length > SHOWN && (
        <button type="button" class="plain link" onClick={() => showWhole(!isWhole)}>{isWhole ? `Show ${SHOWN}` : `Show all ${count(names.length)}`}</button>
      )}
    </div>
  );
}
