/** What the client uses of the world around it; all of it passes through here. */
import type { ClientOptions, WebSocketConstructor } from "./types.js";

export interface Environment {
  readonly fetch: typeof globalThis.fetch;
  readonly WebSocket: WebSocketConstructor | undefined;
  /** What a relative URL is relative to; undefined outside of browsers. */
  readonly baseUrl: string | undefined;
}

export function environment(options: ClientOptions): Environment {
  return {
    fetch: options.fetch ?? ((...request) => globalThis.fetch(...request)), // it wants to be called on the global
    WebSocket: options.WebSocket ?? (globalThis.WebSocket as unknown as WebSocketConstructor | undefined),
    baseUrl: globalThis.document?.baseURI ?? globalThis.location?.href,
  };
}

/** Milliseconds on a clock that only goes forward. */
export function nowMs(): number {
  return performance.now();
}

/**
 * Call once later; return what prevents that.
 *
 * @param holds in Node it keeps the process alive until then: for what a live watch waits for.
 */
export function after(delayMs: number, call: () => void, holds = false): () => void {
  const timer: unknown = setTimeout(call, delayMs);
  if (!holds) (timer as { unref?: () => void }).unref?.();
  return () => clearTimeout(timer as number);
}

/** Call whenever the browser finds a network; return what ends that. */
export function whenOnline(call: () => void): () => void {
  globalThis.addEventListener?.("online", call);
  return () => globalThis.removeEventListener?.("online", call);
}

/** Call what a user gave us: what it throws is reported like any error that nobody caught, and harms nobody. */
export function guarded<A extends unknown[]>(call: (...given: A) => void, ...given: A): void {
  try {
    call(...given);
  } catch (error) {
    const report = (globalThis as { reportError?: (error: unknown) => void }).reportError; // Node has none
    queueMicrotask(() => {
      if (!report) throw error;
      report(error);
    });
  }
}
