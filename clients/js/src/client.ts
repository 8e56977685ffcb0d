import type { Connect } from "./connection.js";
import { guarded, nothing } from "./environment.js";
import { GatewayError } from "./errors.js";
import { type Feed, feed, type Model } from "./feed.js";
import { parse } from "./filter.js";
import { type MakeTasks, tasks, workers } from "./models.js";
import { judgeTask, judgeWorkflow, type Verdict } from "./ready.js";
import { sse } from "./sse.js";
import { type Listener, type Member, type Stream, stream } from "./stream.js";
import { workflow } from "./tree.js";
import type {
  Client,
  ClientEvents,
  ClientOptions,
  Event,
  EventsOptions,
  Gap,
  Known,
  Source,
  Status,
  TasksOptions,
  WorkersWatch,
  WorkflowWatch,
} from "./types.js";
import { streamUrl, usableUrl } from "./url.js";
import { watch } from "./watch.js";
import { websocket } from "./websocket.js";

const enum Max {
  UNREAD = 10_000,
  /** Browsers open at most six HTTP/1.1 connections to a host. */
  STREAMS = 4,
}

/**
 * Return a client of the gateway at a URL. It connects when something is watched, not before.
 *
 * @throws GatewayError with the code `bad-url` if the URL is malformed or of another scheme. A relative URL where there
 *   is no page, and a missing WebSocket, are errors at the first connection.
 */
export function connect(options: ClientOptions): Client {
  const { signal, transport, shared } = options;
  const isSocket = transport === "websocket";
  streamUrl(options.url, isSocket); // throws
  let connect: Connect | undefined;
  const open: Connect = (...given) => {
    const url = usableUrl(options.url, isSocket);
    connect ??= isSocket ? websocket(url, options) : sse(url, options);
    return connect(...given);
  };

  const streams = new Set<Stream>();
  /** By what they are about. */
  const feeds = new Map<unknown, Feed>();
  const listeners: { [type: string]: Set<unknown> } = Object.create(null);
  let status: Status = "idle";
  let sources: readonly Source[] = [];
  let over: [Error?] | undefined;

  const emit = <K extends keyof ClientEvents>(type: K, value: Parameters<ClientEvents[K]>[0]): void => {
    if (type === "source") sources = value as readonly Source[];
    for (const listener of [...(listeners[type] ?? [])]) guarded(listener as (value: unknown) => void, value);
  };

  /** The status is the worst one of all streams. */
  const look = (): void => {
    const all = [...streams].map((stream) => stream.status);
    const worst = (["waiting", "connecting", "open"] as const).find((one) => all.includes(one));
    const now = over ? "closed" : (worst ?? "idle");
    if (now !== status) emit("status", (status = now));
  };

  /** @param refused is called if a retry cannot help. */
  const listenerOf = (refused: (error: Error) => void): Listener => ({
    emit: (type, value) => (type === "status" ? look() : emit(type, value)),
    refused(error) {
      refused(error);
      emit("error", error);
    },
    overflow: (members) => members.forEach(place),
  });
  const begin = (refused: (error: Error) => void, at?: EventsOptions): Stream => {
    const begun = stream(open, options, listenerOf(refused), at);
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
      else place(begun);
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
  const tasksOf = (
    field: "uuid" | "root_id",
    id: string,
    { signal, cluster }: TasksOptions = {},
    make: MakeTasks<unknown>,
    judge: (known: Known<never>) => Verdict | undefined,
  ) => watch(source(field + [cluster, id], tasks(field, id, make, refuse, cluster, options.maxTasks)), signal, judge);

  return {
    get status() {
      return status;
    },
    events(filter = {}, given = {}) {
      const { since, lastEventId, signal, onGap = nothing } = given;
      const filters = parse(filter);
      const gap = (gap: Gap): void => guarded(onGap, gap);
      const onLost = (lost: number, { id }: Event): void => gap({ type: "gateway-gap", id, reason: "slow", lost });
      const at = since ?? lastEventId ? given : undefined;
      return watch(source({}, () => ({ filters, gap }), at), signal, undefined, Max.UNREAD, onLost);
    },
    task: (uuid, given) => tasksOf("uuid", uuid, given, (_, last) => last, judgeTask(uuid, options)),
    workflow: (rootId, given) =>
      tasksOf(
        "root_id",
        rootId,
        given,
        (members) => workflow(rootId, members),
        judgeWorkflow(rootId, options, given?.quietMs),
      ) as unknown as WorkflowWatch,
    workers: ({ signal } = {}) => watch(source("", () => workers(() => sources)), signal) as unknown as WorkersWatch,
    on(type, listener) {
      const set = (listeners[type] ??= new Set());
      set.add(listener);
      return () => void set.delete(listener);
    },
    close: () => close(),
  };
}
