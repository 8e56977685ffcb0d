/** Values from a seed, so that a failure can be repeated. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 ≤ x < 1 (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let x = this.#state;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  }

  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }

  /** A text with everything that addresses and the search bar treat in a special way. */
  text(max = 12): string {
    const parts = ["a", "B", "7", " ", "/", "?", "#", "%", "&", "=", "+", "<", ">", ",", "!", "*", "\\", '"', ":", "é", "漢", "😀", "\u202e", ".", "-", "_", "@", "q:", "state:", "runtime>5"];
    return Array.from({ length: 1 + this.below(max) }, () => this.pick(parts)).join("");
  }
}
