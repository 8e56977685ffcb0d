/** The ended tasks of the window, by time: done, retried and failed above each other. A table has the same numbers. */
import { useState } from "preact/hooks";
import { isUtc } from "../gateway.ts";
import type { StatisticsItem } from "../../../js/src/index.ts";
import { count } from "../text.ts";
import { clock } from "../time.ts";

const WIDTH = 600;
const HEIGHT = 56;
const KINDS = [["succeeded", "done", "done"], ["retried", "retry", "retried"], ["failed", "failed", "failed"]] as const;

export interface HistoryStripProps {
  readonly buckets: StatisticsItem["buckets"];
  /** Since when events were counted; before, it is hatched. */
  readonly since: number;
}

export function HistoryStrip({ buckets, since }: HistoryStripProps) {
  const [isTable, showTable] = useState(false);
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
  const label = `Ended tasks since ${clock(start, isUtc.value)}: ${KINDS.map(([kind, , word]) => `${count(sum(kind))} ${word}`).join(", ")}`;
  return (
    <figure class="history">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={label}>
        <title>{label}</title>
        {unknown > 0 && <rect class="unknown" width={unknown} height={HEIGHT} />}
        {KINDS.map(([kind, look], which) => <path key={kind} class={`state-${look}`} d={paths[which]} />)}
      </svg>
      <figcaption class="inline muted">
        <span>{clock(start, isUtc.value).slice(0, 5)}</span>
        {KINDS.map(([kind, look, word]) => <span key={kind} class="inline"><i class={`swatch state-${look}`} aria-hidden="true" />{count(sum(kind))} {word}</span>)}
        {unknown > 0 && <span class="inline"><i class="swatch unknown" aria-hidden="true" />not counted before {clock(since, isUtc.value)}</span>}
        <span class="push">now</span>
      </figcaption>
      <details onToggle={(event) => showTable(event.currentTarget.open)}>
        <summary>Show as table</summary>
        {isTable && <table class="plain-table">
          <thead><tr><th scope="col">from</th>{KINDS.map(([kind, , word]) => <th key={kind} scope="col">{word}</th>)}</tr></thead>
          <tbody>
            {totals.map((_, index) => (
              <tr key={index}><th scope="row">{clock(start + index * seconds, isUtc.value)}</th>{KINDS.map(([kind]) => <td key={kind} class="number">{at(kind, index)}</td>)}</tr>
            ))}
          </tbody>
        </table>}
      </details>
    </figure>
  );
}
