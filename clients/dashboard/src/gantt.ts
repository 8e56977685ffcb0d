/** The geometry of a task's and a workflow's time chart. Pure; times are epoch seconds. */
import type { Attempt, Task, WorkflowTask } from "../../js/src/types.ts";
import { isReady, lookOf } from "./states.ts";

/** A part of an attempt. `queue`: waits in a queue or at a worker; `eta`: waits for its time; `run`: runs. */
export interface Bar {
  readonly part: "queue" | "eta" | "run";
  readonly from: number;
  readonly to: number;
  /** The state of the attempt, for the colour of a run. */
  readonly state: string;
  /** The number of the attempt, from 1. */
  readonly attempt: number;
  /** Whether it goes on: `to` is now. */
  readonly isOpen: boolean;
}

export type Range = readonly [from: number, to: number];
type Times = Pick<Attempt, "state" | "sent" | "eta" | "received" | "started" | "ended">;
type Timed = Task | WorkflowTask;

const GOES_ON = new Set(["PENDING", "RECEIVED", "STARTED", "PROGRESS", "RETRY"]);

/** Return the attempts of a task as far as its record has them; from a record without `attempts` only the last one. */
export function attemptsOf(task: Timed): readonly Times[] {
  const all = task.attempts;
  const newest = all?.[all.length - 1];
  if (all && newest) return newest.state === "LOST" && newest.ended === null ? [...all.slice(0, -1), { ...newest, ended: task.lost }] : all;
  const isRetry = task.state === "RETRY";
  const wasRetried = task.retried !== null && !isRetry;
  const sent = wasRetried && (task.sent === null || task.sent < task.retried) ? task.retried : task.sent;
  const { received, eta, started, state } = task;
  const ended = task.succeeded ?? task.failed ?? task.revoked ?? (isRetry ? task.retried : null) ?? task.lost;
  return [{ state, sent, eta, received, started, ended }];
}

/**
 * Return the bars of a task, in the order of time.
 *
 * @param now the end of what goes on.
 */
export function barsOf(task: Timed, now: number): readonly Bar[] {
  const before = BARS.get(task);
  if (before) return before;
  const bars = newBars(task, now);
  if (isReady(task.state) && !bars.some(({ isOpen }) => isOpen)) BARS.set(task, bars);
  return bars;
}

/** The bars of tasks that have ended, which do not depend on the time. */
const BARS = new WeakMap<Timed, readonly Bar[]>();

function newBars(task: Timed, now: number): Bar[] {
  const attempts = attemptsOf(task);
  const bars: Bar[] = [];
  const first = Math.max(1, task.attempt - attempts.length + 1);
  attempts.forEach((times, index) => {
    const next = attempts[index + 1];
    const end = times.ended ?? (next ? (next.sent ?? next.received ?? next.started ?? times.started) : null);
    addBars(bars, times, end, first + index, now);
  });
  return bars;
}

function addBars(bars: Bar[], times: Times, end: number | null, attempt: number, now: number): void {
  const { state } = times;
  const begun = times.sent ?? times.received ?? times.started;
  if (begun === null) return;
  const started = times.started === null ? null : Math.max(times.started, begun);
  // It was sent by another clock. `lost` is of the gateway's.
  if (end !== null && state !== "LOST") end += (started ?? 0) - (times.started ?? 0);
  const goesOn = end === null && (GOES_ON.has(state) || (!isReady(state) && lookOf(state).kind === "custom"));
  const add = (part: Bar["part"], from: number, to: number, isOpen: boolean): void => {
    if (to > from || part === "run") bars.push({ part, from, to: Math.max(from, to), state, attempt, isOpen });
  };
  const waitEnd = started ?? end ?? (goesOn ? now : begun);
  const eta = times.eta === null ? NaN : Date.parse(times.eta) / 1_000;
  const isWaiting = started === null && goesOn;
  const etaEnd = eta > begun ? Math.min(eta, Math.max(waitEnd, begun)) : begun;
  add("eta", begun, etaEnd, isWaiting && etaEnd >= waitEnd);
  add("queue", etaEnd, waitEnd, isWaiting);
  if (started !== null) add("run", started, end ?? (goesOn ? now : started), goesOn);
  else if (end !== null && isReady(state)) add("run", Math.max(end, begun), end, false);
}

/** Return one bar for the waiting and one for the running of many tasks together. */
export function barsOfGroup(tasks: readonly Timed[], now: number): Bar[] {
  let [begun, started, ended] = [Infinity, Infinity, -Infinity];
  let [isOpen, hasFailed] = [false, false];
  for (const task of tasks) {
    for (const bar of barsOf(task, now)) {
      begun = Math.min(begun, bar.from);
      if (bar.part === "run") started = Math.min(started, bar.from);
      ended = Math.max(ended, bar.to);
      isOpen ||= bar.isOpen;
      hasFailed ||= bar.state === "FAILURE";
    }
  }
  if (begun === Infinity) return [];
  const state = isOpen ? "STARTED" : hasFailed ? "FAILURE" : "SUCCESS";
  const common = { state, attempt: 1, isOpen };
  const runs = started === Infinity ? [] : [{ part: "run" as const, from: started, to: ended, ...common }];
  const waitEnd = Math.min(started, ended);
  return [...(waitEnd > begun ? [{ part: "queue" as const, from: begun, to: waitEnd, ...common }] : []), ...runs];
}

/** Return when the first of some tasks began and the last one ended (`now`, if one goes on); null without times. */
export function extentOf(tasks: Iterable<Timed>, now: number): Range | null {
  let [from, to] = [Infinity, -Infinity];
  for (const task of tasks) {
    for (const bar of barsOf(task, now)) {
      if (bar.from < from) from = bar.from;
      if (bar.to > to) to = bar.to;
    }
  }
  if (from === Infinity) return null;
  return [from, Math.max(to, from + 0.01)];
}

/** Times as pixels. */
export interface Scale {
  readonly range: Range;
  readonly width: number;
  readonly x: (time: number) => number;
  readonly time: (x: number) => number;
}

export function scaleOf(range: Range, width: number): Scale {
  const [from, to] = range;
  const seconds = Math.max(1e-6, to - from);
  return { range, width, x: (time) => (width * (time - from)) / seconds, time: (x) => from + (seconds * x) / Math.max(1, width) };
}

export interface Rect {
  readonly x: number;
  readonly width: number;
}

/** Return where a range is drawn, at least `least` pixels wide; null if it is outside of the scale. */
export function rectOf({ range, width, x }: Scale, [from, to]: Range, least = 2): Rect | null {
  if (to < range[0] || from > range[1]) return null;
  const left = Math.min(Math.max(0, x(from)), width - least);
  return { x: left, width: Math.max(least, Math.min(width, x(to)) - left) };
}

const STEPS = [
  ...[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30],
  ...[60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800],
];

/**
 * Return the times of ticks: round numbers of seconds after `origin`.
 *
 * @param count at most how many, about.
 */
export function ticksOf([from, to]: Range, origin: number, count: number): number[] {
  const least = (to - from) / Math.max(1, count);
  const step = STEPS.find((seconds) => seconds >= least) ?? 604_800 * Math.ceil(least / 604_800);
  const ticks: number[] = [];
  const first = Math.ceil((from - origin) / step - 1e-9);
  for (let index = first; origin + index * step <= to && ticks.length < 100; index++) ticks.push(origin + index * step);
  return ticks;
}

/** Return how many tasks run in each of some equal parts of a range, and how many have failed in it. */
export function densityOf(tasks: Iterable<Timed>, range: Range, parts: number, now: number): { running: number[]; failed: number[] } {
  const [running, failed] = [new Array<number>(parts + 1).fill(0), new Array<number>(parts).fill(0)];
  const { x } = scaleOf(range, parts);
  const at = (time: number): number => Math.min(parts - 1, Math.max(0, Math.floor(x(time))));
  for (const task of tasks) {
    for (const bar of barsOf(task, now)) {
      if (bar.part !== "run") continue;
      running[at(bar.from)]!++;
      running[at(bar.to) + 1]!--;
      if (bar.state === "FAILURE") failed[at(bar.to)]!++;
    }
  }
  for (let part = 1; part < parts; part++) running[part]! += running[part - 1]!;
  return { running: running.slice(0, parts), failed };
}

/** Move a range by a part of its length, within limits; both keep its length if it fits. */
export function moved([from, to]: Range, part: number, [least, most]: Range): Range {
  const seconds = Math.min(to - from, most - least);
  const start = Math.min(Math.max(least, from + part * (to - from)), most - seconds);
  return [start, start + seconds];
}
