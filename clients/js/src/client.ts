import type { Connect } from "./connection.js";
import { environment, guarded } from "./environment.js";
import { type Feed, type Source } from "./feed.js";
import { parse } from "./filter.js";
import { sse } from "./sse.js";
import { type Host, Stream } from "./stream.js";
import type {
  Client,
  ClientEvents,
  ClientOptions,
  EventsOptions,
  EventStream,
  Filter,
  Status,
  TaskWatch,
  WatchOptions,
  WorkersWatch,
  WorkflowWatch,
} from "./types.js";
import { TaskFeed, type ValueFeed, WorkersFeed, WorkflowFeed } from "./values.js";
import { EventFeed, Events, TaskValue, ValueWatch } from "./watches.js";
import { websocket } from "./websocket.js";

const STALE_MS = 45_000;

/**
 * Return a client of the gateway at a URL. It connects when something is watched, not before.
 *
 * @throws TypeError if the URL is none, or there is no WebSocket for the transport `websocket`.
 */
export function connect(options: ClientOptions): Client {
  return new Gateway(options);
}

class Gateway implements Client, Source {
  readonly #options: ClientOptions;
  readonly #connect: Connect;
  readonly #streams = new Map<Feed<never> | null, Stream>();
  readonly #feeds = new Set<Feed<never>>();
  readonly #values = new Map<string, ValueFeed<unknown>>();
  readonly #listeners: { [K in keyof ClientEvents]: Set<ClientEvents[K]> } = {
    status: new Set(),
    gap: new Set(),
    error: new Set(),
  };
  #isClosed = false;
  #error: Error | undefined;
  #status: Status = "idle";

  constructor(options: ClientOptions) {
    this.#options = options;
    const { signal, transport, url } = options;
    const world = environment(options);
    const endpoint = (path: string): URL => {
      const target = new URL(url, world.baseUrl);
      target.pathname = target.pathname.replace(/\/*$/, path);
      return target;
    };
    this.#connect = transport === "websocket" ? websocket(endpoint("/ws"), world) : sse(endpoint("/events"), world);
    if (signal?.aborted) this.close();
    else signal?.addEventListener("abort", this.#onAbort);
  }

  get status(): Status {
    return this.#status;
  }

  events(filter: Filter | readonly Filter[] = {}, options: EventsOptions = {}): EventStream {
    return new Events(new EventFeed(this, parse(filter), options), options.signal);
  }

  task(uuid: string, { signal }: WatchOptions = {}): TaskWatch {
    return new TaskValue(this.#shared(new TaskFeed(this, uuid)), signal);
  }

  workflow(rootId: string, { signal }: WatchOptions = {}): WorkflowWatch {
    return new ValueWatch(this.#shared(new WorkflowFeed(this, rootId)), signal);
  }

  workers({ signal }: WatchOptions = {}): WorkersWatch {
    return new ValueWatch(this.#shared(new WorkersFeed(this)), signal);
  }

  on<K extends keyof ClientEvents>(type: K, listener: ClientEvents[K]): () => void {
    this.#listeners[type].add(listener);
    return () => void this.#listeners[type].delete(listener);
  }

  close(): void {
    this.#end();
  }

  start(feed: Feed<never>): void {
    if (this.#isClosed) {
      feed.end(this.#error);
      return;
    }
    this.#feeds.add(feed);
    const { key, begins } = feed as Partial<ValueFeed<unknown> & EventFeed>;
    if (key !== undefined) this.#values.set(key, feed as unknown as ValueFeed<unknown>);
    const owner = begins ? feed : null;
    let stream = this.#streams.get(owner);
    if (!stream) {
      const { token, staleMs = STALE_MS } = this.#options;
      const options = { token, staleMs, ...(begins && { begin: begins }) };
      stream = new Stream(this.#connect, options, this.#host(owner));
      this.#streams.set(owner, stream);
    }
    stream.add(feed);
  }

  stop(feed: Feed<never>): void {
    this.#feeds.delete(feed);
    const { key } = feed as Partial<ValueFeed<unknown>>;
    if (key !== undefined) this.#values.delete(key);
    (this.#streams.get(feed) ?? this.#streams.get(null))?.remove(feed);
    this.#streams.delete(feed);
  }

  /** Return what returns the feed that equal watches share: the one that is on, or that which was on last. */
  #shared<F extends ValueFeed<unknown>>(own: F): () => F {
    return () => (own = (this.#values.get(own.key) as F | undefined) ?? own);
  }

  /** @param owner the one feed that is told by a stream, if it has one of its own. */
  #host(owner: Feed<never> | null): Host {
    return {
      changed: () => this.#changed(),
      gap: (gap) => this.#emit("gap", gap),
      troubled: (error) => this.#emit("error", error),
      refused: (error) => {
        if (owner) {
          this.stop(owner);
          this.#emit("error", error);
          owner.end(error);
        } else {
          this.#end(error);
        }
      },
    };
  }

  /** The status is that of the stream that is worst off. */
  #changed(): void {
    const all = [...this.#streams.values()].map((stream) => stream.status);
    const order: Status[] = ["waiting", "connecting", "open"];
    const status = this.#isClosed ? "closed" : (order.find((status) => all.includes(status)) ?? "idle");
    if (status === this.#status) return;
    this.#status = status;
    this.#emit("status", status);
  }

  #emit<K extends keyof ClientEvents>(type: K, ...told: Parameters<ClientEvents[K]>): void {
    for (const listener of [...this.#listeners[type]]) guarded(listener as (...told: unknown[]) => void, ...told);
  }

  readonly #onAbort = (): void => this.#end();

  #end(error?: Error): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#error = error;
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    for (const stream of this.#streams.values()) stream.close();
    this.#streams.clear();
    this.#changed();
    if (error) this.#emit("error", error);
    for (const feed of [...this.#feeds]) feed.end(error);
    this.#feeds.clear();
    this.#values.clear();
  }
}
