/** Queues: whether they grow or drain, and what is wrong with them. Pure. */
import type { Queue } from "../../js/src/index.ts";

/** Seconds over which a trend is measured, and the least that it needs. */
const WINDOW = 120;
const LEAST = 8;
const MAX_SAMPLES = 120;
const MAX_QUEUES = 2_000;

export interface Trend {
  /** `unknown`: it was not watched for long enough. */
  readonly kind: "unknown" | "empty" | "steady" | "grows" | "drains";
  /** Messages a second: above 0 if it grows. */
  readonly perSecond: number;
  /** Until it is empty at this rate; null if it does not drain. */
  readonly seconds: number | null;
}

type Sample = readonly [time: number, depth: number];

export function keyOfQueue({ name, cluster }: Pick<Queue, "name" | "cluster">): string {
  return JSON.stringify([cluster ?? null, name]);
}

/** The depths of queues over the last two minutes. */
export class Trends {
  readonly #samples = new Map<string, Sample[]>();

  /** Take over readings. One that was read before, or has no depth, changes nothing. */
  add(queues: readonly Queue[]): void {
    for (const queue of queues) {
      if (queue.depth === null || queue.error !== null) continue;
      const key = keyOfQueue(queue);
      const samples = this.#samples.get(key) ?? [];
      const last = samples.at(-1);
      if (last && last[0] >= queue.time) continue;
      samples.push([queue.time, queue.depth]);
      while (samples.length > MAX_SAMPLES || samples[0]![0] < queue.time - WINDOW) samples.shift();
      this.#samples.delete(key); // the order is that of the last reading
      this.#samples.set(key, samples);
      if (this.#samples.size > MAX_QUEUES) this.#samples.delete(this.#samples.keys().next().value!);
    }
  }

  /** Return how a queue has changed, from its oldest reading to its newest one. */
  of(queue: Queue): Trend {
    const samples = this.#samples.get(keyOfQueue(queue)) ?? [];
    const [first, last] = [samples[0], samples.at(-1)];
    if (queue.depth === 0) return { kind: "empty", perSecond: 0, seconds: null };
    if (!first || !last || last[0] - first[0] < LEAST) return { kind: "unknown", perSecond: 0, seconds: null };
    const perSecond = (last[1] - first[1]) / (last[0] - first[0]);
    if (perSecond === 0) return { kind: "steady", perSecond, seconds: null };
    return perSecond > 0 ? { kind: "grows", perSecond, seconds: null } : { kind: "drains", perSecond, seconds: last[1] / -perSecond };
  }
}

/** Return what is wrong with a queue; null if nothing is known to be. */
export function problem({ error, consumers, depth }: Queue): string | null {
  if (error !== null) return error;
  if (consumers === 0 && depth) return "No worker consumes this queue: its tasks wait.";
  return null;
}

/** Return the priorities of a queue, the most urgent first (on Redis, 0). */
export function priorities({ priorities }: Queue): readonly (readonly [priority: string, count: number])[] {
  return Object.entries(priorities ?? {}).sort(([one], [other]) => Number(one) - Number(other));
}
