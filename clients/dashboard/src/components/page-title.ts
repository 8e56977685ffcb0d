/** The title and the icon of the document: new failures while the tab is hidden, and the status. */
import { useEffect, useState } from "preact/hooks";
import { client } from "../gateway.ts";
import { documentTitle, type Shown } from "../status.ts";
import { use } from "../store.ts";

const COLOURS = { ok: "%233f9a58", quiet: "%2377808a", warn: "%23d39a2b", bad: "%23d2453c" } as const;
const SHAPES = { ok: "<circle cx='4' cy='4' r='3' ", quiet: "<circle cx='4' cy='4' r='3' ", warn: "<path d='M4 1 7.5 7H.5z' ", bad: "<path d='M1 1h6v6H1z' " } as const;

export function usePageTitle(name: string, level: Shown["level"]): void {
  const failures = useNewFailures();
  useEffect(() => {
    document.title = documentTitle(name, failures, level);
  }, [name, failures, level]);
  useEffect(() => {
    const icon = document.getElementById("icon") as HTMLLinkElement;
    icon.href = `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'>${SHAPES[level]}fill='${COLOURS[level]}'/></svg>`;
  }, [level]);
}

/** Return the number of tasks that have failed since the tab was hidden; 0 while it is visible. */
function useNewFailures(): number {
  const [failures, setFailures] = useState(0);
  const current = use(client);
  useEffect(() => {
    let stop: (() => void) | undefined;
    const look = (): void => {
      stop?.();
      stop = undefined;
      if (document.hidden) stop = current.events({ type: "task-failed" }).subscribe(() => setFailures((before) => before + 1));
      else setFailures(0);
    };
    look();
    document.addEventListener("visibilitychange", look);
    return () => {
      stop?.();
      document.removeEventListener("visibilitychange", look);
    };
  }, [current]);
  return failures;
}
