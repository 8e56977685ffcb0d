/** One row of a workflow: its place in the tree, its bars or numbers, and how it goes. */
import type { WorkflowTask } from "../../../js/src/types.ts";
import { barsOf, barsOfGroup, rectOf, type Scale } from "../gantt.ts";
import { isReady, lookOf, ranOf, startOf } from "../states.ts";
import { isRunning, type GroupRow, type Row } from "../tree.ts";
import { count, percent, visible } from "../text.ts";
import { duration } from "../time.ts";
import { TaskLink } from "./link.tsx";
import { barClass } from "./phases.tsx";
import { SilentPart } from "./silent-note.tsx";
import { SilentMark } from "./silent.tsx";
import { Text } from "./text.tsx";
import { Bar, Duration, StateBadge, Time } from "./values.tsx";

export interface GanttRowProps {
  readonly row: Row;
  readonly index: number;
  readonly top: number;
  readonly scale: Scale;
  readonly at: number;
  readonly isCritical: boolean;
  readonly isSelected: boolean;
  readonly isStop: boolean;
  readonly isTable: boolean;
  readonly onToggle: () => void;
}

const INDENT = 16;
const MAX_INDENT = 20;

export function GanttRow({ row, index, top, scale, at, isCritical, isSelected, isStop, isTable, onToggle }: GanttRowProps) {
  return (
    <div role="row" class={`wf-row${isTable ? " numbers" : ""}`} data-key={row.key} aria-rowindex={index + 2} aria-level={row.depth + 1} aria-posinset={row.position[0]}
      aria-setsize={row.position[1]} aria-expanded={row.isOpen ?? undefined} aria-selected={isSelected} tabIndex={isStop ? 0 : -1} style={{ insetBlockStart: `${top}px` }}>
      <div role="gridcell" class="wf-name" style={{ paddingInlineStart: `${4 + INDENT * Math.min(row.depth, MAX_INDENT)}px` }}>
        {row.isOpen === null ? <span class="twist" /> : (
          <button type="button" class="plain twist" tabIndex={-1} aria-label={row.isOpen ? "Close" : "Open"} onClick={onToggle}>{row.isOpen ? "▾" : "▸"}</button>
        )}
        {row.kind === "task"
          ? <TaskLink uuid={row.task.uuid} cluster={row.task.cluster}><Text value={row.task.name ?? row.task.uuid} max={80} /></TaskLink>
          : <span class="cut"><Text value={row.name ?? "not known"} max={80} /> <b>×{count(row.tasks.length)}</b></span>}
        {row.kind === "task" && <SilentMark task={row.task} />}
        {isCritical && <span class="critical" title="On the critical path" aria-label="critical path">◆</span>}
      </div>
      {isTable ? <Numbers row={row} /> : <div role="gridcell" class="wf-chart"><Bars row={row} scale={scale} at={at} /></div>}
      <div role="gridcell" class="wf-outcome">{row.kind === "task" ? <TaskOutcome task={row.task} at={at} /> : <GroupOutcome row={row} />}</div>
    </div>
  );
}

function Bars({ row, scale, at }: { readonly row: Row; readonly scale: Scale; readonly at: number }) {
  const bars = row.kind === "task" ? barsOf(row.task, at) : barsOfGroup(row.tasks, at);
  const last = bars[bars.length - 1];
  const mark = last && row.kind === "task" ? MARKS[row.task.state] : undefined;
  const end = last ? scale.x(last.to) : 0;
  const text = bars.map(({ part, from, to }) => `${part} ${duration(to - from)}`).join(", ");
  return (
    <svg class="gantt" width={scale.width} height="100%" role="img" aria-label={text || "no times"}>
      {bars.map((bar, index) => {
        const rect = rectOf(scale, [bar.from, bar.to]);
        return rect && <rect key={index} class={barClass(bar) + (row.kind === "group" ? " group" : "")} x={rect.x} y="22%" width={rect.width} height="56%" />;
      })}
      {row.kind === "task" && <SilentPart task={row.task} bars={bars} scale={scale} y="22%" height="56%" />}
      {mark && end >= 0 && end <= scale.width && <text class={`mark state-${lookOf(last!.state).kind}`} x={Math.min(end + 2, scale.width - 10)} y="72%">{mark}</text>}
    </svg>
  );
}

/** Marks at the end of a bar, so that colours are not all that differs. */
const MARKS: Readonly<Record<string, string>> = { FAILURE: "✗", LOST: "?", RETRY: "↻", REVOKED: "⊘", REJECTED: "⊗" };

function TaskOutcome({ task, at }: { readonly task: WorkflowTask; readonly at: number }) {
  const { state, attempt, progress } = task;
  const started = startOf(task);
  const runs = isRunning(task);
  const seconds = ranOf(task) ?? (runs && started !== null ? Math.max(0, at - started) : null);
  return (
    <>
      <StateBadge state={state} short />
      <span class="num">{seconds === null ? "" : duration(runs ? Math.floor(seconds) : seconds)}</span>
      {progress !== null && !isReady(state) && <span class="num muted">{percent(progress, 1)}</span>}
      {attempt > 1 && <span class="muted nowrap">try {attempt}</span>}
    </>
  );
}

function GroupOutcome({ row: { tasks } }: { readonly row: GroupRow }) {
  const ready = tasks.filter(({ state }) => isReady(state)).length;
  return <><Bar value={ready / tasks.length} label={`${ready} of ${tasks.length} ready`} kind="done" /><span class="num">{count(ready)} of {count(tasks.length)}</span></>;
}

function Numbers({ row }: { readonly row: Row }) {
  if (row.kind === "group") return <>{NUMBERS.map((name) => <div key={name} role="gridcell" class="number" />)}</>;
  const { sent, received, started, queued_seconds, attempt, worker } = row.task;
  return (
    <>
      <div role="gridcell" class="number"><Time value={sent ?? received} as="clock" /></div>
      <div role="gridcell" class="number"><Time value={started} as="clock" /></div>
      <div role="gridcell" class="number"><Duration value={queued_seconds} /></div>
      <div role="gridcell" class="number"><Duration value={ranOf(row.task)} /></div>
      <div role="gridcell" class="number">{attempt || "–"}</div>
      <div role="gridcell" class="cut" title={worker === null ? undefined! : visible(worker)}><Text value={worker ?? "–"} max={60} /></div>
    </>
  );
}

/** The columns in place of the chart. */
export const NUMBERS = ["Sent", "Started", "Waited", "Ran", "Tries", "Worker"] as const;
