/** What the client uses of the world around it, beside `fetch` and `WebSocket`, which are options. */

export const nothing = (): void => {};

/** Milliseconds on a clock that only goes forward. */
export const nowMs = (): number => performance.now();

/** Call once later; return what prevents that. No timer is left when a client has no watches any more. */
export function after(delayMs: number, call: () => void): () => void {
  const timer = setTimeout(call, delayMs);
  return () => clearTimeout(timer);
}

/** Call what a user gave us: what it throws is reported like any error that nobody caught, and harms nobody. */
export function guarded<A>(call: (told: A) => void, told: A): void {
  try {
    call(told);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
