/** What the client uses of the world around it, beside `fetch` and `WebSocket`, which are options. */

export const nothing = (): void => {};

/** Milliseconds on a clock that only goes forward. */
export const nowMs = (): number => performance.now();

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
