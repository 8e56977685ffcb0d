/** What is shown of a task whose worker is silent, beside the mark. */
import type { Task } from "../../../js/src/types.ts";
import { type Bar, rectOf, type Scale } from "../gantt.ts";
import { lookOfStatus } from "../workers.ts";
import { WorkerLink } from "./link.tsx";
import { useAway, type With } from "./silent.tsx";
import { Since } from "./values.tsx";

/** What it means for a task that its worker is silent. */
export function SilentNote({ task }: { readonly task: Task }) {
  const worker = useAway(task);
  if (!worker) return null;
  const { status, since, hostname, cluster } = worker;
  return (
    <p class="note" role="note" data-note="worker-away">
      {lookOfStatus(status).shape} Its worker <WorkerLink hostname={hostname} cluster={cluster} /> {status === "silent" ? "has been silent" : "has been offline"} for <Since value={since} />
      {status === "silent" && <>: it is busy, or dead. The task counts as lost once it has been silent for <code>--worker-timeout</code> (5 min by default)</>}.
    </p>
  );
}

export interface SilentPartProps {
  readonly task: With;
  readonly bars: readonly Bar[];
  readonly scale: Scale;
  readonly y: number | string;
  readonly height: number | string;
}

/** The end of a bar: since the task's worker was heard. It needs a `HatchPattern` in the page. */
export function SilentPart({ task, bars, scale, y, height }: SilentPartProps) {
  const worker = useAway(task);
  const bar = bars[bars.length - 1];
  if (!worker || !bar?.isOpen) return null;
  const rect = rectOf(scale, [Math.min(bar.to, Math.max(bar.from, worker.timestamp ?? worker.since ?? 0)), bar.to]);
  return rect && <rect class="away" fill="url(#hatch)" x={rect.x} y={y} width={rect.width} height={height}><title>its worker is {worker.status}</title></rect>;
}
