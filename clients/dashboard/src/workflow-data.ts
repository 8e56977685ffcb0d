/** What the view of a workflow draws, computed from its tree. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Workflow, WorkflowTask } from "../../js/src/types.ts";
import { client, now } from "./gateway.ts";
import { extentOf, type Range } from "./gantt.ts";
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
  const at = isOver ? 0 : now.value;
  const tasks = useMemo(() => (workflow ? allTasks(workflow.tasks) : []), [workflow]);
  const extent = useMemo(() => extentOf(tasks, at), [tasks, at]);
  const rows = useMemo(() => (workflow ? rowsOf(workflow.tasks, { opened, hidesIdle }) : []), [workflow, opened, hidesIdle]);
  const critical = useMemo(() => new Set(workflow?.critical_path.map(({ uuid }) => uuid)), [workflow]);
  if (!workflow || !extent) return workflow ? { rows, tasks, extent: [at, at + 1], range: [at, at + 1], at, critical } : null;
  const length = part ? part[1] - part[0] : 0;
  const range: Range = !part ? extent : isFollowing ? [extent[1] - length, extent[1]] : part;
  return { rows, tasks, extent, range, at, critical };
}

/** A time in which events were lost, or may have been, while the page was open. */
export interface SeenGap {
  readonly range: Range;
  readonly reason: string;
  readonly lost: number | null;
}

const MAX_GAPS = 100;

/** Return the gaps since the component was mounted. One begins at the change before it, and ends when it is reported. */
export function useGaps(changed: unknown): readonly SeenGap[] {
  const [gaps, setGaps] = useState<readonly SeenGap[]>([]);
  const last = useRef(Date.now() / 1_000);
  useEffect(() => {
    last.current = Date.now() / 1_000;
  }, [changed]);
  const current = client.value;
  useEffect(
    () =>
      current.on("gap", ({ reason, lost }) => {
        const to = Date.now() / 1_000;
        const range: Range = [Math.min(last.current, to - 0.05), to];
        setGaps((before) => [...before.slice(1 - MAX_GAPS), { range, reason, lost }]);
      }),
    [current],
  );
  return gaps;
}
