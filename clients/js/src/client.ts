import { guarded, nothing } from "./environment.js";
import { type Feed, feed, type Model } from "./feed.js";
import { parse } from "./filter.js";
import { type MakeTasks, tasks, workers } from "./models.js";
import { sse } from "./sse.js";
import { type Stream, stream } from "./stream.js";
import { workflow } from "./tree.js";
import type {
  Client,
  ClientEvents,
  ClientOptions,
  Event,
  EventsOptions,
  Gap,
  Source,
  Status,
  TasksOptions,
  WorkersWatch,
  WorkflowWatch,
} from "./types.js";
import { watch } from "./watch.js";
import { websocket } from "./websocket.js";

const enum Max {
  UNREAD = 10_000,
}

/**
 * Return a client of the gateway at a URL. It connects when something is watched, not before.
 *
 * @throws TypeError if the URL is none, or there is no WebSocket for the transport `websocket`.
 */
export function connect(options: ClientOptions): Client {
  const { signal, transport } = options;
  const isSocket = transport === "websocket";
  const url = new URL(options.url, globalThis.location?.href);
  url.pathname = url.pathname.replace(/\/*$/, isSocket ? "/ws" : "/events");
  const open = isSocket ? websocket(url, options) : sse(url, options);

  const streams = new Set<Stream>();
  /** By what they tell of. */
  const feeds = new Map<unknown, Feed>();
  const listeners: { [type: string]: Set<unknown> } = {};
  let status: Status = "idle";
  let sources: readonly Source[] = [];
  let over: [Error?] | undefined;

  const emit = <K extends keyof ClientEvents>(type: K, told: Parameters<ClientEvents[K]>[0]): void => {
    if (type === "source") sources = told as readonly Source[];
    for (const listener of [...(listeners[type] ?? [])]) guarded(listener as (told: unknown) => void, told);
  };

  /** The status is that of the stream that is worst off. */
  const look = (): void => {
    const all = [...streams].map((stream) => stream.status);
    const worst = (["waiting", "connecting", "open"] as const).find((one) => all.includes(one));
    const now = over ? "closed" : (worst ?? "idle");
    if (now !== status) emit("status", (status = now));
  };

  /** @param refused is called when it is no use to try again. */
  const begin = (refused: (error: Error) => void, at?: EventsOptions): Stream => {
    const begun = stream(
      open,
      options,
      (type, told) => (type === "status" ? look() : emit(type, told)),
      (error) => {
        refused(error);
        emit("error", error);
      },
      at,
    );
    streams.add(begun);
    return begun;
  };

  /**
   * Return where a watch has its feed from: by what it tells of, so that equal watches have the same.
   *
   * @param at where its own stream begins, if it is to have one.
   */
  const source =
    (key: unknown, model: () => Model<unknown>, at?: EventsOptions) =>
    (isToBegin?: boolean): Feed | undefined => {
      const found = feeds.get(key);
      if (found || !isToBegin) return found;
      const stop = (error?: Error): void => {
        feeds.delete(key);
        if (at) streams.delete(carrier);
        carrier.remove(begun);
        begun.end(error);
      };
      const carrier = at ? begin(stop, at) : shared;
      const begun = feed(model(), stop);
      feeds.set(key, begun);
      if (over) begun.end(over[0]);
      else carrier.add(begun);
      return begun;
    };

  const close = (error?: Error): void => {
    if (over) return;
    over = [error as Error];
    signal?.removeEventListener("abort", abort);
    for (const stream of streams) stream.close();
    look();
    for (const feed of feeds.values()) feed.end(error);
  };
  const abort = (): void => close();
  const shared = begin(close);
  signal?.addEventListener("abort", abort);
  if (signal?.aborted) close();

  const refuse = (error: Error): void => emit("error", error);
  const tasksOf = (field: "uuid" | "root_id", id: string, options: TasksOptions = {}, make: MakeTasks<unknown>) => {
    const { signal, cluster } = options;
    return watch(source(field + [cluster, id], tasks(field, id, make, refuse, cluster)), signal);
  };

  return {
    get status() {
      return status;
    },
    events(filter = {}, given = {}) {
      const { since, lastEventId, signal, onGap = nothing } = given;
      const filters = parse(filter);
      const gap = (gap: Gap): void => guarded(onGap, gap);
      const onLost = (lost: number, { id }: Event): void => gap({ type: "gateway-gap", id, reason: "slow", lost });
      return watch(source({}, () => ({ filters, gap }), since ?? lastEventId ? given : undefined), signal, Max.UNREAD, onLost);
    },
    task: (uuid, options) => tasksOf("uuid", uuid, options, (_, last) => last),
    workflow: (rootId, options) =>
      tasksOf("root_id", rootId, options, (members) => workflow(rootId, members)) as unknown as WorkflowWatch,
    workers: ({ signal } = {}) => watch(source("", () => workers(() => sources)), signal) as unknown as WorkersWatch,
    on(type, listener) {
      const set = (listeners[type] ??= new Set());
      set.add(listener);
      return () => void set.delete(listener);
    },
    close: () => close(),
  };
}
