/** Tasks: a row a task, live, with numbers by state and name. */
import { useRef, useState } from "preact/hooks";
import type { GatewayError } from "../../../js/src/index.ts";
import type { Task, TaskList, TaskListWatch } from "../../../js/src/types.ts";
import { CountList } from "../components/count-list.tsx";
import { FilterParts } from "../components/filter-parts.tsx";
import { ErrorBox, Skeleton, ViewFrame } from "../components/layout.tsx";
import { MoreButton } from "../components/more-button.tsx";
import { NothingMatches, NoTasks } from "../components/nothing-matches.tsx";
import { DataTable } from "../components/table.tsx";
import { columnsOf } from "../components/task-columns.tsx";
import { WatchIt } from "../components/watch-it.tsx";
import { listPause, useWatch } from "../gateway.ts";
import { taskKey, useHeld } from "../held.ts";
import { useKeys } from "../keys.ts";
import { goQuery } from "../navigation.ts";
import { formatQuery, href, type Query, valueOf, withValue } from "../route.ts";
import { conditionsOf, filterOf, partsOf } from "../task-query.ts";
import { count, plural } from "../text.ts";
import type { View } from "./registry.ts";

const taskHref = ({ uuid, cluster }: Task): string => href({ view: "task", id: uuid, query: cluster === undefined ? [] : [["cluster", cluster]] });

const TasksView: View = ({ route: { query } }) => {
  const selecting = query.filter(([name]) => name !== "sort");
  const key = formatQuery(selecting);
  const sort = valueOf(query, "sort") || "newest";
  const list = useRef<TaskListWatch | null>(null);
  const known = useWatch<TaskList>((client) => (list.current = client.tasks(filterOf(query), { sort, ...conditionsOf(query) })), `${key} ${sort}`, listPause);
  const counts = useWatch((client) => client.counts(filterOf(query), ["state", "name"], conditionsOf(query)), key);
  const { value, error, status } = known;
  const held = useHeld(value, `${key} ${sort}`);
  const [isWatching, watch] = useState(false);
  useKeys({ hold: held.toggle, escape: () => (partsOf(query).length ? goQuery(query.filter(([name]) => name === "sort"), { replace: false }) : false) });
  const rows = held.rows;
  const state = !value ? (status === "error" ? "error" : "loading") : rows.length ? "ready" : "empty";
  // By the gateway, or by the client, whose errors have no status.
  const isRefused = state === "error" && [400, undefined].includes((error as Partial<GatewayError> | null)?.status);
  const total = counts.value?.total;

  return (
    <ViewFrame name="tasks" state={state} title={<>Tasks {total !== undefined && <span class="muted num">{count(total)}</span>}</>}
      tools={<>
        {held.arrived > 0 && <button type="button" class="primary" onClick={held.release}>{plural(held.arrived, "new task")}</button>}
        <button type="button" aria-expanded={isWatching} onClick={() => watch(!isWatching)}>Watch it</button>
        <button type="button" aria-pressed={held.isFollowing} title="Show new tasks at once (Space)" onClick={held.toggle}>Follow</button>
      </>}>
      <FilterParts query={query} />
      {isWatching && <div class="card"><WatchIt kind="filter" query={query} /></div>}
      {error && <ErrorBox error={error} />}
      <div class="with-side">
        <div class="stack">
          {state === "loading" && <Skeleton rows={12} />}
          {(state === "empty" || isRefused) && partsOf(query).length > 0 && <NothingMatches query={query} isRefused={isRefused} />}
          {state === "empty" && !partsOf(query).length && <NoTasks />}
          {rows.length > 0 && (
            <DataTable label="Tasks" columns={columnsOf(rows)} rows={rows} rowKey={taskKey} href={taskHref} isFailure={isFailure} rowClass={rowClass} {...sorted(sort, query)} />
          )}
          {value?.more && <MoreButton list={list} />}
        </div>
        <aside class="side" aria-label="Numbers of tasks">
          {counts.value && <CountList field="state" label="By state" counts={counts.value.counts.state ?? {}} query={query} />}
          {counts.value && <CountList field="name" label="By name" counts={counts.value.counts.name ?? {}} other={counts.value.other.name} query={query} />}
        </aside>
      </div>
    </ViewFrame>
  );
};

const isFailure = (task: Task): boolean => task.state === "FAILURE" || task.stale;
const rowClass = (task: Task): string => (task.stale ? "is-lost" : "");

/** The order of the API as that of a table: `newest` is the time of sending, the latest first. */
function sorted(sort: string, query: Query) {
  const key = sort === "newest" || sort === "oldest" ? "begun" : sort.replace(/^-/, "");
  const descending = sort === "newest" || sort.startsWith("-");
  const onSort = (by: string, down: boolean): void => {
    const value = by === "begun" ? (down ? "" : "oldest") : (down ? "-" : "") + by;
    goQuery(withValue(query, "sort", value));
  };
  return { sort: { key, descending }, onSort };
}

export default TasksView;
