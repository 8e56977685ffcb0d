import type { Connect, Control } from "./connection.js";
import { after, guarded, nothing, nowMs } from "./environment.js";
import { GatewayError } from "./errors.js";
import { type Feed, feed, type Model } from "./feed.js";
import { parse } from "./filter.js";
import { http } from "./http.js";
import { taskList } from "./list.js";
import { polled } from "./poll.js";
import { paramsOf } from "./select.js";
import { sse } from "./sse.js";
import { statistics } from "./statistics.js";
import { type Listener, type Member, type Stream, stream } from "./stream.js";
import type { TaskWatches } from "./task-watches.js";
import type {
  Client,
  ClientEvents,
  ClientOptions,
  Event,
  EventsOptions,
  Filter,
  Gap,
  Health,
  PollOptions,
  Revoked,
  RevokeOptions,
  Status,
  WatchOptions,
} from "./types.js";
import { streamUrl, usableUrl } from "./url.js";
import { watch } from "./watch.js";
import { websocket } from "./websocket.js";
import { workers } from "./workers.js";
import { workflowList } from "./workflows.js";

const enum Ms {
  /** Between two `health` events. */
  HEALTH = 1_000,
}
const enum Max {
  UNREAD = 10_000,
  /** Browsers open at most six HTTP/1.1 connections to a host. */
  STREAMS = 4,
}

/**
 * Return a client as `connect` does.
 *
 * @param taskWatches returns what makes the watches of a task and of a workflow; called not before the first one is
 *   asked for. A page may load that later.
 */
export function connectCore(options: ClientOptions, taskWatches: () => TaskWatches): Client {
  const { signal, transport, shared } = options;
  const isSocket = transport === "websocket";
  streamUrl(options.url, isSocket); // throws
  let connect: Connect | undefined;
  const open: Connect = (...given) => {
    const url = usableUrl(options.url, isSocket);
    connect ??= isSocket ? websocket(url, options) : sse(url, options);
    return connect(...given);
  };

  const get = http(options);
  const streams = new Set<Stream>();
  /** By what they are about. */
  const feeds = new Map<unknown, Feed>();
  const listeners: { [type: string]: Set<unknown> } = Object.create(null);
  let status: Status = "idle";
  let about: Omit<Health, "status" | "heardMs"> = { sources: [], version: null, started: null, control: false, actions: [] };
  let unTick = nothing;
  let over: [Error?] | undefined;

  const emit = <K extends keyof ClientEvents>(type: K, value: Parameters<ClientEvents[K]>[0]): void => {
    for (const listener of [...(listeners[type] ?? [])]) guarded(listener as (value: unknown) => void, value);
  };

  /** The status is the worst one of all streams. */
  const look = (): void => {
    const all = [...streams].map((stream) => stream.status);
    const worst = (["waiting", "connecting", "open"] as const).find((one) => all.includes(one));
    const now = over ? "closed" : (worst ?? "idle");
    if (now === status) return;
    emit("status", (status = now));
    tellHealth();
  };

  const health = (): Health => {
    const heardMs = nowMs() - Math.max(...[...streams].map(({ heardAtMs }) => heardAtMs));
    return { status, heardMs: heardMs < Infinity ? heardMs : null, ...about };
  };
  /** Tell the health now and, while there is a connection or the next one is planned, each second. */
  const tellHealth = (): void => {
    unTick();
    if (!listeners["health"]?.size) return;
    emit("health", health());
    if (!/idle|closed/.test(status)) unTick = after(Ms.HEALTH, tellHealth);
  };

  /** @param isMain false for a stream of its own: messages of all streams are those of the others, too. */
  const control = (message: Control, isMain: boolean): void => {
    if (message.type === "gateway-skipped") emit("skipped", message);
    if (message.type === "gateway-control" && isMain) emit("control", message);
    // A stream that begins in the past has the messages of the past.
    if (message.type !== "gateway-status" || (!isMain && carriers[0]?.status === "open")) return;
    const { type, id, ...news } = message; // later ones have less
    about = { ...about, ...news };
    emit("source", message.sources);
    tellHealth();
  };

  /** @param refused is called if a retry cannot help. */
  const listenerOf = (refused: (error: Error) => void, isMain = true): Listener => ({
    control: (message) => control(message, isMain),
    emit: (type, value) => (type === "status" ? look() : emit(type, value)),
    refused(error) {
      refused(error);
      emit("error", error);
    },
    overflow: (members) => members.forEach(place),
  });
  const begin = (refused: (error: Error) => void, at?: EventsOptions): Stream => {
    const begun = stream(open, options, listenerOf(refused, !at && !carriers[0]), at);
    streams.add(begun);
    return begun;
  };

  const carriers: Stream[] = [];
  /** Add a member to a stream that has room, or refuse it. */
  const place = (member: Member): void => {
    let carrier = carriers.find((stream) => !stream.isFull);
    if (!carrier && !joined && carriers.length < Max.STREAMS) carriers.push((carrier = begin(close)));
    if (carrier) return carrier.add(member);
    const message = `too many watches: at most 1000 values fit into each of ${joined ? 1 : Max.STREAMS} connections`;
    const error = new GatewayError(message, { code: "too-many-watches" });
    member.refuse(error);
    emit("error", error);
  };

  const refetch = (feed: Feed): void => carriers.forEach((stream) => stream.refetch(feed));
  /**
   * Return the source of a watch's feed. Equal watches have equal keys.
   *
   * @param at where its own stream begins, if it has one.
   */
  const source = (key: unknown, model: () => Model<unknown>, at?: EventsOptions) => ({
    hasValue: typeof key === "string",
    feed(isToBegin?: boolean): Feed | undefined {
      const found = feeds.get(key);
      if (found || !isToBegin) return found;
      const stop = (error?: Error): void => {
        if (feeds.get(key) === begun) feeds.delete(key);
        if (own) streams.delete(own);
        for (const stream of own ? [own] : carriers) stream.remove(begun);
        begun.end(error);
      };
      const own = at && begin(stop, at);
      const begun: Feed = feed(model(), stop, () => refetch(begun));
      feeds.set(key, begun);
      if (over) begun.end(over[0]);
      else if (own) own.add(begun);
      else if (begun.filters[0] || begun.wants) place(begun);
      return begun;
    },
    refetch,
  });

  const close = (error?: Error): void => {
    if (over) return;
    over = [error as Error];
    signal?.removeEventListener("abort", abort);
    for (const stream of streams) stream.close();
    look();
    for (const feed of feeds.values()) feed.end(error);
  };
  const abort = (): void => close();
  const joined = shared?.(
    `${[options.url, transport]}`,
    (listener, position) => stream(open, options, listener, undefined, position),
    listenerOf(close),
  );
  if (joined) {
    streams.add(joined);
    carriers.push(joined);
  }
  signal?.addEventListener("abort", abort);
  if (signal?.aborted) close();

  const refuse = (error: Error): void => emit("error", error);
  const tasks = () =>
    taskWatches()(options, get, refuse, (key, model, signal, settle) => watch(source(key, model), signal, settle));
  /** Return a watch that equal watches share. */
  const valueOf = (what: string, { signal, ...given }: WatchOptions, model: () => Model<unknown>, filter?: unknown): any =>
    watch(source(what + JSON.stringify([given, filter]), model), signal);
  /** Return a watch of what is fetched again and again. */
  const fetched = (path: string, filter: Filter, given: PollOptions & { by?: string }, make: (answer: any) => unknown): any => {
    const params = paramsOf(filter, { ...given });
    return valueOf(path, given, polled(async (signal) => make(await get(path, params, signal)), given.intervalMs), filter);
  };
  const revoke = (path: string, { cluster, terminate = false, signal }: RevokeOptions = {}): Promise<Revoked> =>
    get(`${path}/revoke`, { cluster }, undefined, { terminate, signal });

  return {
    get status() {
      return status;
    },
    get health() {
      return health();
    },
    events(filter = {}, given = {}) {
      const { since, lastEventId, maxRate, signal, onGap = nothing, onSkipped = nothing } = given;
      const filters = parse(filter);
      const gap = (gap: Gap): void => guarded(onGap, gap);
      const onLost = (lost: number, { id }: Event): void => gap({ type: "gateway-gap", id, reason: "slow", lost });
      const at = (since ?? lastEventId ?? maxRate) ? given : undefined;
      const control = (message: Control): void => void (message.type === "gateway-skipped" && guarded(onSkipped, message));
      return watch(source({}, () => ({ filters, gap, control }), at), signal, undefined, Max.UNREAD, onLost);
    },
    task: (...given) => tasks().task(...given),
    workflow: (...given) => tasks().workflow(...given),
    tasks: (filter = {}, given = {}) => valueOf("tasks", given, taskList(get, filter, given, options.now), filter),
    workflows: (filter = {}, given = {}) => valueOf("workflows", given, workflowList(get, filter, given), filter),
    workers: (given = {}) => valueOf("workers", given, workers),
    statistics: (given = {}) => valueOf("statistics", given, statistics(get, given)),
    failures: ({ name, cluster, ...given } = {}) => fetched("/failures", { name, cluster }, given, (answer) => answer.failures),
    queues: (given = {}) => fetched("/queues", {}, given, (answer) => answer.queues),
    counts: (filter, by, given = {}) =>
      fetched("/tasks/counts", filter, { ...given, by: [by].flat().join() }, ({ id, ...counts }) => counts),
    fetch: get,
    revoke: (uuid, given) => revoke(`/tasks/${encodeURIComponent(uuid)}`, given),
    revokeWorkflow: (rootId, given) => revoke(`/workflows/${encodeURIComponent(rootId)}`, given),
    on(type, listener) {
      const set = (listeners[type] ??= new Set());
      set.add(listener);
      if (type === "health") queueMicrotask(tellHealth);
      return () => void set.delete(listener);
    },
    close: () => close(),
  };
}
