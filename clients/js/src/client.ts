import { guarded, nothing } from "./environment.js";
import { type Feed, feed, type Model } from "./feed.js";
import { parse } from "./filter.js";
import { tasks, workers } from "./models.js";
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
  Status,
  WebSocketConstructor,
  WorkersWatch,
  WorkflowWatch,
} from "./types.js";
import { type Source, watch } from "./watch.js";
import { websocket } from "./websocket.js";

const MAX_UNREAD = 10_000;

/**
 * Return a client of the gateway at a URL. It connects when something is watched, not before.
 *
 * @throws TypeError if the URL is none, or there is no WebSocket for the transport `websocket`.
 */
export function connect(options: ClientOptions): Client {
  const { signal } = options;
  const url = new URL(options.url, globalThis.document?.baseURI ?? globalThis.location?.href);
  const [isSocket, path] = options.transport === "websocket" ? [true, "/ws"] : [false, "/events"];
  url.pathname = url.pathname.replace(/\/*$/, path);
  const open = isSocket
    ? websocket(url, options.WebSocket ?? (globalThis.WebSocket as unknown as WebSocketConstructor | undefined))
    : sse(url, options.fetch ?? ((...request) => globalThis.fetch(...request))); // which it may replace meanwhile

  const streams = new Set<Stream>();
  /** By what they tell of. */
  const feeds = new Map<unknown, Feed>();
  const listeners = { status: new Set<unknown>(), gap: new Set<unknown>(), error: new Set<unknown>() };
  let status: Status = "idle";
  let over: [Error?] | undefined;

  const emit = <K extends keyof ClientEvents>(type: K, told: Parameters<ClientEvents[K]>[0]): void => {
    for (const listener of [...listeners[type]]) guarded(listener as (told: unknown) => void, told);
  };

  /** The status is that of the stream that is worst off. */
  const look = (): void => {
    const all = [...streams].map((stream) => stream.status);
    const now = over ? "closed" : ((["waiting", "connecting", "open"] as const).find((one) => all.includes(one)) ?? "idle");
    if (now !== status) emit("status", (status = now));
  };

  /** @param refused is called when it is no use to try again. */
  const begin = (refused: (error: Error) => void, at?: EventsOptions): Stream => {
    const begun = stream(
      open,
      options,
      {
        emit: (type, told) => (type === "status" ? look() : emit(type, told)),
        refused(error) {
          refused(error);
          emit("error", error);
        },
      },
      at,
    );
    streams.add(begun);
    return begun;
  };

  /**
   * Return where a watch has its feed from.
   *
   * @param key what it tells of.
   * @param at where its own stream begins, if it is to have one.
   */
  const source = (key: unknown, model: () => Model<unknown>, at?: EventsOptions): Source => {
    const find = (): Feed | undefined => feeds.get(key);
    const open = (): Feed => {
      const stop = (error?: Error): void => {
        feeds.delete(key);
        if (at) streams.delete(carrier);
        carrier.remove(opened);
        opened.end(error);
      };
      const carrier = at ? begin(stop, at) : shared;
      const opened = feed(model(), stop);
      feeds.set(key, opened);
      carrier.add(opened);
      return opened;
    };
    return { find, open: () => find() ?? open(), over: () => over };
  };

  const close = (error?: Error): void => {
    if (over) return;
    over = error ? [error] : [];
    signal?.removeEventListener("abort", abort);
    for (const stream of streams) stream.close();
    look();
    for (const feed of feeds.values()) feed.end(error);
    feeds.clear();
  };
  const abort = (): void => close();
  const shared = begin(close);
  signal?.addEventListener("abort", abort);
  if (signal?.aborted) close();

  return {
    get status() {
      return status;
    },
    events(filter = {}, given = {}) {
      const { since, lastEventId, signal, onGap = nothing } = given;
      const filters = parse(filter);
      let lost = 0;
      const gap = (gap: Gap): void => guarded(onGap, gap);
      const onDrop = ({ id }: Event): void => {
        if (lost++) return;
        queueMicrotask(() => {
          gap({ type: "gateway-gap", id, reason: "slow", lost });
          lost = 0;
        });
      };
      return watch(source({}, () => ({ filters, gap }), since ?? lastEventId ? given : undefined), signal, MAX_UNREAD, onDrop);
    },
    task: (uuid, { signal } = {}) =>
      watch(source(`u${uuid}`, tasks("uuid", uuid, (known) => known.get(uuid) ?? null)), signal),
    workflow: (rootId, { signal } = {}) =>
      watch(source(`r${rootId}`, tasks("root_id", rootId, (known) => workflow(rootId, known))), signal) as unknown as WorkflowWatch,
    workers: ({ signal } = {}) => watch(source("", workers), signal) as unknown as WorkersWatch,
    on(type, listener) {
      listeners[type].add(listener);
      return () => void listeners[type].delete(listener);
    },
    close: () => close(),
  };
}
