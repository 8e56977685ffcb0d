/** Workers as rows: their order, their status in words, and which ones send no task events or none at all. Pure. */
import { matcher, type Patterns } from "../../js/src/filter.ts";
import type { Task, Worker } from "../../js/src/index.ts";
import type { Query } from "./route.ts";
import { isReady, type StateLook } from "./states.ts";
import { filterOf } from "./task-query.ts";
import { plural } from "./text.ts";

export type WorkerStatus = Worker["status"];

/** All statuses, those that need attention first. */
export const STATUSES: readonly WorkerStatus[] = ["silent", "unknown", "stopping", "online", "offline"];

const LOOKS: { readonly [status in WorkerStatus]: StateLook & { readonly title: string } } = {
  online: { kind: "done", shape: "●", title: "Its last event came in time" },
  stopping: { kind: "retry", shape: "◐", title: "It is shutting down, and still runs tasks" },
  silent: { kind: "retry", shape: "▲", title: "Its heartbeats have stopped: it is dead, or too busy to send them" },
  offline: { kind: "off", shape: "○", title: "It has shut down" },
  unknown: { kind: "lost", shape: "?", title: "The gateway is not connected to its broker" },
};

/** Return how a status is shown. A status of a newer gateway is shown as unknown. */
export function lookOfStatus(status: string): StateLook & { readonly title: string } {
  return Object.hasOwn(LOOKS, status) ? LOOKS[status as WorkerStatus] : LOOKS.unknown;
}

/** Return the workers that are silent or have shut down, by `keyOfWorker`. */
export function awayOf(workers: readonly Worker[]): ReadonlyMap<string, Worker> {
  return new Map(workers.filter(({ status }) => status === "silent" || status === "offline").map((worker) => [keyOfWorker(worker), worker]));
}

/** Tasks in these states, and ready ones, are with no worker. */
const NOT_HELD = new Set(["PENDING", "RETRY", "REJECTED", "CANCELLED", "LOST"]);

/** Return the worker that has a task, if it is one of `away`: then nothing is known of the task until the worker is heard again. */
export function awayWith({ state, worker, cluster }: Pick<Task, "state" | "worker" | "cluster">, away: ReadonlyMap<string, Worker>): Worker | undefined {
  if (!away.size || worker === null || isReady(state) || NOT_HELD.has(state)) return undefined;
  return away.get(keyOfWorker({ hostname: worker, cluster }));
}

/** Return how many tasks a worker runs; null if that is not known. The last number of one that has shut down is from before. */
export const activeOf = ({ status, active }: Pick<Worker, "status" | "active">): number | null => (status === "offline" ? null : active);

export type WorkerSort = "status" | "hostname" | "active" | "processed" | "load";

/** Return workers in another order; those without a value come last. */
export function sorted(workers: readonly Worker[], by: WorkerSort, isDescending: boolean): readonly Worker[] {
  const value = (worker: Worker): number | null =>
    by === "status" ? STATUSES.length - (STATUSES.indexOf(worker.status) + 1 || STATUSES.length)
    : by === "load" ? worker.loadavg?.[0] ?? null
    : by === "hostname" ? 0
    : by === "active" ? activeOf(worker)
    : worker[by];
  const sign = isDescending ? -1 : 1;
  return [...workers].sort((a, b) => {
    const [one, other] = [value(a), value(b)];
    if ((one === null) !== (other === null)) return one === null ? 1 : -1;
    const byName = compare(a.hostname, b.hostname) || compare(a.cluster ?? "", b.cluster ?? "");
    return sign * ((one ?? 0) - (other ?? 0)) || (by === "hostname" ? sign * byName : byName);
  });
}

const compare = (one: string, other: string): number => (one < other ? -1 : one > other ? 1 : 0);

export function keyOfWorker({ hostname, cluster }: Pick<Worker, "hostname"> & { readonly cluster?: string | undefined }): string {
  return JSON.stringify([cluster ?? null, hostname]);
}

/** Return what tells whether a query selects a worker or a queue: as in the gateway, its values are patterns. */
export function selects(query: Query): (one: { readonly cluster?: string }) => boolean {
  return matcher([filterOf(query) as Patterns]) as never;
}

/** Return the workers that run tasks and send no events of them. */
export function mute(workers: readonly Worker[]): readonly Worker[] {
  return workers.filter(({ sends_task_events, alive }) => alive && sends_task_events === false);
}

/** Return why tasks of workers without events are not seen, and what to do. */
export function muteAdvice(count: number, hasControl: boolean): string {
  const it = count === 1 ? "it" : "them";
  const tasks = `The gateway does not see the tasks of ${plural(count, "worker")}`;
  return hasControl
    ? `${tasks}. It has asked for events (--control); if they do not arrive, start ${it} with -E.`
    : `${tasks}. Start ${it} with -E, or the gateway with --control.`;
}

/**
 * Return by how many seconds a worker's clock is behind the gateway's; null if it is right within a minute, or not known.
 *
 * @param now on the gateway's clock.
 */
export function behindOf({ status, since, timestamp, freq, heartbeats, alive }: Worker, now: number): number | null {
  const heard = alive ? now : since;
  if (status === "unknown" || !heartbeats || heard === null || timestamp === null) return null;
  const behind = heard - timestamp;
  return Math.abs(behind) > 60 + 3 * (freq ?? 0) ? behind : null;
}

/** Return the software of a worker: `py-celery 5.5.3`. */
export function software({ sw_ident, sw_ver, sw_sys }: Worker): string {
  return [sw_ident, sw_ver, sw_sys && `(${sw_sys})`].filter(Boolean).join(" ");
}
