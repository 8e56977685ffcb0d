/** Numbers of tasks by the values of a field. A click filters by the value, another one ends that. */
import { useState } from "preact/hooks";
import { goQuery } from "../navigation.ts";
import { literal, type Query, valueOf, withValue } from "../route.ts";
import { lookOf, STATES } from "../states.ts";
import { patternsOf } from "../task-query.ts";
import { count } from "../text.ts";
import { Text } from "./text.tsx";
import { StateBadge } from "./values.tsx";

export interface CountListProps {
  readonly field: "state" | "name";
  readonly label: string;
  readonly counts: Readonly<Record<string, number>>;
  /** The number beyond those of `counts`. */
  readonly other?: number | undefined;
  readonly query: Query;
}

const FEW = 12;
const MANY = 200;

export function CountList({ field, label, counts, other = 0, query }: CountListProps) {
  const [isLong, showLong] = useState(false);
  const selected = patternsOf(valueOf(query, field));
  const order = (value: string): number => (field === "state" ? (STATES as readonly string[]).indexOf(value) : 0);
  const all = Object.entries(counts).sort(([a, x], [b, y]) => order(a) - order(b) || y - x || (a < b ? -1 : 1));
  if (!all.length) return null;
  const shown = all.slice(0, isLong ? MANY : FEW);
  const toggle = (value: string): void => {
    const pattern = literal(value);
    const isOn = selected.includes(pattern);
    const patterns = isOn ? selected.filter((one) => one !== pattern) : field === "state" ? [...selected, pattern] : [pattern];
    goQuery(withValue(query, field, patterns.join(",")), { replace: false });
  };
  return (
    <section class="count-list" aria-label={label}>
      <h2>{label}</h2>
      <ul>
        {shown.map(([value, number]) => (
          <li key={value}>
            {value ? (
              <button type="button" class={`plain state-${field === "state" ? lookOf(value).kind : "off"}`} aria-pressed={selected.includes(literal(value))} onClick={() => toggle(value)}>
                {field === "state" ? <StateBadge state={value} /> : <Text value={value} max={80} class="cut" />}
                <span class="num">{count(number)}</span>
              </button>
            ) : <span class="muted none">not known <span class="num">{count(number)}</span></span>}
          </li>
        ))}
      </ul>
      {all.length > FEW && <button type="button" class="plain link" onClick={() => showLong(!isLong)}>{isLong ? "Show less" : `Show ${Math.min(all.length, MANY)}`}</button>}
      {(other > 0 || (isLong && all.length > MANY)) && <p class="muted">and {count(other + all.slice(MANY).reduce((sum, [, number]) => sum + number, 0))} tasks of other names</p>}
    </section>
  );
}
