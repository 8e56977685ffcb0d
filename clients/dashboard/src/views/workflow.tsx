/** Workflow: the tasks of one root as a tree, and over time. */
import { useEffect, useState } from "preact/hooks";
import type { Workflow } from "../../../js/src/types.ts";
import { Actions } from "../components/actions.tsx";
import { Strip } from "../components/gantt-head.tsx";
import { CopyButton, ErrorBox, Skeleton, ViewFrame } from "../components/layout.tsx";
import { Text } from "../components/text.tsx";
import { Unknown } from "../components/unknown-task.tsx";
import { Bar, StateBadge } from "../components/values.tsx";
import { WatchIt } from "../components/watch-it.tsx";
import { WorkflowGrid } from "../components/workflow-grid.tsx";
import { WorkflowPanel } from "../components/workflow-panel.tsx";
import { useGaps } from "../gaps.ts";
import { useWatch } from "../gateway.ts";
import { moved, type Range } from "../gantt.ts";
import { useKeys } from "../keys.ts";
import { base, goQuery } from "../navigation.ts";
import { href, type Query, valueOf, withValue } from "../route.ts";
import { count } from "../text.ts";
import { duration } from "../time.ts";
import { keyOfTask, keysToShow, nextFailed, type Row } from "../tree.ts";
import { useDrawn } from "../workflow-data.ts";
import type { View } from "./registry.ts";

const WorkflowView: View = ({ route: { id, query } }) => {
  const cluster = valueOf(query, "cluster") || undefined;
  const inCluster: Query = cluster === undefined ? [] : [["cluster", cluster]];
  const { value: shown, status, error } = useWatch<Workflow>(
    (client) => client.workflow(id, { attempts: true, ...(cluster !== undefined && { cluster }) }),
    `${id} ${cluster}`,
    pauseOf,
  );
  const isNotRoot = (error as { code?: string } | null)?.code === "not-a-root";
  const state = shown ? "ready" : status === "unknown" || isNotRoot ? "empty" : status === "error" ? "error" : "loading";
  const name = shown?.tasks[0]?.name;
  return (
    <ViewFrame name="workflow" state={state} title={<Text value={name ?? "Workflow"} max={300} />}
      tools={<>
        <CopyButton text={new URL(href({ view: "workflow", id, query: inCluster }), base).href} label="Copy the link" />
        <a class="button" href={href({ view: "workflow", id, query: [...inCluster, ["format", "json"]] })}>Raw JSON</a>
        {shown && <Actions workflow={shown} />}
      </>}>
      {error && !isNotRoot && <ErrorBox error={error} />}
      {state === "loading" && <Skeleton rows={12} />}
      {state === "empty" && <Unknown what="workflow" id={id} cluster={cluster} />}
      {shown && <Body workflow={shown} query={query} cluster={cluster} />}
    </ViewFrame>
  );
};

/** Milliseconds between two drawings: more for large workflows. */
function pauseOf(workflow: Workflow | null): number {
  return Math.min(2_000, Math.max(50, (workflow?.total ?? 0) / 20));
}

interface BodyProps {
  readonly workflow: Workflow;
  readonly query: Query;
  readonly cluster: string | undefined;
}

function Body({ workflow, query, cluster }: BodyProps) {
  const [opened, setOpened] = useState<ReadonlyMap<string, boolean>>(new Map());
  const [hidesIdle, hideIdle] = useState(false);
  const [isFollowing, follow] = useState(true);
  const [part, setPart] = useState<Range | null>(null);
  const [target, setTarget] = useState<{ readonly key: string } | null>(null);
  const [chart, setChart] = useState({ left: 0, width: 600 });
  const [isWatching, watch] = useState(false);
  /** The rows are drawn after the numbers: each part takes some time for thousands of tasks. */
  const [isSettled, settle] = useState(false);
  useEffect(() => settle(true), []);
  const drawn = useDrawn(workflow, { opened, hidesIdle, part, isFollowing })!;
  const gaps = useGaps(workflow);
  const selected = valueOf(query, "task") || null;
  const task = selected === null ? undefined : drawn.tasks.find(({ uuid }) => uuid === selected);
  const isTable = valueOf(query, "view") === "tree";
  const select = (uuid: string): void => goQuery(withValue(query, "task", uuid));
  const toggle = (row: Row): void => {
    if (row.isOpen !== null) setOpened(new Map(opened).set(row.key, !row.isOpen));
  };
  const toggleFollow = (): void => {
    follow(!isFollowing);
    if (isFollowing && !part) setPart(drawn.extent);
    if (!isFollowing && part && part[0] <= drawn.extent[0]) setPart(null);
  };
  const shift = (by: number) => () => {
    follow(false);
    setPart(moved(drawn.range, by, drawn.extent));
  };
  useKeys({
    hold: toggleFollow,
    back: shift(-0.25),
    forth: shift(0.25),
    failure: () => {
      const next = nextFailed(workflow.tasks, selected);
      if (!next) return false;
      setOpened(new Map([...opened, ...keysToShow(workflow.tasks, next.uuid).map((key) => [key, true] as const)]));
      select(next.uuid);
      setTarget({ key: keyOfTask(next) });
      return true;
    },
  });
  return (
    <div class="stack">
      <Summary workflow={workflow} seconds={drawn.extent[1] - drawn.extent[0]} />
      <div class="inline" role="group" aria-label="View">
        <button type="button" aria-pressed={isTable} onClick={() => goQuery(withValue(query, "view", isTable ? "" : "tree"))}>Show as table</button>
        <button type="button" aria-pressed={isFollowing} title="Keep the end of the time in sight (Space)" onClick={toggleFollow}>Follow</button>
        <button type="button" aria-pressed={hidesIdle} title="Show only tasks that run, have failed or are lost" onClick={() => hideIdle(!hidesIdle)}>Hide idle</button>
        {part && <button type="button" onClick={() => { setPart(null); follow(true); }}>All of the time</button>}
        <button type="button" aria-expanded={isWatching} onClick={() => watch(!isWatching)}>Watch it</button>
      </div>
      {isWatching && <div class="card"><WatchIt kind="workflow" rootId={workflow.root_id} cluster={cluster} /></div>}
      {isSettled && !isTable && (
        <div style={{ paddingInlineStart: `${chart.left}px` }}>
          <Strip tasks={drawn.tasks} extent={drawn.extent} range={drawn.range} width={chart.width} at={drawn.at} gaps={gaps}
            onPart={(next) => { setPart(next); follow(next === null); }} />
        </div>
      )}
      {hidesIdle && !drawn.rows.length && <p class="muted">No task runs, has failed or is lost.</p>}
      {isSettled && <WorkflowGrid label="Tasks of the workflow" drawn={drawn} gaps={gaps} isTable={isTable} selected={selected} target={target} onToggle={toggle} onChart={(left, width) => setChart({ left, width })}
        onSelect={(row) => (row.kind === "task" ? select(row.task.uuid) : toggle(row))} />}
      {task && <WorkflowPanel task={task} onClose={() => select("")} />}
    </div>
  );
}

function Summary({ workflow, seconds }: { readonly workflow: Workflow; readonly seconds: number }) {
  const { ready, total, progress, counts } = workflow;
  return (
    <p class="inline wf-summary">
      <b class="num">{count(ready)} of {count(total)} ready</b> <Bar value={progress} label={`${ready} of ${total} ready`} kind={counts["FAILURE"] ? "failed" : "done"} />
      <span class="num">{Math.floor(100 * progress)} %</span>
      <span class="muted">{duration(ready === total ? seconds : Math.floor(seconds))} {ready === total ? "in all" : "so far"}</span>
      {Object.entries(counts).slice(0, 12).map(([state, number]) => <span key={state} class="nowrap"><StateBadge state={state} /> {count(number)}</span>)}
    </p>
  );
}

export default WorkflowView;
