/** Workflows: a row a root, the newest first. */
import { useRef } from "preact/hooks";
import type { WorkflowList, WorkflowListWatch, WorkflowSummary } from "../../../js/src/types.ts";
import { FilterParts } from "../components/filter-parts.tsx";
import { Empty, ErrorBox, Skeleton, ViewFrame } from "../components/layout.tsx";
import { WorkflowLink } from "../components/link.tsx";
import { MoreButton } from "../components/more-button.tsx";
import { type Column, DataTable } from "../components/table.tsx";
import { Text } from "../components/text.tsx";
import { Bar, Duration, Since, StateBadge, Time } from "../components/values.tsx";
import { useWatch } from "../gateway.ts";
import { goQuery } from "../navigation.ts";
import { formatQuery, href, type Query, valueOf, withValue, WORKFLOW_NUMBERS } from "../route.ts";
import { comparedOf, conditionsOf, filterOf, partsOf, patternsOf } from "../task-query.ts";
import { count } from "../text.ts";
import type { View } from "./registry.ts";

const STATES = ["running", "failed", "succeeded", "waiting", "lost"] as const;
const LOOKS: Readonly<Record<WorkflowSummary["state"], string>> = { running: "running", failed: "failed", succeeded: "done", waiting: "waiting", lost: "lost" };
const SHAPES: Readonly<Record<WorkflowSummary["state"], string>> = { running: "●", failed: "✗", succeeded: "✓", waiting: "…", lost: "?" };

const workflowKey = ({ root_id, cluster }: WorkflowSummary): string => (cluster === undefined ? root_id : `${cluster}/${root_id}`);
const workflowHref = ({ root_id, cluster }: WorkflowSummary): string =>
  href({ view: "workflow", id: root_id, query: cluster === undefined ? [] : [["cluster", cluster]] });

const COLUMNS: readonly Column<WorkflowSummary>[] = [
  { key: "state", label: "State", width: "8.5rem", cell: ({ state }) => <span class={`state state-${LOOKS[state]}`}><span class="shape" aria-hidden="true">{SHAPES[state]}</span> {state}</span> },
  { key: "name", label: "Workflow", cell: ({ root_id, name, cluster }) => <WorkflowLink rootId={root_id} cluster={cluster}><Text value={name ?? root_id} max={120} /></WorkflowLink> },
  { key: "ready", label: "Ready", width: "7rem", isNumber: true, from: 2, cell: ({ ready, total }) => <span class="num">{count(ready)} of {count(total)}</span> },
  { key: "progress", label: "Progress", width: "6.5rem", from: 2, cell: ({ progress, ready, total, state }) => <Bar value={progress} label={`${ready} of ${total} ready`} kind={LOOKS[state]} /> },
  { key: "counts", label: "Tasks", from: 3, cell: ({ counts }) => <Counts counts={counts} /> },
  { key: "begun", label: "Begun", width: "7rem", isNumber: true, from: 2, sort: "begun", cell: ({ begun }) => <Time value={begun} as="short" /> },
  { key: "took", label: "Took", width: "6rem", isNumber: true, from: 2, cell: ({ begun, ended }) => (begun === null ? "–" : ended === null ? <Since value={begun} /> : <Duration value={ended - begun} />) },
];

function Counts({ counts }: Pick<WorkflowSummary, "counts">) {
  return <>{Object.entries(counts).slice(0, 6).map(([state, number]) => <span key={state} class="count-of" title={`${number} ${state}`}><StateBadge state={state} short /> {count(number)} </span>)}</>;
}

/** Single tasks are left out, unless the query says something about `total`. */
function withSingles(query: Query, isOn: boolean): Query {
  const others = query.filter(([name]) => !/^total([<>]=?)?$/.test(name));
  return isOn ? [...others, ["total>=", "1"]] : others;
}

const WorkflowsView: View = ({ route: { query } }) => {
  const states = patternsOf(valueOf(query, "state"));
  const where = comparedOf(query, WORKFLOW_NUMBERS);
  const withSingle = !!where.total;
  const sort = valueOf(query, "sort") || "newest";
  const key = formatQuery(query);
  const list = useRef<WorkflowListWatch | null>(null);
  const { value, error, status } = useWatch<WorkflowList>((client) => {
    const { state: _, ...filter } = filterOf(query);
    const { q, since, before } = conditionsOf(query);
    return (list.current = client.workflows(filter, { state: states, sort, where: { total: ">=2", ...where }, q, since, before }));
  }, key);
  const rows = value?.workflows ?? [];
  const state = !value ? (status === "error" ? "error" : "loading") : rows.length ? "ready" : "empty";
  const toggle = (one: string): void => {
    const next = states.includes(one) ? states.filter((other) => other !== one) : [...states, one];
    goQuery(withValue(query, "state", next.join(",")), { replace: false });
  };
  const onSort = (_: string, down: boolean): void => goQuery(withValue(query, "sort", down ? "" : "oldest"));
  return (
    <ViewFrame name="workflows" state={state} title="Workflows" tools={
      <>
        <div class="inline" role="group" aria-label="State">
          {STATES.map((one) => <button key={one} type="button" aria-pressed={states.includes(one)} onClick={() => toggle(one)}>{one}</button>)}
        </div>
        <label class="inline"><input type="checkbox" checked={withSingle} onChange={() => goQuery(withSingles(query, !withSingle))} /> single tasks, too</label>
      </>
    }>
      <FilterParts query={query} />
      {error && <ErrorBox error={error} />}
      {state === "loading" && <Skeleton rows={12} />}
      {state === "empty" && <NoWorkflows query={query} withSingle={withSingle} />}
      {rows.length > 0 && (
        <DataTable label="Workflows" columns={COLUMNS} rows={rows} rowKey={workflowKey} href={workflowHref} isFailure={(row) => row.state === "failed" || row.state === "lost"}
          sort={{ key: "begun", descending: sort !== "oldest" }} onSort={onSort} />
      )}
      {value?.more && <MoreButton list={list} />}
    </ViewFrame>
  );
};

function NoWorkflows({ query, withSingle }: { readonly query: Query; readonly withSingle: boolean }) {
  const isFiltered = partsOf(query).length > 0;
  return (
    <Empty title={isFiltered ? "No workflow matches the filter" : withSingle ? "The gateway has not seen any task" : "No workflow of two or more tasks"}>
      {!withSingle && <p>Tasks that have no parent and no children are left out. <button type="button" class="plain link" onClick={() => goQuery(withSingles(query, true))}>Show them</button></p>}
      {isFiltered && <button type="button" onClick={() => goQuery([], { replace: false })}>Remove the filter</button>}
    </Empty>
  );
}

export default WorkflowsView;
