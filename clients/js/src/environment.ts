/** What the client uses of its environment, except `fetch` and `WebSocket`, which are options. */

export const nothing = (): void => {};

/** Milliseconds on a clock that only goes forward. */
export const nowMs = (): number => performance.now();

/** Call once after a delay; return a function that cancels it. A client without watches leaves no timer. */
export function after(delayMs: number, call: () => void): () => void {
  const timer = setTimeout(call, delayMs);
  return () => clearTimeout(timer);
}

/** Call a user's callback. Its exception is reported as uncaught and does not stop the caller. */
export function guarded<A>(call: (value: A) => void, value: A): void {
  try {
    call(value);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
