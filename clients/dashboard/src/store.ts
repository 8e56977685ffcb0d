/** Values outside of components. A component that uses one is rendered again when it changes. */
import { useLayoutEffect, useRef, useState } from "preact/hooks";

export interface Store<T> {
  value: T;
  /** Call at each change; return a function that ends it. */
  subscribe(run: (value: T) => void): () => void;
}

/** What `useComputed` needs of a store. */
interface Changing {
  subscribe(run: () => void): () => void;
}

/** Return a store. Equal values are no change. */
export function store<T>(initial: T): Store<T> {
  const readers = new Set<(value: T) => void>();
  let value = initial;
  return {
    get value() {
      return value;
    },
    set value(next) {
      if (Object.is(value, next)) return;
      value = next;
      // A reader that leaves meanwhile is not called.
      for (const run of [...readers]) if (readers.has(run)) run(value);
    },
    subscribe(run) {
      readers.add(run);
      return () => void readers.delete(run);
    },
  };
}

/**
 * Return what is computed, and render the component again when a change of a store changes it.
 *
 * @param stores what it is computed from, beside properties: always the same ones.
 */
export function useComputed<T>(compute: () => T, ...stores: readonly Changing[]): T {
  const value = compute();
  const latest = useRef({ compute, value });
  latest.current = { compute, value };
  const [, redraw] = useState({});
  useLayoutEffect(() => {
    const look = (): void => {
      const { compute, value } = latest.current;
      if (!Object.is(compute(), value)) redraw({});
    };
    const stops = stores.map((one) => one.subscribe(look));
    look(); // it may have changed since
    return () => stops.forEach((stop) => stop());
  }, []);
  return value;
}

/** Return the value of a store, and render the component again when it changes. */
export function use<T>(one: Store<T>): T {
  return useComputed(() => one.value, one);
}
