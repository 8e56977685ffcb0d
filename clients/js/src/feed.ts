/** What is watched, by any number of readers: part of the stream until a while after its last reader has gone. */
import type { Page } from "./connection.js";
import { after, nothing, nowMs } from "./environment.js";
import { matcher } from "./filter.js";
import type { Member } from "./stream.js";
import type { Event } from "./types.js";

const enum Ms {
  /** Whoever comes back within it finds everything as it was. */
  LINGER = 1_000,
}
const enum Times {
  /** So many times as long as it takes to make a value it is left at rest. */
  REST = 4,
}

/** What is made of events: a value; or nothing, and the events are what is told. */
export interface Model<T> extends Pick<Member, "filters" | "gap"> {
  /** Readers are told of changes no sooner after the last one; 0: of each. */
  readonly paceMs?: number;
  /** So long after it was made it may have changed by itself. */
  readonly lookAgainMs?: number;
  /** Take in an event that matches. */
  event?(event: Event): void;
  refresh?(pages: readonly Page[]): void;
  make?(): T | null;
}

export interface Reader {
  /** Here is an event; or, without, there is another value. */
  next(event?: Event): void;
  /** There is no more to come. */
  end(error?: Error): void;
}

export interface Feed<T = unknown> extends Member {
  /** As it is now; the same until it has changed. */
  readonly value: T | null;
  /** Take a reader in; return what lets it go. One that comes too late is told the end. */
  join(reader: Reader): () => void;
  end(error?: Error): void;
}

/** @param stop is called when there have been no readers for a while. */
export function feed<T>(model: Model<T>, stop: () => void): Feed<T> {
  const { filters, gap, paceMs = 0, lookAgainMs, make } = model;
  const matches = matcher(filters);
  const readers = new Set<Reader>();
  let value: T | null = null;
  let isFresh = true;
  let restMs = paceMs;
  let toldAtMs = -Infinity;
  let stay = nothing;
  let unplan = nothing;
  let unlook = nothing;
  let over: [Error?] | undefined;

  const tell = (event?: Event): void => {
    if (make && self.value === null) return; // a snapshot that knows nothing of it
    toldAtMs = nowMs();
    // Whoever joins meanwhile gets the next one; whoever leaves meanwhile gets this one no more.
    for (const reader of [...readers]) if (readers.has(reader)) reader.next(event);
  };
  const changed = (event?: Event): void => {
    isFresh = false;
    unplan();
    const delayMs = toldAtMs + restMs - nowMs();
    if (paceMs && delayMs > 0) unplan = after(delayMs, tell);
    else tell(make ? undefined : event);
  };
  const self: Feed<T> = {
    filters,
    gap: (told) => void (readers.size && gap?.(told)),
    event(event) {
      if (!matches(event)) return;
      model.event?.(event);
      changed(event);
    },
    refresh:
      make &&
      ((pages) => {
        model.refresh?.(pages);
        changed();
      }),
    get value() {
      if (!isFresh && make) {
        const startedAtMs = nowMs();
        isFresh = true;
        value = make();
        restMs = Math.max(paceMs, Times.REST * (nowMs() - startedAtMs));
        unlook();
        if (lookAgainMs && !over) unlook = after(lookAgainMs, changed);
      }
      return value;
    },
    join(reader) {
      if (over) {
        reader.end(over[0]);
        return nothing;
      }
      stay();
      readers.add(reader);
      return () => {
        if (readers.delete(reader) && !readers.size) stay = after(Ms.LINGER, stop);
      };
    },
    end(error) {
      over = [error as Error];
      for (const reader of readers) reader.end(error);
      stay();
      unplan();
      unlook();
    },
  };
  return self;
}
