/** What the overview computes from the gateway's numbers. Pure. */
import type { Queue, Source, Statistics, StatisticsItem, Task, Worker } from "../../js/src/index.ts";
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

const named = (names: readonly string[]): string => names.slice(0, 3).map((name) => cut(name, 40)).join(", ") + (names.length > 3 ? ` and ${names.length - 3} more` : "");

/** Return what keeps tasks from running, as far as the gateway knows. */
export function problems(total: StatisticsItem, workers: readonly Worker[] | null, queues: readonly Queue[] | null): readonly Problem[] {
  const found: Problem[] = [];
  const unattended = (queues ?? []).filter(({ depth, consumers }) => depth && consumers === 0).map(({ name }) => name);
  if (unattended.length) found.push({ text: `No worker takes ${unattended.length > 1 ? "the queues" : "the queue"} ${named(unattended)}.`, view: "queues" });
  const quiet = (workers ?? []).filter((worker) => worker.alive && worker.sends_task_events === false);
  if (quiet.length) {
    const processed = quiet.reduce((sum, worker) => sum + (worker.processed ?? 0), 0);
    const isOne = quiet.length === 1;
    found.push({
      text: `${named(quiet.map(({ hostname }) => hostname))} ${isOne ? "is" : "are"} alive and ${isOne ? "has" : "have"} processed ${plural(processed, "task")}, and ${isOne ? "sends" : "send"} no task events: start ${isOne ? "it" : "them"} with -E, or the gateway with --control.`,
      view: "workers",
    });
  }
  const silent = (workers ?? []).filter(({ status }) => status === "silent").map(({ hostname }) => hostname);
  if (silent.length) found.push({ text: `${named(silent)} ${silent.length > 1 ? "are" : "is"} silent: busy, or dead.`, view: "workers" });
  if (total.lost) found.push({ text: `${plural(total.lost, "task is", "tasks are")} lost: their worker is gone.`, view: "tasks", stale: true });
  return found;
}

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

