/** What users hold: readers join a feed through it, and leave with it. */
import { guarded, nothing } from "./environment.js";
import { TaskError } from "./errors.js";
import type { Feed, Reader } from "./feed.js";
import { mailbox } from "./mailbox.js";
import { isReady } from "./task.js";
import type { EventStream, Task, TaskWatch } from "./types.js";

/**
 * Return a watch of values; or, if its feed makes none, of events.
 *
 * @param feedOf returns the feed that equal watches share, if it is on; or in any case, if one is to be begun.
 * @param signal closes it, too.
 * @param capacity how many items an iterator holds that are not read yet.
 * @param onLost is told how many had to go, and the last of them.
 */
export function watch(
  feedOf: (isToBegin?: boolean) => Feed | undefined,
  signal?: AbortSignal,
  capacity = 1,
  onLost: (lost: number, last: never) => void = nothing,
): TaskWatch & EventStream {
  const ends = new Set<() => void>();
  let last: Feed | undefined;
  let ready: Promise<Task> | undefined;
  let isClosed = false;

  /** Take a reader in; return what lets it go, and tells it nothing. */
  const join = ({ next, end }: Reader): (() => void) => {
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
      leave = (last = feedOf(true) as Feed).join({ next, end: finish });
    }
    return go;
  };

  return {
    get value() {
      return ((feedOf() ?? last)?.value ?? null) as Task | null;
    },
    subscribe: (callback: (told: never) => void) =>
      join({ next: (told) => guarded(callback, told as never), end: nothing }),
    [Symbol.asyncIterator]() {
      const box = mailbox<never>(capacity, onLost, () => leave());
      const next = (event?: unknown): void => {
        const item = event ?? this.value;
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
    get ready() {
      return (ready ??= settled(this, join));
    },
  };
}

/** Return the task when it has ended well. Nobody has to await it. */
function settled(watch: TaskWatch, join: (reader: Reader) => () => void): Promise<Task> {
  const ready = new Promise<Task>((resolve, reject) => {
    let leave = nothing;
    const next = (): void => {
      const task = watch.value;
      if (!task || !isReady(task)) return;
      leave();
      if (task.state === "SUCCESS") resolve(task);
      else reject(new TaskError(task));
    };
    leave = join({ next, end: (error = new DOMException("closed", "AbortError")) => reject(error) });
    next();
  });
  ready.catch(nothing);
  return ready;
}
