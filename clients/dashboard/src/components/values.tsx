/** Single values: states, times, durations, parts and rows of numbers. */
import { isUtc, now } from "../gateway.ts";
import { lookOf } from "../states.ts";
import { use, useComputed } from "../store.ts";
import { percent } from "../text.ts";
import { ago, clock, dateTime, duration, rfc3339, shortTime } from "../time.ts";
import { Text } from "./text.tsx";

/** A state by colour, shape and word. */
export function StateBadge({ state, short = false }: { readonly state: string; readonly short?: boolean }) {
  const { kind, shape } = lookOf(state);
  return (
    <span class={`state state-${kind}`} title={short ? state : undefined}>
      <span aria-hidden="true" class="shape">{shape}</span>
      {short ? <span class="visually-hidden">{state}</span> : <Text value={state} max={24} />}
    </span>
  );
}

/** The name of the broker, if brokers have names: it follows the name of something. */
export function ClusterName({ of: { cluster } }: { readonly of: { readonly cluster?: string } }) {
  return cluster === undefined ? null : <> <Text class="muted" value={cluster} max={30} /></>;
}

export interface TimeProps {
  /** Epoch seconds; null: `–`. */
  readonly value: number | null | undefined;
  /** `ago`: relative, and the whole in the title; `clock`: with milliseconds; `short`: time of day, or date; `both`. */
  readonly as?: "ago" | "clock" | "short" | "both";
}

export function Time({ value, as = "ago" }: TimeProps) {
  const utc = use(isUtc);
  const text = useComputed(() => textOf(value ?? 0, as, utc), now);
  if (value == null) return <span class="muted">–</span>;
  return <time class="num" dateTime={rfc3339(value)} title={`${dateTime(value, utc)} · ${dateTime(value, !utc)}`}>{text}</time>;
}

function textOf(value: number, as: TimeProps["as"], utc: boolean): string {
  if (as === "ago") return ago(value, now.value);
  if (as === "clock") return clock(value, utc, 3);
  const short = shortTime(value, now.value, utc);
  return as === "short" ? short : `${short} · ${ago(value, now.value)}`;
}

/** A duration in seconds; null: `–`. */
export function Duration({ value }: { readonly value: number | null | undefined }) {
  if (value == null) return <span class="muted">–</span>;
  return <span class="num" title={`${value} s`}>{duration(value)}</span>;
}

/** The time since a moment, which goes on. */
export function Since({ value }: { readonly value: number | null | undefined }) {
  return <Duration value={useComputed(() => (value == null ? null : Math.max(0, Math.floor(now.value - value))), now)} />;
}

export interface BarProps {
  /** 0..1. */
  readonly value: number;
  readonly label?: string;
  readonly kind?: string;
}

/** A part of a whole as a bar. */
export function Bar({ value, label, kind = "running" }: BarProps) {
  const part = Math.min(1, Math.max(0, value || 0));
  return (
    <span class={`bar state-${kind}`} role="img" aria-label={label ?? percent(part, 1)} title={label ?? percent(part, 1)}>
      <span style={{ inlineSize: `${100 * part}%` }} />
    </span>
  );
}

export interface SparklineProps {
  readonly values: readonly number[];
  /** What the values are, for the label and the title. */
  readonly label: string;
  readonly kind?: string;
  readonly width?: number;
  readonly height?: number;
}

/** A row of numbers as bars. A value above 0 is at least one pixel high. */
export function Sparkline({ values, label, kind = "done", width = 96, height = 18 }: SparklineProps) {
  const max = Math.max(1, ...values);
  const step = width / Math.max(1, values.length);
  const bar = (value: number, index: number): string => {
    if (!value) return "";
    const tall = Math.max(1, (height * value) / max);
    return `M${(index * step).toFixed(2)} ${height}v${(-tall).toFixed(2)}h${Math.max(0.5, step - 0.5).toFixed(2)}v${tall.toFixed(2)}z`;
  };
  const text = `${label}: ${values.reduce((sum, value) => sum + value, 0)}, at most ${Math.max(0, ...values)} at a time`;
  return (
    <svg class={`spark state-${kind}`} width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="img" aria-label={text}>
      <title>{text}</title>
      <path d={values.map(bar).join("")} />
    </svg>
  );
}
