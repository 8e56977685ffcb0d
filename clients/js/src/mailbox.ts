/** What an iterator has not read yet. */
export interface Mailbox<T> extends AsyncIterableIterator<T> {
  /** If there is more than it holds, the oldest goes. */
  push(item: T): void;
  /** Take no more; what is there can still be read, then comes the end, or the error once. */
  close(error?: Error): void;
}

/**
 * @param capacity how many items it holds.
 * @param onDrop is told of each that has to go.
 * @param onReturn is called when the reader wants no more.
 */
export function mailbox<T>(capacity: number, onDrop: (item: T) => void, onReturn: () => void): Mailbox<T> {
  let items: T[] = [];
  let over: [Error?] | undefined;
  let wake = (): void => {};
  const read = (async function* () {
    for (;;) {
      while (items.length) yield items.shift() as T;
      if (over?.[0]) throw over[0];
      if (over) return;
      await new Promise<void>((resolve) => (wake = resolve));
    }
  })();
  const close = (error?: Error): void => {
    over ??= error ? [error] : [];
    wake();
  };
  return {
    push(item) {
      if (items.push(item) > capacity) onDrop(items.shift() as T);
      wake();
    },
    close,
    next: () => read.next(),
    return() {
      items = [];
      onReturn();
      close();
      return read.return();
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
