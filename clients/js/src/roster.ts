/** The workers, and which of them are gone, as the gateway tells them apart: see `Worker.alive`. Pure. */
import { blank, words } from "./task.js";
import type { Event, Worker } from "./types.js";

const [SILENT_SECONDS, SILENT_FREQS, MAX_FREQ_SECONDS] = [15, 3, 3_600];
const BLANK = blank(words("freq active processed loadavg pid clock timestamp online offline sw_ident sw_ver sw_sys"));

/** The table of workers, by cluster and hostname; `nowMs` is any clock that only goes forward. */
export class Roster {
  readonly #known = new Map<string, Worker>();
  readonly #heardAtMs = new Map<string, number>();

  /** Take over what is known of a worker. */
  put(worker: Worker, nowMs: number): void {
    const key = keyOf(worker);
    this.#known.set(key, worker);
    this.#heardAtMs.set(key, nowMs);
  }

  /** Take a worker's event in. */
  hear(event: Event, nowMs: number): void {
    const word = event.type.slice(7);
    const { hostname, cluster } = event;
    const worker: { [field: string]: unknown } = {
      ...BLANK,
      ...this.#known.get(keyOf(event)),
      hostname,
      ...(cluster ? { cluster } : {}),
      alive: word !== "offline",
    };
    for (const field in BLANK) worker[field] = event[field] ?? worker[field];
    if (word in BLANK) worker[word] = event.timestamp; // online, offline
    this.put(worker as unknown as Worker, nowMs);
  }

  /** Return the workers as of now. */
  look(nowMs: number): Worker[] {
    return [...this.#known.keys()].sort().map((key) => {
      const worker = this.#known.get(key) as Worker;
      const freqSeconds = Math.min(worker.freq ?? 0, MAX_FREQ_SECONDS);
      const silentMs = 1_000 * Math.max(SILENT_SECONDS, SILENT_FREQS * freqSeconds);
      if (!worker.alive || nowMs - (this.#heardAtMs.get(key) as number) <= silentMs) return worker;
      const gone = { ...worker, alive: false };
      this.#known.set(key, gone);
      return gone;
    });
  }
}

function keyOf({ cluster, hostname }: { cluster?: unknown; hostname?: unknown }): string {
  return `${cluster}\n${hostname}`;
}
