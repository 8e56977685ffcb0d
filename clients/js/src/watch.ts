/** A watch, as users have it. Its readers join and leave a feed. */
import { guarded, nothing } from "./environment.js";
import { type Feed, LOADING, type Reader } from "./feed.js";
import { mailbox } from "./mailbox.js";
import type { EventStream, Known, Task, TaskListWatch, TaskWatch } from "./types.js";

export interface Source {
  /** False if its feed makes no value of events. */
  readonly hasValue: boolean;
  /** Return the feed that equal watches share, if there is one; with `isToBegin` there always is. */
  feed(isToBegin?: boolean): Feed | undefined;
  /** Request a snapshot for a feed. */
  refetch(feed: Feed): void;
}

/** Returns a promise that settles by the values of a watch. `refetch` requests a snapshot. */
export type Settle = (look: () => Known<never>, join: (reader: Reader) => () => void, refetch: () => void) => Promise<unknown>;

/**
 * Return a watch of values; or, if its feed makes none, of events.
 *
 * @param signal closes it, too.
 * @param settle returns the promise `ready` of a watch that has one.
 * @param capacity the number of unread items that an iterator holds.
 * @param onLost is called with the number of items that an iterator has dropped, and the last of them.
 */
export function watch(
  source: Source,
  signal?: AbortSignal,
  settle: Settle = nothing as () => never,
  capacity = 1,
  onLost: (lost: number, last: never) => void = nothing,
): TaskWatch & EventStream & Pick<TaskListWatch, "more"> {
  const ends = new Set<() => void>();
  let last: Feed | undefined;
  let ready: Promise<unknown> | undefined;
  let isClosed = false;
  const look = (): Known<never> => ((source.feed() ?? last)?.known ?? LOADING) as Known<never>;

  /** Add a reader; return a function that removes it without a call of its `end`. */
  const join = ({ next, fetched, end }: Reader): (() => void) => {
    let leave = nothing;
    const go = (): void => {
      ends.delete(close);
      signal?.removeEventListener("abort", close);
      leave();
    };
    const finish = (error?: Error): void => {
      go();
      end(error);
    };
    const close = (): void => finish();
    if (isClosed || signal?.aborted) end();
    else {
      ends.add(close);
      signal?.addEventListener("abort", close);
      leave = (last = source.feed(true) as Feed).join({ next, end: finish, ...(fetched && { fetched }) });
    }
    return go;
  };

  return {
    get known() {
      return look();
    },
    get value() {
      return look().value as Task | null;
    },
    get status() {
      return look().status;
    },
    get error() {
      return look().error;
    },
    subscribe(run: (value: never) => void) {
      const next = (event?: unknown): void => guarded(run, (event ?? look().value) as never);
      const leave = join({ next, end: (error) => void (error && source.hasValue && next()) });
      if (source.hasValue) next();
      return leave;
    },
    [Symbol.asyncIterator]() {
      const box = mailbox<never>(capacity, onLost, () => leave());
      const next = (event?: unknown): void => {
        const item = event ?? look().value;
        if (item) box.push(item as never);
      };
      const leave = join({ next, end: box.end });
      next();
      return box;
    },
    close() {
      isClosed = true;
      for (const close of ends) close();
    },
    more: async () => source.feed()?.more(),
    get ready() {
      return (ready ??= settle(look, join, () => source.refetch(last as Feed))) as Promise<Task>;
    },
  };
}
