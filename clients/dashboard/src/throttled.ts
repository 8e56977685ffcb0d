/** Calls that come at most so often, for what is expensive to draw. */

export interface Paced {
  /** Call now, or at the end of the pause. */
  (): void;
  /** Drop the call that waits. */
  cancel(): void;
}

/**
 * Return a function that calls another one soon, and again only after a pause.
 *
 * @param pauseMs returns the milliseconds between two calls; 0: each call at once.
 */
export function paced(call: () => void, pauseMs: () => number): Paced {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let lastMs = -Infinity;
  const run = (): void => {
    timer = undefined;
    lastMs = performance.now();
    call();
    lastMs = performance.now(); // the pause is that of the browser: it begins after the work
  };
  const ask = (): void => {
    if (timer !== undefined) return;
    const pause = pauseMs();
    // Not in the task of what has changed: each of them is shorter.
    if (pause) timer = setTimeout(run, Math.max(0, lastMs + pause - performance.now()));
    else run();
  };
  const cancel = (): void => {
    clearTimeout(timer);
    timer = undefined;
  };
  return Object.assign(ask, { cancel });
}
