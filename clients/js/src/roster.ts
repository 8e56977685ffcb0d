/** The workers, and which of them are gone, as the gateway tells them apart: see `Worker.alive`. Pure. */
import { blank, words } from "./task.js";
import type { Event, Worker } from "./types.js";

const enum Silent {
  SECONDS = 15,
  FREQS = 3,
  FORGET_MS = 3_600_000,
}
const BLANK = blank(words("freq active processed loadavg pid clock timestamp online offline sw_ident sw_ver sw_sys"));

/** The table of workers, by cluster and hostname; `nowMs` is any clock that only goes forward. */
export class Roster {
  readonly #known = new Map<string, [worker: Worker, heardAtMs: number]>();

  /** Take over what is known of a worker. */
  put(worker: Worker, nowMs: number): void {
    this.#known.set(keyOf(worker), [worker, nowMs]);
  }

  /** Take a worker's event in. */
  hear(event: Event, nowMs: number): void {
    const { type, hostname, cluster } = event;
    const word = type.slice(7);
    const known: { [field: string]: unknown } = { ...BLANK, ...this.#known.get(keyOf(event))?.[0], hostname };
    if (cluster) known["cluster"] = cluster;
    for (const field in BLANK) known[field] = event[field] ?? known[field];
    if (word in BLANK) known[word] = event.timestamp; // online, offline
    this.put({ ...known, alive: word !== "offline" } as unknown as Worker, nowMs);
  }

  /** Return the workers as of now. */
  look(nowMs: number): Worker[] {
    for (const [key, [worker, heardAtMs]] of this.#known) {
      const silentMs = 1_000 * Math.max(Silent.SECONDS, Silent.FREQS * (worker.freq ?? 0));
      if (worker.alive && nowMs - heardAtMs > silentMs) this.put({ ...worker, alive: false }, heardAtMs);
      if (nowMs - heardAtMs > Silent.FORGET_MS) this.#known.delete(key);
    }
    return [...this.#known].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, [worker]]) => worker);
  }
}

function keyOf({ cluster, hostname }: { cluster?: unknown; hostname?: unknown }): string {
  return `${[cluster, hostname]}`;
}
