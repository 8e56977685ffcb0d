/** What users hold: readers join a feed through it, and leave with it. */
import { guarded, nothing } from "./environment.js";
import { TaskError } from "./errors.js";
import type { Feed, Reader } from "./feed.js";
import { mailbox } from "./mailbox.js";
import { isReady } from "./task.js";
import type { EventStream, Task, TaskWatch } from "./types.js";

/** Where the feed of a watch is to be had; equal watches have the same. */
export interface Source {
  /** That which is on, if it is. */
  find(): Feed | undefined;
  /** That which is on, or a new one. */
  open(): Feed;
  /** Whether there is no more to come; with the error if that is why. */
  over(): [Error?] | undefined;
}

/**
 * Return a watch of values; or, if its feed makes none, of events.
 *
 * @param signal closes it, too.
 * @param capacity how many items an iterator holds that are not read yet.
 * @param onDrop is told of those that have to go.
 */
export function watch(
  source: Source,
  signal?: AbortSignal,
  capacity = 1,
  onDrop: (item: never) => void = nothing,
): TaskWatch & EventStream {
  const ends = new Set<() => void>();
  let last: Feed | undefined;
  let ready: Promise<Task> | undefined;
  let over: [Error?] | undefined;

  /** Take a reader in; return what lets it go, and tells it nothing. */
  const join = (reader: Reader): (() => void) => {
    const isOver = over ?? (signal?.aborted ? [] : source.over());
    if (isOver) {
      reader.end(isOver[0]);
      return nothing;
    }
    const leave = (last = source.open()).join(reader);
    const go = (): void => {
      ends.delete(end);
      signal?.removeEventListener("abort", end);
      leave();
    };
    const end = (): void => {
      go();
      reader.end();
    };
    ends.add(end);
    signal?.addEventListener("abort", end);
    return go;
  };

  return {
    get value() {
      return ((source.find() ?? last)?.value ?? null) as Task | null;
    },
    subscribe: (callback: (told: never) => void) =>
      join({ next: (told) => guarded(callback, told as never), end: nothing }),
    [Symbol.asyncIterator]() {
      const box = mailbox<never>(capacity, onDrop, () => leave());
      const next = (event?: unknown): void => {
        const item = event ?? this.value;
        if (item) box.push(item as never);
      };
      const leave = join({ next, end: box.close });
      next();
      return box;
    },
    close() {
      over = [];
      for (const end of ends) end();
    },
    get ready() {
      ready ??= new Promise((resolve, reject) => {
        let leave = nothing;
        const next = (): void => {
          const task = this.value;
          if (!task || !isReady(task)) return;
          leave();
          if (task.state === "SUCCESS") resolve(task);
          else reject(new TaskError(task));
        };
        leave = join({ next, end: (error = new DOMException("closed before", "AbortError")) => reject(error) });
        next();
      });
      ready.catch(nothing); // nobody has to await it
      return ready;
    },
  };
}
