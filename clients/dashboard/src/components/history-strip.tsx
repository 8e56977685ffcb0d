/** The ended tasks of the window, by time: done, retried and failed above each other. A table has the same numbers. */
import { useState } from "preact/hooks";
import { gapTitle, type SeenGap } from "../gaps.ts";
import { isUtc } from "../gateway.ts";
import type { StatisticsItem } from "../../../js/src/index.ts";
import { use } from "../store.ts";
import { count, plural } from "../text.ts";
import { clock } from "../time.ts";
import { HatchPattern } from "./hatch.tsx";

const WIDTH = 600;
const HEIGHT = 56;
/** The least width of a gap. */
const MIN_GAP = 4;
const KINDS = [["succeeded", "done", "done"], ["retried", "retry", "retried"], ["failed", "failed", "failed"]] as const;

export interface HistoryStripProps {
  readonly buckets: StatisticsItem["buckets"];
  /** Since when events were counted; before, it is hatched. */
  readonly since: number;
  readonly gaps: readonly SeenGap[];
}

export function HistoryStrip({ buckets, since, gaps }: HistoryStripProps) {
  const [isTable, showTable] = useState(false);
  const utc = use(isUtc);
  const { seconds, start } = buckets;
  const length = buckets.succeeded.length;
  const at = (kind: (typeof KINDS)[number][0], index: number): number => buckets[kind][index] ?? 0;
  const totals = Array.from({ length }, (_, index) => KINDS.reduce((sum, [kind]) => sum + at(kind, index), 0));
  const max = Math.max(1, ...totals);
  const step = WIDTH / Math.max(1, length);
  const unknown = Math.min(length, Math.max(0, (since - start) / seconds)) * step;
  const paths = KINDS.map(() => "");
  for (let index = 0; index < length; index++) {
    let y = HEIGHT;
    KINDS.forEach(([kind], which) => {
      const value = at(kind, index);
      if (!value) return;
      const tall = Math.max(1.5, (HEIGHT * value) / max);
      y -= tall;
      paths[which] += `M${(index * step).toFixed(2)} ${y.toFixed(2)}h${Math.max(0.5, step - 1).toFixed(2)}v${tall.toFixed(2)}H${(index * step).toFixed(2)}z`;
    });
  }
  const sum = (kind: (typeof KINDS)[number][0]): number => buckets[kind].reduce((all, value) => all + value, 0);
  const label = `Ended tasks since ${clock(start, utc)}: ${KINDS.map(([kind, , word]) => `${count(sum(kind))} ${word}`).join(", ")}`;
  return (
    <figure class="history">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={label}>
        <title>{label}</title>
        {unknown > 0 && <rect class="unknown" width={unknown} height={HEIGHT} />}
        {gaps.length > 0 && <HatchPattern />}
        {KINDS.map(([kind, look], which) => <path key={kind} class={`state-${look}`} d={paths[which]} />)}
        {gaps.map((gap, index) => {
          const [x, end] = gap.range.map((time) => Math.min(WIDTH, Math.max(0, ((time - start) / seconds) * step))) as [number, number];
          return end > 0 && <rect key={index} class="gap" fill="url(#hatch)" x={Math.min(x, WIDTH - MIN_GAP)} width={Math.max(MIN_GAP, end - x)} height={HEIGHT}><title>{gapTitle(gap)}</title></rect>;
        })}
      </svg>
      <figcaption class="inline muted">
        <span>{clock(start, utc).slice(0, 5)}</span>
        {KINDS.map(([kind, look, word]) => <span key={kind} class="inline"><i class={`swatch state-${look}`} aria-hidden="true" />{count(sum(kind))} {word}</span>)}
        {unknown > 0 && <span class="inline"><i class="swatch unknown" aria-hidden="true" />not counted before {clock(since, utc)}</span>}
        {gaps.length > 0 && <span class="inline"><i class="swatch gap" aria-hidden="true" />{plural(gaps.length, "gap")}: events may be missing</span>}
        <span class="push">now</span>
      </figcaption>
      <details onToggle={(event) => showTable(event.currentTarget.open)}>
        <summary>Show as table</summary>
        {isTable && <table class="plain-table">
          <thead><tr><th scope="col">from</th>{KINDS.map(([kind, , word]) => <th key={kind} scope="col">{word}</th>)}</tr></thead>
          <tbody>
            {totals.map((_, index) => (
              <tr key={index}><th scope="row">{clock(start + index * seconds, utc)}</th>{KINDS.map(([kind]) => <td key={kind} class="number">{at(kind, index)}</td>)}</tr>
            ))}
          </tbody>
        </table>}
      </details>
    </figure>
  );
}
