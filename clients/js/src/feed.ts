/** What is watched, and who reads it: it is part of the stream from its first reader until a while after its last. */
import { after } from "./environment.js";
import type { Patterns } from "./filter.js";
import type { Member } from "./stream.js";
import type { Event, Gap } from "./types.js";

/** Whoever comes back within it finds everything as it was. */
const LINGER_MS = 1_000;

export interface Reader<L> {
  next(letter: L): void;
  end(error?: Error): void;
}

/** Where feeds get what they tell. */
export interface Source {
  /** Begin to tell a feed; or, if there is no more to tell, end it. */
  start(feed: Feed<never>): void;
  stop(feed: Feed<never>): void;
}

/** Something that is watched by any number of readers, who get `L`. */
export abstract class Feed<L> implements Member {
  abstract readonly filters: readonly Patterns[];
  readonly #source: Source;
  readonly #readers = new Set<Reader<L>>();
  #isOn = false;
  #stay = (): void => {};

  constructor(source: Source) {
    this.#source = source;
  }

  abstract event(event: Event): void;

  gap(_gap: Gap): void {}

  /** Forget what was known when it was watched before. */
  protected begin(): void {}

  /** Take a reader in; return what lets it go. */
  join(reader: Reader<L>): () => void {
    this.#stay();
    this.#readers.add(reader);
    if (!this.#isOn) {
      this.#isOn = true;
      this.begin();
      this.#source.start(this as unknown as Feed<never>);
    }
    return () => {
      if (!this.#readers.delete(reader) || this.#readers.size) return;
      this.#stay = after(LINGER_MS, () => {
        this.#isOn = false;
        this.#source.stop(this as unknown as Feed<never>);
      });
    };
  }

  /** There is no more to come. */
  end(error?: Error): void {
    this.#stay();
    this.#isOn = false;
    const readers = [...this.#readers];
    this.#readers.clear();
    for (const reader of readers) reader.end(error);
  }

  protected tell(letter: L): void {
    // Whoever joins meanwhile gets the next one; whoever leaves meanwhile gets this one no more.
    for (const reader of [...this.#readers]) if (this.#readers.has(reader)) reader.next(letter);
  }
}
