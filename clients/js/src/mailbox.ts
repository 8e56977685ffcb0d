import { nothing } from "./environment.js";

/** The items that an iterator has not read yet. */
export interface Mailbox<T> extends AsyncIterableIterator<T> {
  /** Add an item. If there are too many, the oldest one is dropped. */
  push(item: T): void;
  /** Accept no more items. The reader gets those that are left, then the end, or the error once. */
  end(error?: Error): void;
}

/**
 * @param capacity the number of items that it holds.
 * @param onLost is called before the next item is read, with the number of dropped items and the last of them.
 * @param onReturn is called when the reader stops.
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
