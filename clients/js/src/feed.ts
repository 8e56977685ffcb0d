/** A feed: what its readers watch. It is a member of a stream from its first reader until a second after the last one. */
import type { Page } from "./connection.js";
import { after, nothing, nowMs } from "./environment.js";
import { matcher } from "./filter.js";
import type { Member } from "./stream.js";
import type { Event, Known } from "./types.js";

const enum Ms {
  /** A reader that comes within this time after the last one has left finds the value. */
  LINGER = 1_000,
}
const enum Times {
  /** The pause between two values is at least this many times as long as making one takes. */
  REST = 4,
}

export const LOADING: Known<never> = { value: null, status: "loading", error: null };

/** Makes a value of events. Without `make` readers receive the events. */
export interface Model<T> extends Pick<Member, "filters" | "gap"> {
  /** The shortest time between two values for readers; 0: each event makes one. */
  readonly paceMs?: number;
  /** The value may change by itself after this time. */
  readonly lookAgainMs?: number;
  /** The reason why there is no value and will be none. */
  readonly error?: Error | undefined;
  /** Handle an event that matches. */
  event?: Member["event"];
  refresh?(pages: readonly Page[]): void;
  make?(): T | null;
}

export interface Reader {
  /** An event; or, without, `known` has changed. */
  next(event?: Event): void;
  /** A snapshot has arrived; `known` includes it. */
  fetched?(): void;
  /** Nothing more will come. */
  end(error?: Error): void;
}

export interface Feed<T = unknown> extends Member {
  /** The current value; the same object until something has changed. */
  readonly known: Known<T>;
  /** Add a reader; return a function that removes it. After the end the reader only gets the end. */
  join(reader: Reader): () => void;
  end(error?: Error): void;
}

/**
 * @param stop is called some time after the last reader has left, or with an error if the stream refuses the feed.
 * @param refetch requests a snapshot, where an event could not be handled.
 */
export function feed<T>(model: Model<T>, stop: (error?: Error) => void, refetch: () => void): Feed<T> {
  const { filters, gap, paceMs = 0, lookAgainMs, make } = model;
  const matches = matcher(filters);
  const readers = new Set<Reader>();
  let value: T | null = null;
  let known: Known<T> = LOADING;
  let notified: Known<T> = LOADING;
  let isFresh = true;
  let isLoaded = false;
  let restMs = paceMs;
  let notifiedAtMs = -Infinity;
  let stay = nothing;
  let unplan = nothing;
  let unlook = nothing;
  let over: [Error?] | undefined;

  const notify = (event?: Event): void => {
    notifiedAtMs = nowMs();
    // A reader that joins meanwhile gets the next one; a reader that leaves meanwhile does not get this one.
    for (const reader of [...readers]) if (readers.has(reader)) reader.next(event);
  };
  const changed = (event?: Event): void => {
    isFresh = false;
    unplan();
    const delayMs = notifiedAtMs + restMs - nowMs();
    if (paceMs && delayMs > 0) unplan = after(delayMs, changedNow);
    else changedNow(event);
  };
  const changedNow = (event?: Event): void => {
    if (!make) return notify(event);
    if (notified === self.known) return;
    notified = known;
    notify();
  };
  const self: Feed<T> = {
    filters,
    refuse: stop,
    gap: (lost) => void (readers.size && gap?.(lost)),
    event(event, record) {
      try {
        if (!matches(event)) return;
        model.event?.(event, record);
        changed(event);
      } catch {
        if (make) refetch(); // a stream of events goes on without it: no filter can match it
      }
    },
    refresh:
      make &&
      ((pages) => {
        isLoaded = true;
        model.refresh?.(pages);
        changed();
        for (const reader of [...readers]) reader.fetched?.();
      }),
    get known() {
      if (!isFresh && make) {
        const startedAtMs = nowMs();
        isFresh = true;
        value = make();
        restMs = Math.max(paceMs, Times.REST * (nowMs() - startedAtMs));
        unlook();
        if (lookAgainMs && !over) unlook = after(lookAgainMs, changed);
      }
      const error = over?.[0] ?? (value === null ? model.error : null) ?? null;
      const status = error ? "error" : value !== null ? "known" : isLoaded ? "unknown" : "loading";
      if (value !== known.value || status !== known.status || error !== known.error) known = { value, status, error };
      return known;
    },
    join(reader) {
      if (over) {
        reader.end(over[0]);
        return nothing;
      }
      stay();
      readers.add(reader);
      return () => {
        if (!readers.delete(reader) || readers.size) return;
        if (!make || isLoaded) stay = after(Ms.LINGER, stop);
        // There is nothing to keep, and a server that renders a page must not connect: stop before the first request.
        else queueMicrotask(() => readers.size || over || stop());
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
