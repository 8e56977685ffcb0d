/** A feed: what its readers watch. It is a member of a stream from its first reader until a second after the last one. */
import type { Control, Page } from "./connection.js";
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
export interface Model<T> extends Pick<Member, "filters" | "gap" | "wants"> {
  /** The shortest time between two values for readers; 0: each event makes one. */
  readonly paceMs?: number;
  /** The reason why there is no value and will be none. */
  readonly error?: Error | undefined;
  /** Handle an event that matches; false: nothing has changed. */
  event?(...given: Parameters<Member["event"]>): void | boolean;
  /** Handle a message of the gateway's own; true: something has changed. */
  control?(message: Control): void | boolean;
  /** Begin what it does by itself, such as requests, not before the next turn; return a function that ends it. */
  start?(live: Live): () => void;
  /** It receives events from now on. */
  begun?(): void;
  refresh?(pages: readonly Page[]): void;
  make?(): T | null;
  /** Show more rows of a list. */
  more?(): Promise<void>;
}

/** What a model calls that changes by itself. */
export interface Live {
  /** The value has changed. */
  changed(): void;
  /** The gateway has answered: the value has changed, or is still unknown. */
  answered(): void;
  /** There will be no value any more. */
  fail(error: Error): void;
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
  /** Show more rows of a list. */
  more(): Promise<void>;
  end(error?: Error): void;
}

/**
 * @param stop is called some time after the last reader has left, or with an error if the stream refuses the feed.
 * @param refetch requests a snapshot, where an event could not be handled.
 */
export function feed<T>(model: Model<T>, stop: (error?: Error) => void, refetch: () => void): Feed<T> {
  const { filters, wants, gap, paceMs = 0, make } = model;
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
  let unstart = nothing;
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
  const answered = (): void => {
    isLoaded = true;
    changed();
    for (const reader of [...readers]) reader.fetched?.();
  };
  const self: Feed<T> = {
    filters,
    wants,
    refuse: stop,
    gap: (lost) => void ((make || readers.size) && gap?.(lost)),
    begun: () => model.begun?.(),
    control(message) {
      try {
        if (model.control?.(message)) changed();
      } catch {
        // not a message that this version knows
      }
    },
    event(event, record) {
      try {
        if (!matches(event)) return;
        if (model.event?.(event, record) !== false) changed(event);
      } catch {
        if (make) refetch(); // a stream of events goes on without it: no filter can match it
      }
    },
    refresh:
      model.refresh &&
      ((pages) => {
        model.refresh!(pages);
        answered();
      }),
    get known() {
      if (!isFresh && make) {
        const startedAtMs = nowMs();
        isFresh = true;
        value = make();
        restMs = Math.max(paceMs, Times.REST * (nowMs() - startedAtMs));
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
    more: async () => model.more?.(),
    end(error) {
      over = [error as Error];
      for (const reader of readers) reader.end(error);
      stay();
      unplan();
      unstart();
    },
  };
  unstart = model.start?.({ changed, answered, fail: stop }) ?? nothing;
  return self;
}
