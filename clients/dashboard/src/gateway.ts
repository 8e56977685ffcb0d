/** The client of the gateway, one for all views and tabs, and what it reports, in stores. */
import { useEffect, useRef, useState } from "preact/hooks";
import { connectCore } from "../../js/src/core.ts";
import type { TaskWatches } from "../../js/src/task-watches.ts";
import type { Client, ClientOptions, GatewayError, Health, Known, Params, Watch, Worker } from "../../js/src/index.ts";
import { tabs } from "../../js/src/tabs.ts";
import { base } from "./navigation.ts";
import { store, use } from "./store.ts";
import { paced } from "./throttled.ts";
import { skewOf } from "./time.ts";

/** Between two values of a list that changes with each event. */
export const listPause = (): number => 250;

export type Access = "open" | "token" | "session" | "login" | "forbidden";
const { dataset } = document.documentElement;

/** Who has opened the page: as the gateway wrote it into the page, and after a login. */
export const access = store<Access>((dataset["access"] as Access | undefined) ?? "open");
/** What the user may read: `events`, `state`, `workers`. */
export const may = store<readonly string[]>(words(dataset["may"]));
/** The actions that the gateway allows, and the user may use. */
export const actions = store<readonly string[]>(words(dataset["actions"]));
export const version = store(dataset["version"] ?? "");

function words(text = ""): readonly string[] {
  return text.split(" ").filter(Boolean);
}

/** Take what the gateway has written into a page: the text of one, as after a login. */
export function readPage(html: string): void {
  const found = Object.fromEntries([...html.slice(0, 1_000).matchAll(/ data-(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]));
  access.value = (found["access"] as Access | undefined) ?? "session";
  may.value = words(found["may"]);
  actions.value = words(found["actions"]);
  version.value = found["version"] ?? "";
}
/** Why the gateway has refused the client, such as an ended session. */
export const refusal = store<GatewayError | null>(null);

/** Return whether an error means that there is no valid token. The sign-in form is shown then, so no error is. */
export function asksForToken(error: unknown): boolean {
  return (error as GatewayError | null)?.status === 401 && access.value !== "open";
}
export const health = store<Health | null>(null);
/** The workers that are silent or have shut down: the shell, which watches all of them, keeps it. */
export const away = store<ReadonlyMap<string, Worker>>(new Map());
let skew = 0;
/** Return epoch seconds, of the gateway's clock as far as it is known: all times that are shown are of this clock. */
export const nowSeconds = (): number => Date.now() / 1_000 + skew;
/** `nowSeconds`; it ticks once a second while the page is visible. */
export const now = store(nowSeconds());

/** Take the gateway's time of now. */
export function setClock(time: number): void {
  skew = skewOf(skew, time, Date.now() / 1_000);
  now.value = nowSeconds();
}
/** Whether times are shown in UTC. */
export const isUtc = store(localStorage.getItem("utc") === "1");
isUtc.subscribe((isOn) => (isOn ? localStorage.setItem("utc", "1") : localStorage.removeItem("utc")));

setInterval(() => {
  if (!document.hidden) now.value = nowSeconds();
}, 1_000);
document.addEventListener("visibilitychange", () => (now.value = nowSeconds()));

let taskWatches: TaskWatches | undefined;

/** Take what watches tasks and workflows: it is loaded with their views. */
export function provide(given: TaskWatches): void {
  taskWatches = given;
}

function connect(options: ClientOptions): Client {
  return connectCore(options, () => taskWatches!);
}

/**
 * Tabs share one connection where the browser has Web Locks. Elsewhere (plain HTTP) each tab has its own WebSocket: a
 * browser opens only six other connections to a host. `withWebSocket` is false behind a proxy that refuses it.
 */
function newClient(withWebSocket: boolean): Client {
  const canShare = "locks" in navigator;
  const client = connect({
    url: base.href,
    now: nowSeconds,
    transport: canShare || !withWebSocket ? "sse" : "websocket",
    shared: canShare ? tabs() : undefined,
  });
  let wasOpen = false;
  client.on("health", (value) => {
    health.value = value;
    wasOpen ||= value.status === "open";
    if (value.status === "waiting" && !wasOpen && !canShare && withWebSocket) replace(client, false);
  });
  client.on("error", (error) => {
    const { code, status } = error as GatewayError;
    if (status !== 401 && status !== 403 && code !== "expired") return;
    refusal.value = error as GatewayError;
    tailClient.value.close();
  });
  return client;
}

function replace(old: Client, withWebSocket: boolean): void {
  if (client.value !== old) return;
  client.value = newClient(withWebSocket);
  old.close();
}

export const client = store<Client>(newClient(true));

/**
 * The client of the tail. A stream with a highest rate has its own connection, and a browser opens only six to a host but
 * many WebSockets; behind a proxy that refuses those it is the client of all views.
 */
export const tailClient = store<Client>(newTailClient());

function newTailClient(): Client {
  const made = connect({ url: base.href, transport: "websocket" });
  let wasOpen = false;
  let isRefused = false;
  /** Only if the gateway answers other requests. */
  const look = (): void => {
    if (!isRefused || health.value?.status !== "open") return;
    stop();
    if (tailClient.value !== made) return;
    tailClient.value = client.value;
    made.close();
  };
  const stop = health.subscribe(look);
  made.on("status", (status) => {
    wasOpen ||= status === "open";
    isRefused ||= status === "waiting" && !wasOpen;
    queueMicrotask(look);
  });
  return made;
}

/** Connect again, as after a login. Views keep what they show. */
export function reconnect(): void {
  const [old, tail] = [client.value, tailClient.value];
  refusal.value = null;
  health.value = null;
  replace(old, true);
  tailClient.value = newTailClient();
  tail.close();
}

/**
 * Watch a value of the client while the component is mounted.
 *
 * @param make returns the watch, or null for none. It is called again when `key` or the client changes.
 * @param key what the watch is about. The value of another key is dropped; a new client's replaces it.
 * @param pauseMs returns the milliseconds until the next value is shown after this one.
 */
export function useWatch<T>(make: (client: Client) => Watch<T> | null, key: string, pauseMs: (value: T | null) => number = () => 0): Known<T> {
  const [shown, show] = useState<{ readonly key: string; readonly known: Known<T> }>();
  const latest = useRef(make);
  latest.current = make;
  const current = use(client);
  useEffect(() => {
    let watch: Watch<T> | null;
    try {
      watch = latest.current(current);
    } catch (error) {
      return show({ key, known: { value: null, status: "error", error: error as Error } });
    }
    if (!watch) return;
    const watched = watch;
    let last: T | null = null;
    const draw = (): void => {
      const { known } = watched;
      last = known.value;
      show((before) => {
        const keeps = known.status === "loading" && before?.key === key && before.known.value !== null;
        return keeps ? before : { key, known };
      });
    };
    const update = paced(draw, () => pauseMs(last));
    const stop = watched.subscribe(update);
    return () => {
      update.cancel();
      stop();
      watched.close();
    };
  }, [key, current]);
  return shown?.key === key ? shown.known : { value: null, status: "loading", error: null };
}

/** What was fetched once. */
export interface Fetched<T> {
  readonly value: T | null;
  readonly error: Error | null;
  readonly isLoading: boolean;
}

/**
 * Fetch JSON from the gateway while the component is mounted.
 *
 * @param path below the gateway's URL, such as `/tasks/counts`; null for nothing.
 * @param everySeconds fetch it again this often, while the page is visible; 0: once.
 */
export function useFetched<T>(path: string | null, params: Params = {}, everySeconds = 0): Fetched<T> {
  const key = JSON.stringify([path, params]);
  const [shown, show] = useState<{ readonly key: string; readonly fetched: Fetched<T> }>();
  const current = use(client);
  useEffect(() => {
    if (path === null) return;
    let isOver = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const load = async (): Promise<void> => {
      try {
        const value = await current.fetch<T>(path, params);
        if (!isOver) show({ key, fetched: { value, error: null, isLoading: false } });
      } catch (error) {
        if (!isOver) {
          show((before) => ({
            key,
            fetched: { value: before?.key === key ? before.fetched.value : null, error: error as Error, isLoading: false },
          }));
        }
      }
      if (everySeconds && !isOver) timer = setTimeout(again, everySeconds * 1_000);
    };
    const again = (): void => {
      if (isOver) return;
      if (document.hidden) document.addEventListener("visibilitychange", again, { once: true });
      else void load();
    };
    void load();
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, [key, current, everySeconds]);
  return shown?.key === key ? shown.fetched : { value: null, error: null, isLoading: path !== null };
}
