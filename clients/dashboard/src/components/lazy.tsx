/** Components whose code is loaded when they are shown first. */
import { type ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";

/** Return a component that is empty until its code is loaded. */
export function lazy<P extends object>(load: () => Promise<ComponentType<P>>): ComponentType<P> {
  let loaded: ComponentType<P> | undefined;
  return function Lazy(props: P) {
    const [, show] = useState(!!loaded);
    useEffect(() => {
      if (!loaded) void load().then((component) => show(!!(loaded = component)));
    }, []);
    const Loaded = loaded;
    return Loaded ? <Loaded {...props} /> : null;
  };
}
