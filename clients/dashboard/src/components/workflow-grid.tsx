/** The rows of a workflow as a treegrid. Only the rows in sight are in the page. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { scaleOf } from "../gantt.ts";
import type { SeenGap } from "../gaps.ts";
import { useKeys } from "../keys.ts";
import { base, go } from "../navigation.ts";
import { href } from "../route.ts";
import type { Row } from "../tree.ts";
import { useWidth } from "../width.ts";
import type { Drawn } from "../workflow-data.ts";
import { Axis, Backdrop } from "./gantt-head.tsx";
import { GanttRow, NUMBERS } from "./gantt-row.tsx";

const OVERSCAN = 6;
/** Until the layout is known. */
const FIRST_ROWS = 20;

export interface WorkflowGridProps {
  readonly label: string;
  readonly drawn: Drawn;
  readonly gaps: readonly SeenGap[];
  readonly isTable: boolean;
  readonly selected: string | null;
  /** The key of a row to bring in sight and to focus; another object asks again. */
  readonly target: { readonly key: string } | null;
  readonly onSelect: (row: Row) => void;
  readonly onToggle: (row: Row) => void;
  /** Is called with where the chart is in the grid, in pixels. */
  readonly onChart: (left: number, width: number) => void;
}

export function WorkflowGrid({ label, drawn, gaps, isTable, selected, target, onSelect, onToggle, onChart }: WorkflowGridProps) {
  const { rows, range, extent, at, critical } = drawn;
  const grid = useRef<HTMLDivElement>(null);
  const heads = useRef<HTMLDivElement>(null);
  const [focused, setFocused] = useState<string | null>(null);
  const [chart, width] = useWidth(600);
  const height = useRowHeight();
  const [first, last] = useInSight(grid, height, rows.length);
  const scale = scaleOf(range, width);
  useLayoutEffect(() => {
    const head = grid.current?.querySelector(".wf-chart")?.getBoundingClientRect();
    if (head) onChart(head.left - grid.current!.getBoundingClientRect().left, width);
  }, [width, isTable]);

  const found = focused === null ? 0 : rows.findIndex(({ key }) => key === focused);
  const stop = Math.max(0, found);
  const focusRow = (index: number): void => {
    const row = rows[index];
    const box = grid.current;
    if (!row || !box) return;
    setFocused(row.key);
    const top = index * height;
    const seen = box.clientHeight - heads.current!.offsetHeight;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + height > box.scrollTop + seen) box.scrollTop = top + height - seen;
    requestAnimationFrame(() => requestAnimationFrame(() => box.querySelector<HTMLElement>(`[aria-rowindex="${index + 2}"]`)?.focus({ preventScroll: true })));
  };
  useEffect(() => {
    const index = target ? rows.findIndex(({ key }) => key === target.key) : -1;
    if (index >= 0) focusRow(index);
  }, [target]);

  const isInside = (): boolean => !!grid.current?.contains(document.activeElement);
  const move = (by: number) => () => {
    const index = isInside() ? Math.min(rows.length - 1, Math.max(0, stop + by)) : stop;
    focusRow(index);
    if (selected !== null && rows[index]?.kind === "task") onSelect(rows[index]!);
  };
  const address = (row: Row | undefined) =>
    row?.kind === "task" ? { view: "task" as const, id: row.task.uuid, query: row.task.cluster === undefined ? [] : [["cluster", row.task.cluster] as const] } : null;
  useKeys({
    next: move(1),
    previous: move(-1),
    open: () => {
      const row = rows[stop];
      if (!row || !isInside()) return false;
      if (row.kind === "group") return onToggle(row);
      return selected === row.task.uuid ? go(address(row)!) : onSelect(row);
    },
    openTab: () => {
      const to = isInside() ? address(rows[stop]) : null;
      return to ? void open(new URL(href(to), base), "_blank", "noopener") : false;
    },
  });
  const onKeyDown = (event: KeyboardEvent): void => {
    const row = rows[stop];
    if (!row || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowRight" && row.isOpen === false) onToggle(row);
    else if (event.key === "ArrowRight" && row.isOpen) focusRow(stop + 1);
    else if (event.key === "ArrowLeft" && row.isOpen) onToggle(row);
    else if (event.key === "ArrowLeft") focusRow(parentOf(rows, stop));
    else if (event.key === "Home") focusRow(0);
    else if (event.key === "End") focusRow(rows.length - 1);
    else return;
    event.preventDefault();
  };

  return (
    <div class={`wf-grid${isTable ? " is-table" : ""}`} ref={grid} onKeyDown={onKeyDown} role="treegrid" aria-label={label} aria-rowcount={rows.length + 1} aria-colcount={isTable ? 2 + NUMBERS.length : 3}>
      <div role="row" class={`wf-row wf-heads${isTable ? " numbers" : ""}`} ref={heads} aria-rowindex={1}>
        <div role="columnheader" class="wf-name">Task</div>
        {isTable ? NUMBERS.map((name) => <div key={name} role="columnheader" class="number">{name}</div>)
          : <div role="columnheader" class="wf-chart" ref={chart}><span class="visually-hidden">Time</span><Axis scale={scale} origin={extent[0]} /></div>}
        <div role="columnheader" class="wf-outcome">State</div>
      </div>
      <div class="wf-rows" role="rowgroup" style={{ blockSize: `${rows.length * height}px` }}>
        {!isTable && <div class="wf-back" role="presentation"><Backdrop scale={scale} origin={extent[0]} gaps={gaps} /></div>}
        {rows.slice(first, last).map((row, offset) => {
          const index = first + offset;
          const uuid = row.kind === "task" ? row.task.uuid : null;
          return (
            <div key={row.key} role="presentation" onFocusCapture={() => setFocused(row.key)} onClick={(event) => !(event.target as Element).closest("a, button") && onSelect(row)}>
              <GanttRow row={row} index={index} top={index * height} scale={scale} at={at} isTable={isTable} isStop={index === Math.min(Math.max(stop, first), last - 1)}
                isSelected={uuid !== null && uuid === selected} isCritical={uuid !== null && critical.has(uuid)} onToggle={() => onToggle(row)} />
            </div>
          );
        })}
      </div>
    </div>
  );
}

/** Return the index of the row above that the row with this index is below; -1 if there is none. */
function parentOf(rows: readonly Row[], index: number): number {
  const { depth } = rows[index]!;
  let above = index - 1;
  while (above >= 0 && rows[above]!.depth >= depth) above--;
  return above;
}

/** Return the height of a row in pixels, which is larger on touch screens. */
function useRowHeight(): number {
  const [height] = useState(() => parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row")) || 24);
  return height;
}

/** Return the first row in sight, and the one after the last. */
function useInSight(grid: { readonly current: HTMLElement | null }, height: number, count: number): readonly [number, number] {
  const [range, setRange] = useState<readonly [number, number]>([0, FIRST_ROWS]);
  useLayoutEffect(() => {
    const box = grid.current;
    if (!box) return;
    const look = (): void => {
      const first = Math.max(0, Math.floor(box.scrollTop / height) - OVERSCAN);
      const last = Math.ceil((box.scrollTop + box.clientHeight) / height) + OVERSCAN;
      setRange((before) => (before[0] === first && before[1] === last ? before : [first, last]));
    };
    const observer = new ResizeObserver(look);
    observer.observe(box);
    box.addEventListener("scroll", look, { passive: true });
    look();
    return () => {
      observer.disconnect();
      box.removeEventListener("scroll", look);
    };
  }, [height]);
  const last = Math.min(count, range[1]);
  return [Math.max(0, Math.min(range[0], last - 1)), last];
}
