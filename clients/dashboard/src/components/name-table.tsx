/** The numbers by task name. */
import type { Statistics, StatisticsItem } from "../../../js/src/index.ts";
import { endedPerMinute } from "../overview.ts";
import { href, literal, type Query } from "../route.ts";
import { count, percent } from "../text.ts";
import { useState } from "preact/hooks";
import { Link, TaskLink } from "./link.tsx";
import { type Column, DataTable } from "./table.tsx";
import { Text } from "./text.tsx";
import { Duration, Sparkline, Time } from "./values.tsx";

const queryOf = (item: StatisticsItem, ...more: Query): Query => [
  ["name", literal(item.name ?? "")],
  ...(item.cluster === undefined ? [] : [["cluster", literal(item.cluster)] as const]),
  ...more,
];

function Count({ value, query, kind }: { readonly value: number; readonly query: Query; readonly kind?: string }) {
  if (!value) return <span class="muted">0</span>;
  return <Link to={{ view: "tasks", query }} class={`num ${kind ?? ""}`}>{count(value)}</Link>;
}

const columnsOf = (statistics: Statistics): readonly Column<StatisticsItem>[] => [
  { key: "name", label: "task", cell: (item) => <Link to={{ view: "tasks", query: queryOf(item) }}><Text value={item.name ?? "–"} />{item.cluster !== undefined && <span class="muted"> {item.cluster}</span>}</Link> },
  { key: "running", label: "running", isNumber: true, width: "4.8rem", cell: (item) => <Count value={item.running} query={queryOf(item, ["state", "STARTED,PROGRESS"])} kind="busy" /> },
  { key: "waiting", label: "waiting", isNumber: true, width: "4.8rem", cell: (item) => <Count value={item.waiting} query={queryOf(item, ["state", "PENDING,RECEIVED,RETRY"])} /> },
  { key: "rate", label: "/min", isNumber: true, width: "4.2rem", from: 2, title: "Tasks that ended in the last minute", cell: (item) => <span class="num">{count(Math.round(endedPerMinute(item, statistics)))}</span> },
  { key: "done", label: <span class="visually-hidden">done over time</span>, width: "5.4rem", from: 3, cell: (item) => <Sparkline values={item.buckets.succeeded} label="done" width={64} /> },
  {
    key: "failed", label: "failed", isNumber: true, width: "4.8rem", title: "Of the tasks that ended in the window",
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
    <div class="stack">
      <DataTable label="Tasks by name" columns={columnsOf(statistics)} rows={shown} rowKey={(item) => `${item.cluster ?? ""} ${item.name}`}
        href={(item) => href({ view: "tasks", query: queryOf(item) })} isFailure={(item) => item.failed > 0} />
      {names.length > SHOWN && (
        <button type="button" class="plain link" onClick={() => showWhole(!isWhole)}>{isWhole ? `Show ${SHOWN}` : `Show all ${count(names.length)}`}</button>
      )}
    </div>
  );
}
