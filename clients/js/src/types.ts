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
  /** The last ten attempts of the run, the first one first: of `client.fetch`, and of a watch with `attempts: true`. */
  readonly attempts?: readonly Attempt[];
}

/** One attempt of a task: one process's work on one message. Times are epoch seconds. */
export interface Attempt {
  /** The retries in its message. */
  readonly retries: number;
  readonly state: string;
  /** `null` until a worker has it. */
  readonly worker: string | null;
  readonly pid: number | null;
  readonly sent: number | null;
  /** When it was to start, RFC 3339. */
  readonly eta: string | null;
  readonly received: number | null;
  readonly started: number | null;
  readonly ended: number | null;
  /** Its first 1,000 characters. */
  readonly exception: string | null;
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
   * From a root to the task that has been running for longest; if none runs, to the task that ended last. `seconds`: the
   * time from its beginning to its end, or to its last event.
   */
  readonly critical_path: readonly {
    readonly uuid: string;
    readonly name: string | null;
    readonly state: string;
    readonly seconds: number;
  }[];
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
  /** When the status began, on the gateway's clock. */
  readonly since: number | null;
  /** True if it sends heartbeats. If not, it is never silent. */
  readonly heartbeats: boolean;
  /** False if it has run tasks and sent no events of them (no `-E`); `null` if that is not known. */
  readonly sends_task_events?: boolean | null;
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

/** What a token, or a setting of the gateway, allows to do. */
export type ActionName = "revoke" | "terminate";

/** Whether the connection works, and what the gateway has said of itself. */
export interface Health {
  readonly status: Status;
  /** The age of the last byte of the gateway, keep-alives included (one about every 15 s); `null` before the first one. */
  readonly heardMs: number | null;
  /** The brokers. */
  readonly sources: readonly Source[];
  /** The gateway's version; `null` while it is not known. */
  readonly version: string | null;
  /** When the gateway's process started, in epoch seconds on its clock. */
  readonly started: number | null;
  /** Whether it asks workers to send events (`--control`). */
  readonly control: boolean;
  /** What its setting `--allow` has. */
  readonly actions: readonly ActionName[];
}

/** Someone has revoked tasks through the gateway: one of these for each task that this client may see. */
export interface Action {
  readonly type: "gateway-control";
  readonly id: string;
  readonly action: string;
  readonly terminate: boolean;
  readonly signal: string | null;
  readonly uuid: string;
  readonly name: string | null;
  readonly root_id: string | null;
  /** Epoch seconds. */
  readonly time: number;
  readonly cluster?: string;
}

/** Events beyond `maxRate` that the gateway has not sent. */
export interface Skipped {
  readonly type: "gateway-skipped";
  readonly id: string;
  readonly count: number;
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
export type Filter = { readonly [field in FilterField]?: string | readonly string[] | undefined };

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
  /** Returns epoch seconds of the gateway's clock, from which ages in `since` and `before` of a list count; default: of this machine's. */
  now?: (() => number) | undefined;
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

/** Parameters of a request: an array is a parameter that is repeated, `undefined` is left out. */
export type Params = { readonly [name: string]: string | number | boolean | readonly string[] | undefined };

export interface WatchOptions {
  /** Closes the watch when it is aborted. */
  signal?: AbortSignal | undefined;
}

export interface PollOptions extends WatchOptions {
  /** The time between an answer and the next request; the default is that of the watch, and 500 ms the least. */
  intervalMs?: number | undefined;
}

export interface TaskOptions extends WatchOptions {
  /** The broker's name, if the gateway has several that may have the same ids. */
  cluster?: string | undefined;
  /** Fetch `attempts` of the task, or of a workflow's tasks, and again after a change; at most once a second. */
  attempts?: boolean | undefined;
}

/** The fields of a record with numbers that a condition can compare. */
export type NumberField = "runtime" | "queued_seconds" | "attempt" | "retries" | "progress";

/** What selects tasks beside a filter, by the rules of `GET /tasks`. */
export interface TaskConditions {
  /** A text in the uuid, name, args, kwargs, result or exception, whatever the case. */
  q?: string | undefined;
  /** Begun (sent, else received, else started) at this time or later: an age such as `10m`, or an RFC 3339 time. */
  since?: string | undefined;
  /** Begun before this time. */
  before?: string | undefined;
  /** Only lost tasks, or only others. */
  stale?: boolean | undefined;
  /** Comparisons with `>`, `>=`, `<`, `<=` or `=`. @example { runtime: ">=5", attempt: [">1", "<=3"] } */
  where?: { readonly [field in NumberField]?: string | readonly string[] | undefined } | undefined;
}

export interface TaskListOptions extends TaskConditions, WatchOptions {
  /** `newest` (default), or another order of `GET /tasks`. */
  sort?: string | undefined;
  /** The number of tasks, and how many `more` adds: 1 to 1,000; default 100. */
  limit?: number | undefined;
}

export interface WorkflowListOptions extends PollOptions {
  /** Comparisons with numbers of tasks. @example { total: ">=2" } */
  where?: { readonly [field in "total" | "ready" | "failed"]?: string | readonly string[] | undefined } | undefined;
  /** `running`, `failed`, `succeeded`, `waiting`, `lost`. */
  state?: string | readonly string[] | undefined;
  q?: string | undefined;
  since?: string | undefined;
  before?: string | undefined;
  sort?: string | undefined;
  /** The number of workflows, and how many `more` adds: 1 to 1,000; default 100. */
  limit?: number | undefined;
}

export interface StatisticsOptions extends PollOptions {
  /** How far back the numbers go: an age from `1m` to `24h`; default `1h`. */
  window?: string | undefined;
  /** Patterns of task names. */
  name?: string | readonly string[] | undefined;
  cluster?: string | readonly string[] | undefined;
}

export interface FailuresOptions extends PollOptions {
  name?: string | readonly string[] | undefined;
  cluster?: string | readonly string[] | undefined;
  /** An age such as `24h`, or an RFC 3339 time. */
  since?: string | undefined;
  /** 1 to 1,000; default 100. */
  limit?: number | undefined;
}

export interface CountsOptions extends TaskConditions, PollOptions {}

export interface RevokeOptions {
  /** End it, too, if it runs. Otherwise a task that runs goes on. */
  terminate?: boolean | undefined;
  /** The signal that ends it; default `SIGTERM`. */
  signal?: string | undefined;
  /** The broker's name, if the gateway has several that may have the same ids. */
  cluster?: string | undefined;
}

/** What was asked of the workers. Whether it happens is seen in the tasks' events. */
export interface Revoked {
  readonly revoked: readonly string[];
  readonly count: number;
}

export interface WorkflowOptions extends TaskOptions {
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
  /** The most events a second, 1 to 100,000: the gateway skips those beyond. Such a stream has its own connection. */
  maxRate?: number | undefined;
  /** Called for each gap in this stream: in order with callbacks, but before unread items of an iterator. */
  onGap?: ((gap: Gap) => void) | undefined;
  /** Called at most once a second, if events beyond `maxRate` were skipped. */
  onSkipped?: ((skipped: Skipped) => void) | undefined;
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

/** A list of tasks. */
export interface TaskList {
  readonly tasks: readonly Task[];
  /** True if there are more tasks than these: see `more`. */
  readonly more: boolean;
  /** The number of tasks that events have added since the watch began. It only grows. */
  readonly arrived: number;
}

export interface TaskListWatch extends Watch<TaskList> {
  /** Show `limit` more tasks, to all readers of this list. Resolves when they are there. Rejects as `client.fetch` does. */
  more(): Promise<void>;
}

/** A workflow in a list: of `GET /workflows`. Times are epoch seconds. */
export interface WorkflowSummary {
  readonly root_id: string;
  /** Of its root. */
  readonly name: string | null;
  readonly state: "running" | "failed" | "succeeded" | "waiting" | "lost";
  readonly total: number;
  readonly ready: number;
  readonly failed: number;
  readonly counts: { readonly [state: string]: number };
  /** 0..1. */
  readonly progress: number;
  readonly begun: number | null;
  readonly ended: number | null;
  readonly cluster?: string;
}

export interface WorkflowList {
  readonly workflows: readonly WorkflowSummary[];
  readonly more: boolean;
}

export interface WorkflowListWatch extends Watch<WorkflowList> {
  /** Show `limit` more workflows, to all readers of this list. Resolves when they are there. */
  more(): Promise<void>;
}

/** How a duration is spread, in seconds, with an error of 2 % at most. */
export interface Spread {
  readonly count: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

/** The numbers of one task name, or of several together. The counts are those of the window. */
export interface StatisticsItem {
  /** `null` in `total` and `other`. */
  readonly name: string | null;
  readonly cluster?: string;
  /** How many run now. */
  readonly running: number;
  /** How many wait now: neither ready, nor running, nor lost. */
  readonly waiting: number;
  readonly lost: number;
  readonly received: number;
  readonly started: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly retried: number;
  readonly revoked: number;
  readonly rejected: number;
  /** The counts over time, the oldest first; the last one is that of now. */
  readonly buckets: {
    readonly seconds: number;
    /** When the first one began, in epoch seconds. */
    readonly start: number;
    readonly succeeded: readonly number[];
    readonly failed: readonly number[];
    readonly retried: readonly number[];
  };
  readonly runtime: Spread | null;
  /** The time from `sent` (or the eta) to `started`. */
  readonly wait: Spread | null;
  readonly last_failure: { readonly uuid: string; readonly time: number; readonly exception: string | null } | null;
}

/** The numbers by task name: of `GET /statistics`. Times are epoch seconds on the gateway's clock. */
export interface Statistics {
  /** Seconds. */
  readonly window: number;
  readonly time: number;
  /** Since when events were counted. */
  readonly since: number;
  /** Those with the most ended tasks first. */
  readonly names: readonly StatisticsItem[];
  /** All names beyond the first 1,000. */
  readonly other: StatisticsItem | null;
  readonly total: StatisticsItem;
}

/** Failures with one signature: the exception and where it was raised. Times are epoch seconds. */
export interface Failure {
  readonly signature: string;
  readonly exception: string;
  /** One example. */
  readonly message: string;
  /** The last frame of the application, such as `demo/tasks.py:88 in charge`. */
  readonly frame: string | null;
  readonly count: number;
  readonly names: { readonly [name: string]: number };
  readonly first: number;
  readonly last: number;
  /** Of the newest task, as `worker` and `cluster`. */
  readonly uuid: string;
  readonly worker: string | null;
  readonly cluster?: string;
}

/** A queue: of `GET /queues`. */
export interface Queue {
  readonly name: string;
  readonly cluster?: string;
  /** The number of messages that are ready. */
  readonly depth: number | null;
  readonly unacknowledged: number | null;
  readonly consumers: number | null;
  /** When its oldest message was sent, in epoch seconds. */
  readonly oldest: number | null;
  /** Messages by priority, on Redis. */
  readonly priorities?: { readonly [priority: string]: number } | null;
  /** When it was read, in epoch seconds. */
  readonly time: number;
  readonly error: string | null;
}

export type CountField = "state" | "name" | "queue" | "hostname";

/** The numbers of tasks: of `GET /tasks/counts`. */
export interface Counts {
  readonly total: number;
  /** By field, then by value; `""` if there is no value. */
  readonly counts: { readonly [field in CountField]?: { readonly [value: string]: number } };
  /** How many have values beyond the first 1,000. */
  readonly other: { readonly [field in CountField]?: number };
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
  /** `client.health`: after each change, and each second while the client is connected or connecting. */
  health: (health: Health) => void;
  /** Someone has revoked a task through the gateway. Only while something is watched. */
  control: (action: Action) => void;
  /** The gateway has skipped events of a stream with `maxRate`. */
  skipped: (skipped: Skipped) => void;
}

/** One connection to a gateway, shared by all watches. */
export interface Client {
  readonly status: Status;
  readonly health: Health;
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
  task(uuid: string, options?: TaskOptions): TaskWatch;
  /**
   * Watch a list of tasks: those of `GET /tasks`, then live. The filter is that of the record: a task that no longer
   * matches leaves the list, such as one that has ended from `state: "STARTED"`. Rows change in place. In the order
   * `newest`, tasks that begin are added where they belong, at most at the place `limit`. In other orders the list is
   * fetched again while its tasks change, at most every 5 s. It changes at most 20 times a second.
   *
   * @throws TypeError or RangeError as `events` does.
   */
  tasks(filter?: Filter, options?: TaskListOptions): TaskListWatch;
  /**
   * Watch all tasks of one root as a tree. It changes at most 20 times a second.
   *
   * If the id is that of a task with another root, the value stays `null`, and the client emits an `error` event once:
   * a GatewayError with the code `not-a-root`. The watch stays open.
   *
   * @throws TypeError without a root_id.
   */
  workflow(rootId: string, options?: WorkflowOptions): WorkflowWatch;
  /** Watch a list of workflows, which is fetched every 2 s (`intervalMs`). The filter is that of the root task. */
  workflows(filter?: Filter, options?: WorkflowListOptions): WorkflowListWatch;
  /** Watch all workers. The value changes at most 20 times a second. */
  workers(options?: WatchOptions): WorkersWatch;
  /**
   * Watch the numbers by task name; every 5 s (`intervalMs`). They come over the stream of all watches; those of another
   * window than the first watch's are fetched.
   */
  statistics(options?: StatisticsOptions): Watch<Statistics>;
  /** Watch failures by signature, the newest first; fetched every 5 s (`intervalMs`). */
  failures(options?: FailuresOptions): Watch<readonly Failure[]>;
  /** Watch the queues; fetched every 5 s (`intervalMs`). */
  queues(options?: PollOptions): Watch<readonly Queue[]>;
  /** Watch the numbers of tasks by fields; fetched every 5 s (`intervalMs`). */
  counts(filter: Filter, by: CountField | readonly CountField[], options?: CountsOptions): Watch<Counts>;
  /**
   * Fetch JSON from an endpoint of the gateway, with the client's token or cookies.
   *
   * @param path such as `/tasks/5a37…`; ids in it have to be encoded with `encodeURIComponent`.
   * @throws GatewayError if the gateway refuses, with `code`, `status`, `parameter` and `allowed`; TypeError if the network
   *   fails.
   */
  fetch<T = unknown>(path: string, params?: Params, signal?: AbortSignal): Promise<T>;
  /** Revoke a task: workers discard it before it starts. Rejects as `fetch` does. */
  revoke(uuid: string, options?: RevokeOptions): Promise<Revoked>;
  /** Revoke all tasks of a workflow that have not ended. Rejects as `fetch` does. */
  revokeWorkflow(rootId: string, options?: RevokeOptions): Promise<Revoked>;
  /** Call back at each event of this type. Returns a function that removes the listener. */
  on<K extends keyof ClientEvents>(type: K, listener: ClientEvents[K]): () => void;
  /** Close the client and all its watches. */
  close(): void;
}
