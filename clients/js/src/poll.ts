/** Models of what is fetched again and again, while somebody reads it and the page is visible. */
import { after, nothing } from "./environment.js";
import { type GatewayError, isFinal } from "./errors.js";
import type { Live, Model } from "./feed.js";

const enum Ms {
  INTERVAL = 5_000,
  MIN_INTERVAL = 500,
  /** A server that renders a page leaves before the first request. */
  GATHER = 10,
  BACKOFF = 500,
  MAX_BACKOFF = 30_000,
}

/** Return the time to wait after so many failures in a row. */
export function backoffMs(failures: number): number {
  return failures && Ms.BACKOFF + Math.random() * Math.min(Ms.MAX_BACKOFF, Ms.BACKOFF * 2 ** failures);
}

/** Return the interval that an option asks for. */
export function intervalOf(givenMs: number = Ms.INTERVAL): number {
  return Math.max(Ms.MIN_INTERVAL, givenMs);
}

/**
 * Fetch again and again, and wait longer after failures. A refusal that a retry cannot change ends it.
 *
 * @param load fetches once; the signal aborts it.
 * @returns what ends it.
 */
export function poll(load: (signal: AbortSignal) => Promise<void>, intervalMs: number, live: Live): () => void {
  const ending = new AbortController();
  const { signal } = ending;
  let failures = 0;
  let cancel = nothing;
  const plan = (delayMs: number): void => void (cancel = after(delayMs, () => (cancel = whenVisible(run))));
  const run = async (): Promise<void> => {
    try {
      await load(signal);
      failures = 0;
    } catch (error) {
      if (signal.aborted) return;
      if (isFinal((error as GatewayError).status)) return live.fail(error as Error);
      failures++;
    }
    if (!signal.aborted) plan(intervalMs + backoffMs(failures));
  };
  plan(Ms.GATHER);
  return () => {
    ending.abort();
    cancel();
  };
}

/**
 * Return a function that returns a model of what is fetched, one request at a time.
 *
 * @param load fetches once: so many pages, if there are pages.
 */
export function polled<T>(load: (signal: AbortSignal | undefined, pages: number) => Promise<T>, givenMs?: number): () => Model<T> {
  return () => {
    let value: T | null = null;
    let pages = 1;
    let loads: Promise<void> = Promise.resolve();
    let live: Live;
    const loadNext = (signal?: AbortSignal): Promise<void> =>
      (loads = loads.catch(nothing).then(async () => {
        value = await load(signal, pages);
        live.answered();
      }));
    return {
      filters: [],
      start(given) {
        live = given;
        return poll(loadNext, intervalOf(givenMs), live);
      },
      make: () => value,
      more() {
        pages++;
        return loadNext();
      },
    };
  };
}

/** Call when the page is visible: at once, or later. Return a function that cancels it. */
function whenVisible(call: () => void): () => void {
  const page = globalThis.document;
  if (!page?.hidden) {
    call();
    return nothing;
  }
  const changed = (): void => {
    if (page.hidden) return;
    cancel();
    call();
  };
  const cancel = (): void => page.removeEventListener("visibilitychange", changed);
  page.addEventListener("visibilitychange", changed);
  return cancel;
}
