/** The time of a workflow: a strip of all of it to choose a part from, and the axis of that part. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { WorkflowTask } from "../../../js/src/types.ts";
import { densityOf, type Range, rectOf, scaleOf, ticksOf, type Scale } from "../gantt.ts";
import { gapTitle, type SeenGap } from "../gaps.ts";
import { plural } from "../text.ts";
import { duration } from "../time.ts";
import { HatchPattern } from "./hatch.tsx";
import { Ticks } from "./phases.tsx";

const STRIP = 34;
/** The parts of the strip. */
const PARTS = 240;
/** A shorter drag is a click. */
const MIN_PIXELS = 4;

export interface StripProps {
  readonly tasks: readonly WorkflowTask[];
  readonly extent: Range;
  readonly range: Range;
  readonly width: number;
  readonly at: number;
  readonly gaps: readonly SeenGap[];
  /** Is called with null for all of the time. */
  readonly onPart: (part: Range | null) => void;
}

/** How many tasks ran when. A drag chooses a part of the time, a click all of it. It is drawn after the rows are. */
export function Strip(props: StripProps) {
  const { tasks, extent, range, width, at, gaps } = props;
  const [drawn, draw] = useState<StripProps | null>(null);
  useEffect(() => draw(props), [tasks, ...extent, ...range, width, at, gaps]);
  return drawn ? <Density {...drawn} /> : <svg class="gantt strip" width={width} height={STRIP} aria-hidden="true" />;
}

function Density({ tasks, extent, range, width, at, gaps, onPart }: StripProps) {
  const [drag, setDrag] = useState<readonly [from: number, to: number] | null>(null);
  const ref = useRef<SVGSVGElement>(null);
  const { running, failed } = useMemo(() => densityOf(tasks, extent, PARTS, at), [tasks, extent[0], extent[1], at]);
  const scale = scaleOf(extent, width);
  const most = running.reduce((max, number) => Math.max(max, number), 1);
  const step = width / PARTS;
  const area = running.map((number, index) => (number ? bar(index * step, step, (number / most) * (STRIP - 8)) : "")).join("");
  const marks = failed.map((number, index) => (number ? `M${(index * step).toFixed(1)} 0h${Math.max(2, step).toFixed(1)}v5h${(-Math.max(2, step)).toFixed(1)}z` : "")).join("");
  const window = rectOf(scale, drag ? [scale.time(Math.min(...drag)), scale.time(Math.max(...drag))] : range);
  const xOf = (event: PointerEvent): number => Math.min(width, Math.max(0, event.clientX - ref.current!.getBoundingClientRect().left));
  const end = (): void => {
    if (!drag) return;
    const [from, to] = [Math.min(...drag), Math.max(...drag)];
    setDrag(null);
    onPart(to - from < MIN_PIXELS ? null : [scale.time(from), scale.time(to)]);
  };
  return (
    <svg ref={ref} class="gantt strip" width={width} height={STRIP} role="img"
      aria-label={`At most ${plural(most, "task")} at a time in ${duration(extent[1] - extent[0])}, ${plural(failed.reduce((sum, one) => sum + one, 0), "failure")}`}
      onPointerDown={(event) => {
        ref.current!.setPointerCapture(event.pointerId);
        setDrag([xOf(event), xOf(event)]);
      }}
      onPointerMove={(event) => drag && setDrag([drag[0], xOf(event)])}
      onPointerUp={end} onPointerCancel={() => setDrag(null)}>
      <HatchPattern />
      <path class="density" d={area} />
      <path class="failures" d={marks} />
      <Gaps gaps={gaps} scale={scale} />
      {window && window.width < width - 1 && <rect class="window" x={window.x} y={0} width={window.width} height={STRIP} />}
    </svg>
  );
}

const bar = (x: number, width: number, height: number): string =>
  `M${x.toFixed(1)} ${STRIP}v${(-height).toFixed(1)}h${width.toFixed(1)}v${height.toFixed(1)}z`;

/** The ticks of the part that is shown, as times since the workflow began. */
export function Axis({ scale, origin }: { readonly scale: Scale; readonly origin: number }) {
  return (
    <svg class="gantt axis" width={scale.width} height="20" aria-hidden="true">
      <Ticks scale={scale} origin={origin} y={14} />
    </svg>
  );
}

/** Lines of the ticks, and gaps, behind all rows in sight. */
export function Backdrop({ scale, origin, gaps }: { readonly scale: Scale; readonly origin: number; readonly gaps: readonly SeenGap[] }) {
  return (
    <svg class="gantt backdrop" width={scale.width} height="100%" aria-hidden="true">
      {ticksOf(scale.range, origin, Math.max(2, scale.width / 90)).map((time) => <line key={time} x1={scale.x(time)} x2={scale.x(time)} y1="0" y2="100%" />)}
      <Gaps gaps={gaps} scale={scale} />
    </svg>
  );
}

function Gaps({ gaps, scale }: { readonly gaps: readonly SeenGap[]; readonly scale: Scale }) {
  return (
    <>
      {gaps.map((gap, index) => {
        const rect = rectOf(scale, gap.range, 3);
        return rect && <rect key={index} class="gap" fill="url(#hatch)" x={rect.x} y="0" width={rect.width} height="100%"><title>{gapTitle(gap)}</title></rect>;
      })}
    </>
  );
}
