/**
 * What an iterator has not read yet. It is handed over in order; if there is more than it holds, the oldest
 * goes. Pure but for the promises.
 */
export class Mailbox<T> implements AsyncIterableIterator<T> {
  readonly #letters: T[] = [];
  readonly #waiting: { resolve: (result: IteratorResult<T>) => void; reject: (error: unknown) => void }[] = [];
  readonly #capacity: number;
  readonly #onDrop: (letter: T) => void;
  readonly #onReturn: () => void;
  #isClosed = false;
  #error: unknown;

  /**
   * @param capacity how many letters it holds.
   * @param onDrop is told of each that has to go.
   * @param onReturn is told when its reader wants no more.
   */
  constructor(capacity: number, onDrop: (letter: T) => void, onReturn: () => void) {
    this.#capacity = capacity;
    this.#onDrop = onDrop;
    this.#onReturn = onReturn;
  }

  push(letter: T): void {
    const reader = this.#waiting.shift();
    if (reader) reader.resolve({ value: letter, done: false });
    else if (this.#letters.push(letter) > this.#capacity) this.#onDrop(this.#letters.shift() as T);
  }

  /** Take no more; what is there can still be read, then comes the end, or the error once. */
  close(error?: unknown): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#error = error;
    for (const { resolve, reject } of this.#waiting.splice(0)) {
      if (this.#error === undefined) resolve({ value: undefined, done: true });
      else reject(this.#takeError());
    }
  }

  next(): Promise<IteratorResult<T>> {
    if (this.#letters.length) return Promise.resolve({ value: this.#letters.shift() as T, done: false });
    if (this.#error !== undefined) return Promise.reject(this.#takeError());
    if (this.#isClosed) return Promise.resolve({ value: undefined, done: true });
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<T>> {
    this.#letters.length = 0;
    this.#onReturn();
    this.close();
    this.#error = undefined;
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #takeError(): unknown {
    const error = this.#error;
    this.#error = undefined;
    return error;
  }
}
