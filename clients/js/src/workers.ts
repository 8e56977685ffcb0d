/** The workers: a snapshot has all, and `gateway-worker` each change of a status; numbers are those of worker events. */
import { nowMs } from "./environment.js";
import type { Model } from "./feed.js";
import type { Worker } from "./types.js";
import { blank, keyOf, shrink } from "./values.js";

const enum Ms {
  /** Values change at most 20 times a second. */
  PACE = 50,
  /** As in the gateway. */
  FORGET = 3_600_000,
}
const enum Max {
  /** As in the gateway: the workers that were silent for longest go first. */
  WORKERS = 10_000,
}
/** What a worker event changes without a change of the status. */
const NUMBERS = blank("freq active processed loadavg pid clock timestamp sw_ident sw_ver sw_sys");

/** Return a model of all workers. */
export function workers(): Model<readonly Worker[]> {
  const known = new Map<string, [worker: Worker, changedAtMs: number]>();
  const put = (worker: Worker): void => {
    const key = keyOf(worker.cluster, worker.hostname);
    known.delete(key); // the order is that of the last change
    known.set(key, [worker, nowMs()]);
    shrink(known, Max.WORKERS);
  };
  return {
    filters: [{ type: ["worker-*"] }],
    wants: { workers: 1 },
    paceMs: Ms.PACE,
    /** An event of a worker that is not known: its record follows. */
    event({ type, hostname, cluster, ...event }) {
      const worker = known.get(keyOf(cluster, hostname))?.[0];
      const [, word] = /^worker-(online|heartbeat|offline)$/.exec(type) ?? [];
      // The end of a process does not affect the one that has replaced it.
      if (!worker || !word || (word === "offline" && worker.pid !== event["pid"])) return false;
      const changes: { [field: string]: unknown } = word === "heartbeat" ? {} : { [word]: event.timestamp };
      for (const field in NUMBERS) changes[field] = event[field] ?? worker[field as keyof Worker];
      put({ ...worker, ...changes });
      return true;
    },
    control(message) {
      if (message.type !== "gateway-worker") return false;
      put(message.worker);
      return true;
    },
    refresh(pages) {
      known.clear();
      for (const page of pages) page.workers.forEach(put);
    },
    make() {
      for (const [key, [, changedAtMs]] of known) if (nowMs() - changedAtMs > Ms.FORGET) known.delete(key);
      return [...known].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, [worker]]) => worker);
    },
  };
}
