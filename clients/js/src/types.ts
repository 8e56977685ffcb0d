/** The values that the gateway tells of, and what watches them. All of them are to be read, not changed. */

/**
 * An event of Celery's: a flat JSON object with every field that Celery or the sender gave it, and what the
 * gateway adds. More fields by type: https://docs.celeryq.dev/en/stable/userguide/monitoring.html#event-reference
 */
export interface Event {
  /** Such as `task-sent`, `task-succeeded`, `worker-heartbeat`, or of your own making: `task-progress`. */
  readonly type: string;
  /** Its position in the stream, opaque; what `lastEventId` takes. */
  readonly id: string;
  /** When it was sent, RFC 3339 in UTC with microseconds. */
  readonly time?: string | null;
  /** The same in epoch seconds. */
  readonly timestamp?: number;
  /** The node that sent it. */
  readonly hostname?: string;
  /** Of which task it tells. */
  readonly uuid?: string;
  /** Of the task; `null` as long as it is not known. */
  readonly name?: string | null;
  readonly root_id?: string | null;
  readonly parent_id?: string | null;
  /** The task's state after this event. */
  readonly state?: string | null;
  readonly [field: string]: unknown;
}

/** What is known of one task. Times are epoch seconds in UTC on the sender's clock, durations seconds. */
export interface Task {
  readonly uuid: string;
  readonly name: string | null;
  /** Celery's own (`PENDING` … `SUCCESS`, `FAILURE`, `REVOKED`), or a custom one such as `PROGRESS`. */
  readonly state: string | null;
  readonly root_id: string | null;
  readonly parent_id: string | null;
  /** Of the youngest event, as are `timestamp` and `clock`. */
  readonly type: string | null;
  readonly timestamp: number;
  /** The node that received or runs it. */
  readonly worker: string | null;
  /** The node that sent it. */
  readonly client: string | null;
  readonly queue: string | null;
  readonly exchange: string | null;
  readonly routing_key: string | null;
  readonly sent: number | null;
  readonly received: number | null;
  readonly started: number | null;
  readonly succeeded: number | null;
  readonly failed: number | null;
  readonly retried: number | null;
  readonly revoked: number | null;
  readonly rejected: number | null;
  /** As Python writes them, cut off at about 1,024 characters: for people, not to be parsed. */
  readonly args: string | null;
  readonly kwargs: string | null;
  readonly eta: string | null;
  readonly expires: string | number | null;
  /** Of the youngest message. */
  readonly retries: number;
  /** How often a worker has begun it, so far as that follows from all that was heard. */
  readonly attempts: number;
  /** How often it was heard to begin; in a task that was retried before the gateway listened, from there on. */
  readonly starts: number;
  /** How long the last attempt was in the queue. */
  readonly queued_seconds: number | null;
  /** How long the last attempt ran, in seconds, once it has ended. */
  readonly runtime: number | null;
  readonly result: string | null;
  readonly exception: string | null;
  readonly traceback: string | null;
  /** The time of the last custom event, such as `task-progress`, of this attempt. */
  readonly informed: number | null;
  /** The own fields of that event. */
  readonly info: { readonly [field: string]: unknown } | null;
  /** 0..1, where it says how far it is. */
  readonly progress: number | null;
  readonly clock: number | null;
  readonly pid: number | null;
  /** The broker's name, where the gateway has several. */
  readonly cluster?: string;
  /** The uuids of the tasks that it has started, as of when the gateway was last asked. See `workflow`. */
  readonly children: readonly string[];
  /** Its worker died while it had it, as of when the gateway was last asked. */
  readonly stale: boolean;
}

/** A task in the tree of its workflow. */
export interface WorkflowTask extends Omit<Task, "children"> {
  readonly children: readonly WorkflowTask[];
}

/** The tasks of one root, as a tree. */
export interface Workflow {
  readonly root_id: string;
  /** How many tasks there are. */
  readonly total: number;
  /** How many of them are in SUCCESS, FAILURE or REVOKED. */
  readonly ready: number;
  /** 0..1 of all: a task that is ready counts 1, one that is not as far as it says it is. */
  readonly progress: number;
  /** How many tasks are in each state. */
  readonly counts: { readonly [state: string]: number };
  /**
   * The roots: tasks whose parent is not among them. Roots and children are in the order in which they became
   * known. At a depth of 100 the tree is cut: what would come below stands as a further root.
   */
  readonly tasks: readonly WorkflowTask[];
}

/** What is known of a worker. Times are epoch seconds in UTC on the worker's clock. */
export interface Worker {
  /** Its node name, such as `celery@host`. */
  readonly hostname: string;
  /** It was heard within three heartbeats, at least 15 s, and has not said goodbye. */
  readonly alive: boolean;
  /** Seconds from heartbeat to heartbeat. */
  readonly freq: number | null;
  /** How many tasks it runs. */
  readonly active: number | null;
  /** How many tasks it has begun since its start. */
  readonly processed: number | null;
  /** Of its machine, over 1, 5 and 15 minutes. */
  readonly loadavg: readonly number[] | null;
  readonly pid: number | null;
  readonly clock: number | null;
  /** Of its youngest event. */
  readonly timestamp: number | null;
  /** When it came up, if that was seen. */
  readonly online: number | null;
  /** When it said last that it ends. */
  readonly offline: number | null;
  readonly sw_ident: string | null;
  readonly sw_ver: string | null;
  readonly sw_sys: string | null;
  /** The broker's name, where the gateway has several. */
  readonly cluster?: string;
}

/** Here events were, or may have been, lost. */
export interface Gap {
  readonly type: "gateway-gap";
  /** The position up to which they were. */
  readonly id: string;
  /**
   * `evicted`: they are no longer in the gateway's history. `slow`: they were not read in time. `broker`: the
   * gateway lost its broker. `unknown-id`: the gateway does not know where this client was (it was restarted).
   */
  readonly reason: "evicted" | "slow" | "broker" | "unknown-id";
  /** How many; `null` where that is not known. */
  readonly lost: number | null;
  /** Of which broker, where the gateway has several. */
  readonly cluster?: string;
}

export type FilterField =
  | "type"
  | "name"
  | "root_id"
  | "parent_id"
  | "uuid"
  | "hostname"
  | "state"
  | "queue"
  | "cluster";

/**
 * What an event has to be: all fields given have to match, each with any of its patterns. `*` stands for any
 * text and `?` for one character; a pattern that begins with `!` excludes. `{}` matches everything.
 *
 * @example { type: ["task-failed", "task-retried"], name: ["shop.*", "!shop.internal.*"] }
 */
export type Filter = { readonly [field in FilterField]?: string | readonly string[] };

/**
 * - `idle`: nobody watches anything, so there is no connection;
 * - `connecting`, `open`;
 * - `waiting`: the connection was lost, and is tried again by itself;
 * - `closed`: by `close()`, or the gateway refused what cannot get better by trying: see the `error` event.
 */
export type Status = "idle" | "connecting" | "open" | "waiting" | "closed";

export interface ClientOptions {
  /** Of the gateway, with or without a trailing slash; in browsers it may be relative, such as `/celery`. */
  url: string | URL;
  /**
   * Goes along as `Authorization: Bearer …` (over WebSocket as `access_token=…`). A function is asked anew for
   * every connection. If it throws, that is told as an `error` event and tried again.
   */
  token?: string | (() => string | Promise<string>) | undefined;
  /** How the stream comes: Server-Sent Events over fetch, or a WebSocket. */
  transport?: "sse" | "websocket" | undefined;
  /** Milliseconds of silence after which a connection is taken for dead; 45,000. The gateway's keep-alives
   * come about every 15 s. */
  staleMs?: number | undefined;
  /** In place of the global `fetch`. */
  fetch?: typeof globalThis.fetch | undefined;
  /** In place of the global `WebSocket`; Node has none before 22. */
  WebSocket?: WebSocketConstructor | undefined;
  /** Closes the client when it is aborted. */
  signal?: AbortSignal | undefined;
}

/** What is needed of a WebSocket; the browsers' own, and that of the package `ws`, have it. */
export type WebSocketConstructor = new (url: string) => {
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(text: string): void;
  close(): void;
};

export interface WatchOptions {
  /** Closes the watch when it is aborted. */
  signal?: AbortSignal | undefined;
}

export interface EventsOptions extends WatchOptions {
  /** Begin with what the gateway still holds: `earliest`, an age such as `10m`, or an RFC 3339 time. */
  since?: string | undefined;
  /** Go on right after the event with this `id`. Goes before `since`. */
  lastEventId?: string | undefined;
  /** Called where events of this stream are, or may be, missing: in order with callbacks, before unread items. */
  onGap?: ((gap: Gap) => void) | undefined;
}

/**
 * Events as they come, in order, each once; also across lost connections. It begins with the first
 * `subscribe` or iteration (without `since` and `lastEventId`: with what happens from then on), and ends a
 * second after the last of them has gone.
 */
export interface EventStream extends AsyncIterable<Event> {
  /** Call back with every event. What the callback throws is reported, and disturbs nothing. */
  subscribe(callback: (event: Event) => void): () => void;
  /**
   * Holds up to 10,000 events that are not read yet; then the oldest are dropped, which `onGap` is told with
   * the reason `slow`. Ends with `close()`; throws a GatewayError if the gateway refuses.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Event>;
  /** End it: iterators end, callbacks are called no more. It may be used again no more. */
  close(): void;
}

/**
 * A value that changes. It is watched from the first `subscribe` or iteration on, until a second after the last
 * of them has gone. Equal watches share their value.
 */
export interface Watch<T> extends AsyncIterable<T> {
  /** As it is now: `null` as long as nothing is known. A new object for every change. */
  readonly value: T | null;
  /** Call back when `value` has changed. What the callback throws is reported, and disturbs nothing. */
  subscribe(callback: () => void): () => void;
  /** Gives the value as it is, then whenever it has changed the latest: none is given late. */
  [Symbol.asyncIterator](): AsyncIterableIterator<T>;
  /** End it: iterators end, callbacks are called no more. It may be used again no more. */
  close(): void;
}

export interface TaskWatch extends Watch<Task> {
  /**
   * The task at SUCCESS. Rejects with a TaskError at FAILURE or REVOKED, with a GatewayError if the gateway
   * refuses, and with an AbortError if the watch is closed before. Nobody has to await it.
   */
  readonly ready: Promise<Task>;
}

export type WorkflowWatch = Watch<Workflow>;

/** Workers by cluster and hostname, alive or not. */
export type WorkersWatch = Watch<readonly Worker[]>;

export interface ClientEvents {
  /** The status has changed. */
  status: (status: Status) => void;
  /** Events were, or may have been, lost. What is watched is asked for anew by itself. */
  gap: (gap: Gap) => void;
  /**
   * Something was refused. If it cannot be mended by trying again, the status is `closed` now; or, if a stream
   * with `since` or `lastEventId` was refused, that has ended alone.
   */
  error: (error: Error) => void;
}

/** One connection to a gateway, for all that is watched through it. */
export interface Client {
  readonly status: Status;
  /**
   * Events that match a filter, or any of several; all if it is left out.
   *
   * @throws TypeError for an unknown field, or a value that is no text of 1 to 1,000 characters; RangeError for
   *   more than 1,000 values, or 100 with wildcards.
   */
  events(filter?: Filter | readonly Filter[], options?: EventsOptions): EventStream;
  /** One task as it goes on. @throws TypeError without a uuid. */
  task(uuid: string, options?: WatchOptions): TaskWatch;
  /** All tasks of one root as a tree; told at most 20 times a second. @throws TypeError without a root_id. */
  workflow(rootId: string, options?: WatchOptions): WorkflowWatch;
  /** All workers; told at most 20 times a second. */
  workers(options?: WatchOptions): WorkersWatch;
  /** Call back at such events; returns what ends that. */
  on<K extends keyof ClientEvents>(type: K, listener: ClientEvents[K]): () => void;
  /** End it and all its watches. */
  close(): void;
}
