/** The width of an element, as it changes. */
import { useCallback, useRef, useState } from "preact/hooks";

/**
 * Return a function to set as `ref` of an element, and the element's inner width in pixels.
 *
 * @param initial the width before the element is laid out.
 */
export function useWidth(initial: number): readonly [(element: Element | null) => void, number] {
  const [width, setWidth] = useState(initial);
  const observer = useRef<ResizeObserver | null>(null);
  const ref = useCallback((element: Element | null) => {
    observer.current?.disconnect();
    observer.current = null;
    if (!element) return;
    observer.current = new ResizeObserver(([entry]) => {
      if (entry?.contentRect.width) setWidth(Math.floor(entry.contentRect.width));
    });
    observer.current.observe(element);
  }, []);
  return [ref, width];
}
