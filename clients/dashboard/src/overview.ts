/** What the overview computes from the gateway's numbers. Pure. */
import type { Queue, Source, Statistics, StatisticsItem, Task, Worker } from "../../js/src/index.ts";
import { literal, type Query, type Route } from "./route.ts";
import { WAITING } from "./states.ts";
import { cut, plural } from "./text.ts";

/**
 * Return the tasks that have ended a minute, over the last whole buckets that make up a minute or more and the current one.
 *
 * @param time when the numbers were taken, on the gateway's clock.
 * @param since since when events were counted.
 */
export function endedPerMinute({ buckets }: Pick<StatisticsItem, "buckets">, { time, since }: Pick<Statistics, "time" | "since">): number {
  const { seconds, start, succeeded, failed } = buckets;
  const first = Math.max(0, succeeded.length - 1 - Math.ceil(60 / seconds));
  let ended = 0;
  for (let index = first; index < succeeded.length; index++) ended += (succeeded[index] ?? 0) + (failed[index] ?? 0);
  return ended && (60 * ended) / Math.max(1, time - Math.max(since, start + first * seconds));
}

/** Return statistics as of a time: buckets that have begun since they were sent are empty. */
export function asOf(statistics: Statistics, time: number): Statistics {
  if (time <= statistics.time) return statistics;
  const moved = (item: StatisticsItem): StatisticsItem => {
    const { buckets, buckets: { seconds, start, succeeded, retried, failed } } = item;
    const passed = Math.min(succeeded.length, Math.floor((time - start) / seconds) - succeeded.length + 1);
    if (passed < 1) return item;
    const after = (counts: readonly number[]): number[] => [...counts.slice(passed), ...Array<number>(passed).fill(0)];
    return { ...item, buckets: { ...buckets, start: start + passed * seconds, succeeded: after(succeeded), retried: after(retried), failed: after(failed) } };
  };
  return { ...statistics, time, total: moved(statistics.total), names: statistics.names.map(moved) };
}

/** Return whether a task runs for longer than 99 of 100 of its name. */
export function isSlow(task: Pick<Task, "started">, item: StatisticsItem | undefined, now: number): boolean {
  return task.started !== null && !!item?.runtime && item.runtime.count >= 20 && now - task.started > item.runtime.p99;
}

export interface Problem {
  readonly text: string;
  /** Where to look. */
  readonly view: "queues" | "workers" | "tasks";
  readonly stale?: boolean;
}

interface Named {
  readonly name?: string;
  readonly hostname?: string;
  readonly cluster?: string;
}

const named = (all: readonly Named[]): string =>
  all.slice(0, 3).map(({ hostname = "", name = hostname, cluster }) => cut(name, 40) + (cluster ? ` (${cut(cluster, 20)})` : "")).join(", ") + (all.length > 3 ? ` and ${all.length - 3} more` : "");

/** Return what keeps tasks from running, as far as the gateway knows. */
export function problems(total: StatisticsItem, workers: readonly Worker[] | null, queues: readonly Queue[] | null): readonly Problem[] {
  const found: Problem[] = [];
  const unattended = (queues ?? []).filter(({ depth, consumers }) => depth && consumers === 0);
  if (unattended.length) found.push({ text: `No worker takes tasks from ${named(unattended)}.`, view: "queues" });
  const quiet = (workers ?? []).filter((worker) => worker.alive && worker.sends_task_events === false);
  if (quiet.length) {
    const processed = quiet.reduce((sum, worker) => sum + (worker.processed ?? 0), 0);
    found.push({ text: `No task events from ${named(quiet)}, which processed ${plural(processed, "task")}: start with -E, or the gateway with --control.`, view: "workers" });
  }
  const silent = (workers ?? []).filter(({ status }) => status === "silent");
  if (silent.length) found.push({ text: `Silent, so busy or dead: ${named(silent)}.`, view: "workers" });
  if (total.lost) found.push({ text: `${plural(total.lost, "task is", "tasks are")} lost: their worker is gone.`, view: "tasks", stale: true });
  return found;
}

/** Return what selects the tasks with this name in a field, and in its cluster. */
export const selecting = (field: "name" | "queue" | "hostname", { name, cluster }: { readonly name: string | null; readonly cluster?: string | undefined }, ...more: Query): Query => [
  [field, literal(name ?? "")],
  ...(cluster === undefined ? [] : [["cluster", literal(cluster)] as const]),
  ...more,
];

/** Return where the tasks of a queue are that have not started. */
export const tasksOf = (queue: Queue): Partial<Route> => ({ view: "tasks", query: selecting("queue", queue, ["state", WAITING]) });

export type Emptiness = "nothing" | "no-task-events" | "only-sent" | null;

/** Return why there is nothing to show; null if there is something. */
export function emptiness(total: StatisticsItem, names: number, workers: readonly Worker[]): Emptiness {
  if (total.received + total.started + total.succeeded + total.failed + total.running) return null;
  if (total.waiting) return workers.some(({ alive }) => alive) ? "no-task-events" : "only-sent";
  if (names) return null;
  return workers.length ? "no-task-events" : "nothing";
}

/** Return whether all brokers are away. */
export function isCutOff(sources: readonly Source[]): boolean {
  return sources.length > 0 && sources.every(({ consuming }) => !consuming);
}

