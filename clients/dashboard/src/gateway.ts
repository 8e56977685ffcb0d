/** The client of the gateway, one for all views and tabs, and what it reports, as signals. */
import { batch, effect, signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { type Client, connect, type GatewayError, type Health, type Known, type Params, type Watch } from "../../js/src/index.ts";
import { tabs } from "../../js/src/tabs.ts";
import { base } from "./navigation.ts";

export type Access = "open" | "token" | "session" | "login" | "forbidden";
const { dataset } = document.documentElement;

/** Who has opened the page: as the gateway wrote it into the page, and after a login. */
export const access = signal<Access>((dataset["access"] as Access | undefined) ?? "open");
/** What the user may read: `events`, `state`, `workers`. */
export const may = signal<readonly string[]>(words(dataset["may"]));
/** The actions that the gateway allows, and the user may use. */
export const actions = signal<readonly string[]>(words(dataset["actions"]));
export const version = signal(dataset["version"] ?? "");

function words(text = ""): readonly string[] {
  return text.split(" ").filter(Boolean);
}

/** Take what the gateway has written into a page: the text of one, as after a login. */
export function readPage(html: string): void {
  const found = Object.fromEntries([...html.slice(0, 1_000).matchAll(/ data-(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]));
  batch(() => {
    access.value = (found["access"] as Access | undefined) ?? "session";
    may.value = words(found["may"]);
    actions.value = words(found["actions"]);
    version.value = found["version"] ?? "";
  });
}
/** Why the gateway has refused the client, such as an ended session. */
export const refusal = signal<GatewayError | null>(null);
export const health = signal<Health | null>(null);
/** Epoch seconds, of this browser's clock; it ticks once a second while the page is visible. */
export const now = signal(Date.now() / 1_000);
/** Whether times are shown in UTC. */
export const isUtc = signal(localStorage.getItem("utc") === "1");
effect(() => (isUtc.value ? localStorage.setItem("utc", "1") : localStorage.removeItem("utc")));

setInterval(() => {
  if (!document.hidden) now.value = Date.now() / 1_000;
}, 1_000);
document.addEventListener("visibilitychange", () => (now.value = Date.now() / 1_000));

/**
 * Tabs share one connection where the browser has Web Locks. Elsewhere (plain HTTP) each tab has its own WebSocket: a
 * browser opens only six other connections to a host. `withWebSocket` is false behind a proxy that refuses it.
 */
function newClient(withWebSocket: boolean): Client {
  const canShare = "locks" in navigator;
  const client = connect({
    url: base.href,
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
    tailClient.peek().close();
  });
  return client;
}

function replace(old: Client, withWebSocket: boolean): void {
  if (client.peek() !== old) return;
  client.value = newClient(withWebSocket);
  old.close();
}

export const client = signal<Client>(newClient(true));

/**
 * The client of the tail. A stream with a highest rate has its own connection, and a browser opens only six to a host but
 * many WebSockets; behind a proxy that refuses those it is the client of all views.
 */
export const tailClient = signal<Client>(newTailClient());

function newTailClient(): Client {
  const made = connect({ url: base.href, transport: "websocket" });
  const isRefused = signal(false);
  let wasOpen = false;
  made.on("status", (status) => {
    wasOpen ||= status === "open";
    if (status === "waiting" && !wasOpen) isRefused.value = true;
  });
  const stop = effect(() => {
    // Only if the gateway answers other requests.
    if (!isRefused.value || health.value?.status !== "open") return;
    queueMicrotask(() => {
      stop();
      if (tailClient.peek() !== made) return;
      tailClient.value = client.peek();
      made.close();
    });
  });
  return made;
}

/** Connect anew, as after a login. Views keep what they show. */
export function reconnect(): void {
  const [old, tail] = [client.peek(), tailClient.peek()];
  batch(() => {
    refusal.value = null;
    health.value = null;
    replace(old, true);
    tailClient.value = newTailClient();
  });
  tail.close();
}

/**
 * Watch a value of the client while the component is mounted.
 *
 * @param make returns the watch, or null for none. It is called again when `key` or the client changes.
 * @param key what the watch is about. The value of another key is dropped; a new client's replaces it.
 */
export function useWatch<T>(make: (client: Client) => Watch<T> | null, key: string): Known<T> {
  const [shown, show] = useState<{ readonly key: string; readonly known: Known<T> }>();
  const latest = useRef(make);
  latest.current = make;
  const current = client.value;
  useEffect(() => {
    let watch: Watch<T> | null;
    try {
      watch = latest.current(current);
    } catch (error) {
      return show({ key, known: { value: null, status: "error", error: error as Error } });
    }
    if (!watch) return;
    const watched = watch;
    const update = (): void =>
      show((before) => {
        const { known } = watched;
        const keeps = known.status === "loading" && before?.key === key && before.known.value !== null;
        return keeps ? before : { key, known };
      });
    const stop = watched.subscribe(update);
    return () => {
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
  const current = client.value;
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
      if (document.hidden) document.addEventListener("visibilitychange", again, { once: true });
      else if (!isOver) void load();
    };
    void load();
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, [key, current, everySeconds]);
  return shown?.key === key ? shown.fetched : { value: null, error: null, isLoading: path !== null };
}
