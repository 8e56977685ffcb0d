/** The workers and their status, by the rules of the gateway (state/worker_table.py). */
import type { Event, Source, Worker } from "./types.js";
import { blank, keyOf, number, shrink } from "./values.js";

const enum Silent {
  SECONDS = 15,
  FREQS = 3,
  FORGET_MS = 3_600_000,
}
const enum Max {
  /** As in the gateway: the workers that were silent for longest go first. */
  WORKERS = 10_000,
}
const BLANK = blank("freq active processed loadavg pid clock timestamp online offline sw_ident sw_ver sw_sys");

/** The table of workers, by cluster and hostname; `nowMs` is any clock that only goes forward. */
export class Roster {
  readonly #known = new Map<string, [worker: Worker, lastEventAtMs: number]>();

  /** Take over all workers of a snapshot. One that is missing stays until it is silent, if it sends heartbeats. */
  refresh(workers: readonly Worker[], nowMs: number): void {
    for (const [key, [worker]] of this.#known) if (!worker.heartbeats) this.#known.delete(key);
    for (const worker of workers) this.#put(worker, nowMs);
  }

  #put(worker: Worker, nowMs: number): void {
    const known = this.#known;
    const key = keyOf(worker.cluster, worker.hostname);
    known.delete(key); // the order is that of the last event
    known.set(key, [worker, nowMs]);
    shrink(known, Max.WORKERS);
  }

  /** Take in an event. An application's own worker events make no worker. */
  onEvent(event: Event, nowMs: number): void {
    const { type, hostname, cluster, pid, timestamp } = event;
    const word = type.slice(7);
    if (!/^(online|heartbeat|offline)$/.test(word)) return;
    const before = this.#known.get(keyOf(cluster, hostname))?.[0];
    const worker: { [field: string]: any } = { ...BLANK, hostname, ...((cluster && { cluster }) as {}), ...before };
    const isOther = before && before.pid !== pid;
    const isOffline = word === "offline";
    if (word in BLANK) worker[word] = timestamp;
    // The end of a process does not affect the one that has replaced it.
    if (!(isOther && isOffline)) {
      if (isOther) worker.active = worker.processed = worker.loadavg = null;
      for (const field in BLANK) worker[field] = event[field] ?? worker[field];
      const status = isOffline ? (worker.active ? "stopping" : "offline") : "online";
      if (worker.status !== status) worker.since = seconds(nowMs);
      Object.assign(worker, { status, alive: status !== "offline", heartbeats: true });
    }
    this.#put(worker as Worker, nowMs);
  }

  /**
   * Return the workers as of now.
   *
   * @param sources the brokers. Silence does not count while the gateway is not consuming from a broker.
   */
  look(nowMs: number, sources: readonly Source[]): Worker[] {
    return [...this.#known]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .flatMap(([key, [worker, lastEventAtMs]]) => {
        const silentMs = nowMs - lastEventAtMs;
        const source = sources.find(({ consuming, cluster }) => !consuming && cluster == worker.cluster);
        if (source) {
          this.#put(worker, nowMs);
          return { ...worker, status: "unknown", since: source.since };
        }
        if (silentMs > Silent.FORGET_MS) {
          this.#known.delete(key);
          return [];
        }
        const limitMs = 1_000 * Math.max(Silent.SECONDS, Silent.FREQS * (number(worker.freq) ?? 0));
        if (!worker.alive || !worker.heartbeats || silentMs <= limitMs) return worker;
        const status = worker.status === "stopping" ? "offline" : "silent";
        return { ...worker, alive: false, status, since: seconds(lastEventAtMs) };
      });
  }
}

/** Return the time of day, in epoch seconds, of a time of `nowMs`. */
function seconds(ms: number): number {
  return (performance.timeOrigin + ms) / 1_000;
}
