/** What the view of a workflow draws, computed from its tree. */
import { useMemo } from "preact/hooks";
import type { Workflow, WorkflowTask } from "../../js/src/types.ts";
import { now } from "./gateway.ts";
import { extentOf, type Range } from "./gantt.ts";
import { useComputed } from "./store.ts";
import { allTasks, rowsOf, type Row } from "./tree.ts";

export interface Drawn {
  readonly rows: readonly Row[];
  readonly tasks: readonly WorkflowTask[];
  /** From the first task to the end of the last one, or to now. */
  readonly extent: Range;
  /** What is shown of it. */
  readonly range: Range;
  readonly at: number;
  readonly critical: ReadonlySet<string>;
}

export interface DrawOptions {
  readonly opened: ReadonlyMap<string, boolean>;
  readonly hidesIdle: boolean;
  /** A part of the time; null: all of it. */
  readonly part: Range | null;
  readonly isFollowing: boolean;
}

export function useDrawn(workflow: Workflow | null, { opened, hidesIdle, part, isFollowing }: DrawOptions): Drawn | null {
  const isOver = !workflow || workflow.ready === workflow.total;
  const at = useComputed(() => (isOver ? 0 : now.value), now);
  const tasks = useMemo(() => (workflow ? allTasks(workflow.tasks) : []), [workflow]);
  const extent = useMemo(() => extentOf(tasks, at), [tasks, at]);
  const rows = useMemo(() => (workflow ? rowsOf(workflow.tasks, { opened, hidesIdle }) : []), [workflow, opened, hidesIdle]);
  const critical = useMemo(() => new Set(workflow?.critical_path.map(({ uuid }) => uuid)), [workflow]);
  if (!workflow || !extent) return workflow ? { rows, tasks, extent: [at, at + 1], range: [at, at + 1], at, critical } : null;
  const length = part ? part[1] - part[0] : 0;
  const range: Range = !part ? extent : isFollowing ? [extent[1] - length, extent[1]] : part;
  return { rows, tasks, extent, range, at, critical };
}
