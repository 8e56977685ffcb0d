/** The values that the gateway sends, and the interfaces of what watches them. All values are read-only. */
import type { Listener, Stream } from "./stream.js";

/**
 * A Celery event: a flat JSON object with all fields that Celery or the sender set, and the fields that the gateway
 * adds. Fields by type: https://docs.celeryq.dev/en/stable/userguide/monitoring.html#event-reference
 */
export interface Event {
  /** Such as `task-sent`, `task-succeeded`, `worker-heartbeat`, or a custom type such as `task-progress`. */
  readonly type: string;
  /** Its position in the stream, an opaque string for `lastEventId`. */
  readonly id: string;
  /** When it was sent, RFC 3339 in UTC with microseconds. */
  readonly time?: string | null;
  /** The same in epoch seconds. */
  readonly timestamp?: number;
  /** The node that sent it. */
  readonly hostname?: string;
  /** The id of its task. Celery sends other JSON types, too, if an application uses such ids. */
  readonly uuid?: string;
  /** The task's name; `null` while it is not known. */
  readonly name?: string | null;
  readonly root_id?: string | null;
  readonly parent_id?: string | null;
  /** The task's queue; `null` while it is not known. */
  readonly queue?: string | null;
  /** The task's state after this event. */
  readonly state?: string | null;
  /**
   * The number of the attempt that it belongs to, counted in the current run; 0 if that is of an earlier run. Of a
   * `task-sent`: the number of the attempt that it announces.
   */
  readonly attempt?: number;
  /** The broker's name, if the gateway has several. */
  readonly cluster?: string;
  /** The fields whose texts the gateway has cut because the event is large. `GET /events/{id}` has the whole event. */
  readonly truncated?: readonly string[];
  readonly [field: string]: unknown;
}

/**
 * The record of one task. Times are epoch seconds in UTC on the sender's clock, durations are seconds.
 *
 * State, times, worker and outcome are those of the last attempt that a worker took. The call (`sent`, `args`, `eta`,
 * `queue`, `retries`, …) is that of the youngest message. A run is a series of attempts up to SUCCESS, FAILURE or
 * REVOKED.
 */
export interface Task {
  readonly uuid: string;
  readonly name: string | null;
  /** Celery's own (`PENDING` … `SUCCESS`, `FAILURE`, `REVOKED`), a custom one such as `PROGRESS`, or `LOST`. */
  readonly state: string;
  readonly root_id: string | null;
  readonly parent_id: string | null;
  /** The type of the event that set the state last; `timestamp` and `clock` are of the same event. */
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
  /** When an attempt of this run last ended in RETRY. */
  readonly retried: number | null;
  readonly revoked: number | null;
  /** When an attempt of this run last ended in REJECTED. */
  readonly rejected: number | null;
  /** When the gateway detected that the worker's process is gone, on the gateway's clock. */
  readonly lost: number | null;
  /** Python's `repr`, truncated by Celery to about 1,024 characters. It is for people, not for parsers. */
  readonly args: string | null;
  readonly kwargs: string | null;
  readonly eta: string | null;
  readonly expires: string | number | null;
  /** The retries in the youngest message. */
  readonly retries: number;
  /** The number of the attempt, counted from 1 in its run; 0 while the task is only sent. */
  readonly attempt: number;
  /** How long the attempt was in the queue. */
  readonly queued_seconds: number | null;
  /** How long the attempt ran, in seconds, once it has ended. */
  readonly runtime: number | null;
  readonly result: string | null;
  readonly exception: string | null;
  readonly traceback: string | null;
  /** The time of the last custom event, such as `task-progress`, of the attempt. */
  readonly custom_at: number | null;
  /** The fields that the application set in that event. */
  readonly custom: { readonly [field: string]: unknown } | null;
  /** 0..1, as that event reports it; 1 at SUCCESS. */
  readonly progress: number | null;
  readonly clock: number | null;
  readonly pid: number | null;
  /** The broker's name, if the gateway has several. */
  readonly cluster?: string;
  /** The uuids of its child tasks, as of the last snapshot. For current ones use `workflow`. */
  readonly children: readonly string[];
  /** True if `lost` is not null. */
  readonly stale: boolean;
}

/** A task in the tree of its workflow. */
export interface WorkflowTask extends Omit<Task, "children"> {
  readonly children: readonly WorkflowTask[];
}

/** The tasks of one root, as a tree. */
export interface Workflow {
  readonly root_id: string;
  /** The number of tasks that are known. */
  readonly total: number;
  /** The same as `total`. */
  readonly known: number;
  /** The number of tasks in SUCCESS, FAILURE or REVOKED. */
  readonly ready: number;
  /** True if a `task-sent` of each task is known. If not, more tasks may wait in a queue. */
  readonly sent_events: boolean;
  /** 0..1: a ready task counts 1, another one counts its own progress. */
  readonly progress: number;
  /** The number of tasks in each state. */
  readonly counts: { readonly [state: string]: number };
  /**
   * The roots: tasks without a known parent. Roots and children are in the order in which they became known. Trees
   * deeper than 100 levels are split; deeper tasks appear as extra roots.
   */
  readonly tasks: readonly WorkflowTask[];
}

/** A worker. Times are epoch seconds in UTC on the worker's clock. */
export interface Worker {
  /** Its node name, such as `celery@host`. */
  readonly hostname: string;
  /** True if it is online or stopping. */
  readonly alive: boolean;
  /**
   * - `online`: its last event came within three heartbeats, at least 15 s;
   * - `stopping`: it has sent `worker-offline` and still runs tasks;
   * - `silent`: its last event is older: it is busy, or dead;
   * - `offline`: it has stopped;
   * - `unknown`: the gateway is not connected to its broker.
   */
  readonly status: "online" | "stopping" | "silent" | "offline" | "unknown";
  /** When the status began: on the gateway's clock in a snapshot, on this client's clock after a change. */
  readonly since: number | null;
  /** True if it sends heartbeats. If not, it is never silent. */
  readonly heartbeats: boolean;
  /** Seconds between two heartbeats. */
  readonly freq: number | null;
  /** The number of tasks that it runs. */
  readonly active: number | null;
  /** The number of tasks that it has started since its own start. */
  readonly processed: number | null;
  /** The load of its machine, over 1, 5 and 15 minutes. */
  readonly loadavg: readonly number[] | null;
  readonly pid: number | null;
  readonly clock: number | null;
  /** The time of its youngest event. */
  readonly timestamp: number | null;
  /** The time of its last `worker-online`, if that was seen. */
  readonly online: number | null;
  /** The time of its last `worker-offline`, if that was seen. */
  readonly offline: number | null;
  readonly sw_ident: string | null;
  readonly sw_ver: string | null;
  readonly sw_sys: string | null;
  /** The broker's name, if the gateway has several. */
  readonly cluster?: string;
}

/** Events were lost, or may have been lost, at this point of a stream. */
export interface Gap {
  readonly type: "gateway-gap";
  /** The position up to which they were lost. */
  readonly id: string;
  /**
   * `evicted`: they are no longer in the gateway's history. `slow`: they were not read in time. `broker`: the
   * gateway lost its broker. `unknown-id`: the gateway cannot resume from the client's position (it was restarted).
   */
  readonly reason: "evicted" | "slow" | "broker" | "unknown-id";
  /** The number of lost events; `null` if it is not known. */
  readonly lost: number | null;
  /** The broker's name, if the gateway has several. */
  readonly cluster?: string;
}

/** A broker, and whether the gateway consumes its events. */
export interface Source {
  /** The broker's name; `null` if the gateway has only one. */
  readonly cluster: string | null;
  readonly consuming: boolean;
  /** A text for people. */
  readonly reason: string;
  /** When `consuming` last changed, in epoch seconds on the gateway's clock. */
  readonly since: number;
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
 * The condition on an event: all given fields have to match, each with any of its patterns. `*` matches any text and
 * `?` one character; a leading `!` excludes. `escape` returns the pattern for a literal text. `{}` matches all events.
 *
 * @example { type: ["task-failed", "task-retried"], name: ["shop.*", "!shop.internal.*"] }
 */
export type Filter = { readonly [field in FilterField]?: string | readonly string[] };

/**
 * - `idle`: nothing is watched, so there is no connection;
 * - `connecting`, `open`;
 * - `waiting`: the connection is lost; the client will reconnect;
 * - `closed`: by `close()`, or because the gateway refused permanently: see the `error` event.
 */
export type Status = "idle" | "connecting" | "open" | "waiting" | "closed";

export interface ClientOptions {
  /**
   * The gateway's URL, with or without a trailing slash. In browsers it may be relative, such as `/celery`. A relative
   * URL is allowed where a server renders a page, too, as long as nothing is awaited or iterated there.
   */
  url: string | URL;
  /**
   * Sent as `Authorization: Bearer …`; over WebSocket as the subprotocol `celery-gateway.bearer.…`, which cannot have
   * every character: a JSON Web Token has only allowed ones. A function is called for every connection, and when the
   * token has expired. If it throws, the client emits an `error` event and tries again.
   */
  token?: string | (() => string | Promise<string>) | undefined;
  /** The transport of the stream: Server-Sent Events over fetch (default), or a WebSocket. */
  transport?: "sse" | "websocket" | undefined;
  /** One connection for all tabs of a browser: `tabs()` of `@celery-gateway/client/tabs`. */
  shared?: Shared | undefined;
  /** Whether `fetch` sends cookies: `same-origin` (default), `include` or `omit`. A WebSocket always sends them. */
  credentials?: "same-origin" | "include" | "omit" | undefined;
  /** How long `ready` waits for the first event of a task or a workflow, in milliseconds: 30,000; `Infinity`: no limit. */
  waitKnownMs?: number | undefined;
  /** How long `ready` waits for another attempt at a lost task, in milliseconds: 60,000; `Infinity`: no limit. */
  lostGraceMs?: number | undefined;
  /** Milliseconds of silence after which a connection counts as lost; 45,000. The gateway sends keep-alives about
   * every 15 s. */
  staleMs?: number | undefined;
  /**
   * How many tasks of a workflow are kept: 100,000. Beyond it the client drops a tenth, the oldest first but
   * not the root, and emits an `error` event once: a GatewayError with the code `too-many-tasks`. The watch stays open.
   */
  maxTasks?: number | undefined;
  /** Replaces the global `fetch`. */
  fetch?: typeof globalThis.fetch | undefined;
  /** Replaces the global `WebSocket`. Node has none before 22. */
  WebSocket?: WebSocketConstructor | undefined;
  /** Closes the client when it is aborted. */
  signal?: AbortSignal | undefined;
}

/** What `tabs` returns. */
export type Shared = (
  key: string,
  engine: (listener: Listener, position: string | null) => Stream,
  listener: Listener,
) => Stream | undefined;

/** What the client uses of a WebSocket. Those of browsers, and of the package `ws`, have it. */
export type WebSocketConstructor = new (url: string, protocols: string[]) => {
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

export interface TasksOptions extends WatchOptions {
  /** The broker's name, if the gateway has several that may have the same ids. */
  cluster?: string | undefined;
}

export interface WorkflowOptions extends TasksOptions {
  /**
   * How long `ready` waits for more tasks once all known ones are ready, in milliseconds: 2,000; or 30,000 if there was
   * no `task-sent` event of some task.
   */
  quietMs?: number | undefined;
}

export interface EventsOptions extends WatchOptions {
  /** Begin with events of the gateway's history: `earliest`, an age such as `10m`, or an RFC 3339 time. */
  since?: string | undefined;
  /** Resume right after the event with this `id`. It overrides `since`. */
  lastEventId?: string | undefined;
  /** Called for each gap in this stream: in order with callbacks, but before unread items of an iterator. */
  onGap?: ((gap: Gap) => void) | undefined;
}

/**
 * Events in order, each once, across reconnects. It begins with the first `subscribe` or iteration (without `since` and
 * `lastEventId`: with new events), and ends a second after the last subscriber has left.
 */
export interface EventStream extends AsyncIterable<Event> {
  /** Call back with every event. An exception of the callback is reported as uncaught. Returns a function that unsubscribes. */
  subscribe(callback: (event: Event) => void): () => void;
  /**
   * Buffers up to 10,000 unread events. It drops older ones and reports them to `onGap` with the reason `slow`. Ends
   * with `close()`; throws a GatewayError if the gateway refuses.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Event>;
  /** End it: iterators end, and callbacks are not called any more. It cannot be reused. */
  close(): void;
}

/**
 * - `loading`: there was no answer of the gateway yet;
 * - `known`: there is a value;
 * - `unknown`: the gateway has no event of it, so far;
 * - `error`: see `error`. Nothing more will come, unless the code is `not-a-root`.
 */
export type WatchStatus = "loading" | "known" | "unknown" | "error";

/** The state of a watch. */
export interface Known<T> {
  /** The current value: `null` while there is none. Each change makes a new object. */
  readonly value: T | null;
  readonly status: WatchStatus;
  readonly error: Error | null;
}

/**
 * A value that changes. It is watched from the first `subscribe` or iteration until a second after the last subscriber
 * has left. Equal watches share their value.
 */
export interface Watch<T> extends AsyncIterable<T>, Known<T> {
  /** `value`, `status` and `error` in one object: the same object until one of them changes. */
  readonly known: Known<T>;
  /**
   * Call back at once with the current value, and with each new one; also when `status` has changed. This is the contract
   * of a Svelte store. An exception of the callback is reported as uncaught. Returns a function that unsubscribes.
   */
  subscribe(run: (value: T | null) => void): () => void;
  /** Yields the current value, then the latest one after each change. It skips outdated values. */
  [Symbol.asyncIterator](): AsyncIterableIterator<T>;
  /** End it: iterators end, and callbacks are not called any more. It cannot be reused. */
  close(): void;
}

export interface TaskWatch extends Watch<Task> {
  /**
   * Resolves with the task at SUCCESS. Rejects with a TaskError at FAILURE or REVOKED; with a GatewayError of the code
   * `task-unknown` or `task-lost` if it stays unknown for `waitKnownMs` or lost for `lostGraceMs`, or if the gateway
   * refuses; with an AbortError if the watch is closed. It may be left unawaited.
   */
  readonly ready: Promise<Task>;
}

export interface WorkflowWatch extends Watch<Workflow> {
  /**
   * Resolves with the workflow when all its known tasks are in SUCCESS, FAILURE or REVOKED and no other task has become
   * known for `quietMs`: see its `counts`. Rejects with a GatewayError of the code `workflow-unknown`, `workflow-lost`
   * (all tasks that have not ended are lost) or `not-a-root`, or if the gateway refuses; with an AbortError if the watch
   * is closed. It may be left unawaited.
   */
  readonly ready: Promise<Workflow>;
}

/** All workers by cluster and hostname, whatever their status. */
export type WorkersWatch = Watch<readonly Worker[]>;

export interface ClientEvents {
  /** The status has changed. */
  status: (status: Status) => void;
  /** Events were lost, or may have been lost. Watched values are refetched. */
  gap: (gap: Gap) => void;
  /**
   * The gateway refused something. If a retry cannot help, the status is `closed` now; or, if a stream with `since` or
   * `lastEventId` was refused, only that stream has ended. The codes `not-a-root` (see `workflow`) and `too-many-tasks` (see
   * `maxTasks`) close nothing. The code `too-many-watches` ends the watches that did not fit.
   */
  error: (error: Error) => void;
  /** The brokers, after each connect and when the gateway has lost a broker or is consuming from it again. */
  source: (sources: readonly Source[]) => void;
}

/** One connection to a gateway, shared by all watches. */
export interface Client {
  readonly status: Status;
  /**
   * Watch events that match a filter, or any of several filters; all events without one.
   *
   * @throws TypeError for an unknown field, or a value that is not a text of 1 to 1,000 characters; RangeError for
   *   more than 1,000 values, or 100 with wildcards.
   */
  events(filter?: Filter | readonly Filter[], options?: EventsOptions): EventStream;
  /**
   * Watch one task. If several brokers have this uuid and `cluster` is not given, the value is the record that changed
   * last.
   *
   * @throws TypeError without a uuid.
   */
  task(uuid: string, options?: TasksOptions): TaskWatch;
  /**
   * Watch all tasks of one root as a tree. It changes at most 20 times a second.
   *
   * If the id is that of a task with another root, the value stays `null`, and the client emits an `error` event once:
   * a GatewayError with the code `not-a-root`. The watch stays open.
   *
   * @throws TypeError without a root_id.
   */
  workflow(rootId: string, options?: WorkflowOptions): WorkflowWatch;
  /** Watch all workers. The value changes at most 20 times a second. */
  workers(options?: WatchOptions): WorkersWatch;
  /** Call back at each event of this type. Returns a function that removes the listener. */
  on<K extends keyof ClientEvents>(type: K, listener: ClientEvents[K]): () => void;
  /** Close the client and all its watches. */
  close(): void;
}
