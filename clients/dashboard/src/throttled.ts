/** A value that changes at most so often, for what is expensive to draw. */
import { useEffect, useRef, useState } from "preact/hooks";

/**
 * Return the newest value, at most once in some milliseconds, and in time with the browser's frames.
 *
 * @param key what the value is about: another key shows its value at once.
 */
export function useThrottled<T>(value: T, pauseMs: number, key: string): T {
  const [shown, show] = useState({ value, key });
  const last = useRef(0);
  const newest = useRef({ value, key });
  newest.current = { value, key };
  const isBehind = shown.value !== value || shown.key !== key;
  useEffect(() => {
    if (!isBehind) return;
    let frame = 0;
    const timer = setTimeout(() => {
      frame = requestAnimationFrame(() => {
        last.current = performance.now();
        show(newest.current);
      });
    }, Math.max(0, last.current + pauseMs - performance.now()));
    return () => {
      clearTimeout(timer);
      cancelAnimationFrame(frame);
    };
  }, [isBehind]);
  return shown.key === key ? shown.value : value;
}
