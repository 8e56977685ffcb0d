import { nothing } from "./environment.js";

/** What an iterator has not read yet. */
export interface Mailbox<T> extends AsyncIterableIterator<T> {
  /** If there is more than it holds, the oldest goes. */
  push(item: T): void;
  /** Take no more; what is there can still be read, then comes the end, or the error once. */
  end(error?: Error): void;
}

/**
 * @param capacity how many items it holds.
 * @param onLost is told, before what comes next is read, how many had to go, and the last of them.
 * @param onReturn is called when the reader wants no more.
 */
export function mailbox<T>(
  capacity: number,
  onLost: (lost: number, last: T) => void,
  onReturn: () => void,
): Mailbox<T> {
  let items: T[] = [];
  let lost = 0;
  let last: T | undefined;
  let over: [Error?] | undefined;
  let wake = nothing;
  const reading = (async function* () {
    for (;;) {
      if (lost) onLost(lost, last as T);
      lost = 0;
      if (items.length) yield items.shift() as T;
      else if (!over) await new Promise<void>((resolve) => (wake = resolve));
      else if (over[0]) throw over[0];
      else return;
    }
  })();
  const end = (error?: Error): void => {
    over ??= [error as Error];
    wake();
  };
  return {
    push(item) {
      if (items.push(item) > capacity) {
        last = items.shift() as T;
        lost++;
      }
      wake();
    },
    end,
    next: () => reading.next(),
    return() {
      items = [];
      onReturn();
      end();
      return reading.return();
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
