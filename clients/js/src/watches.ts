/** What users hold: streams of events, and watches of values. */
import { guarded } from "./environment.js";
import { TaskError } from "./errors.js";
import { Feed, type Reader, type Source } from "./feed.js";
import { matcher, type Patterns } from "./filter.js";
import { Mailbox } from "./mailbox.js";
import { isReady } from "./task.js";
import type { Event, EventsOptions, EventStream, Gap, Task, TaskWatch, Watch } from "./types.js";
import type { ValueFeed } from "./values.js";

const MAX_UNREAD = 10_000;

/** Joins readers to feeds, and ends them with its own end. */
class Seats<L> {
  readonly #feed: () => Feed<L>;
  readonly #signal: AbortSignal | undefined;
  readonly #ends = new Set<() => void>();
  #isClosed = false;

  constructor(feed: () => Feed<L>, signal: AbortSignal | undefined) {
    this.#feed = feed;
    this.#signal = signal;
  }

  /** Take a reader in; return what lets it go, without telling it. */
  join(reader: Reader<L>): () => void {
    const signal = this.#signal;
    if (this.#isClosed || signal?.aborted) {
      reader.end();
      return () => {};
    }
    let leave = (): void => {};
    const go = (): void => {
      this.#ends.delete(end);
      signal?.removeEventListener("abort", end);
      leave();
    };
    const end = (): void => {
      go();
      reader.end();
    };
    this.#ends.add(end);
    signal?.addEventListener("abort", end);
    leave = this.#feed().join({
      next: (letter) => reader.next(letter),
      end: (error) => {
        go();
        reader.end(error);
      },
    });
    return go;
  }

  close(): void {
    this.#isClosed = true;
    for (const end of [...this.#ends]) end();
  }
}

/** The events that match, of which readers get each. */
export class EventFeed extends Feed<Event> {
  readonly filters: readonly Patterns[];
  readonly begins: Pick<EventsOptions, "since" | "lastEventId"> | undefined;
  readonly #matches: (event: Event) => boolean;
  readonly #onGap: (gap: Gap) => void;

  constructor(source: Source, filters: readonly Patterns[], { since, lastEventId, onGap }: EventsOptions) {
    super(source);
    this.filters = filters;
    this.begins = since === undefined && lastEventId === undefined ? undefined : { since, lastEventId };
    this.#matches = matcher(filters);
    this.#onGap = onGap ?? ((): void => {});
  }

  event(event: Event): void {
    if (this.#matches(event)) this.tell(event);
  }

  override gap(gap: Gap): void {
    guarded(this.#onGap, gap);
  }
}

export class Events implements EventStream {
  readonly #feed: EventFeed;
  readonly #seats: Seats<Event>;

  constructor(feed: EventFeed, signal: AbortSignal | undefined) {
    this.#feed = feed;
    this.#seats = new Seats(() => feed, signal);
  }

  subscribe(callback: (event: Event) => void): () => void {
    return this.#seats.join({ next: (event) => guarded(callback, event), end() {} });
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<Event> {
    let lost = 0;
    const drop = ({ id }: Event): void => {
      if (!lost++) {
        queueMicrotask(() => {
          this.#feed.gap({ type: "gateway-gap", id, reason: "slow", lost });
          lost = 0;
        });
      }
    };
    const box = new Mailbox<Event>(MAX_UNREAD, drop, () => leave());
    let leave = (): void => {};
    leave = this.#seats.join({ next: (event) => box.push(event), end: (error) => box.close(error) });
    return box;
  }

  close(): void {
    this.#seats.close();
  }
}

export class ValueWatch<T> implements Watch<T> {
  readonly #feed: () => ValueFeed<T>;
  protected readonly seats: Seats<void>;

  /** @param feed returns that which is shared by all equal watches. */
  constructor(feed: () => ValueFeed<T>, signal: AbortSignal | undefined) {
    this.#feed = feed;
    this.seats = new Seats(feed, signal);
  }

  get value(): T | null {
    return this.#feed().value;
  }

  subscribe(callback: () => void): () => void {
    return this.seats.join({ next: () => guarded(callback), end() {} });
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<T> {
    const box = new Mailbox<T>(1, () => {}, () => leave());
    let leave = (): void => {};
    const next = (): void => {
      const { value } = this;
      if (value !== null) box.push(value);
    };
    leave = this.seats.join({ next, end: (error) => box.close(error) });
    next();
    return box;
  }

  close(): void {
    this.seats.close();
  }
}

export class TaskValue extends ValueWatch<Task> implements TaskWatch {
  #ready: Promise<Task> | undefined;

  get ready(): Promise<Task> {
    if (!this.#ready) {
      this.#ready = this.#settle();
      this.#ready.catch(() => {}); // nobody has to await it
    }
    return this.#ready;
  }

  #settle(): Promise<Task> {
    return new Promise((resolve, reject) => {
      let leave = (): void => {};
      const next = (): void => {
        const task = this.value;
        if (!task || !isReady(task)) return;
        if (task.state === "SUCCESS") resolve(task);
        else reject(new TaskError(task));
        leave();
      };
      leave = this.seats.join({
        next,
        end: (error) => reject(error ?? new DOMException("the watch was closed before the task was ready", "AbortError")),
      });
      next();
    });
  }
}
