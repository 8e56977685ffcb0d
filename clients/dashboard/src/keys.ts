/** The keys of the dashboard. The table is the sheet of `?`: a key that it does not have cannot be handled. */
import { useEffect, useRef } from "preact/hooks";

/** Each key with what it does. `group` orders the sheet. */
export const KEYS = [
  { id: "search", keys: ["/", "Ctrl+K"], what: "Search", group: "Everywhere" },
  { id: "overview", keys: ["1"], what: "Overview", group: "Everywhere" },
  { id: "live", keys: ["2"], what: "Live", group: "Everywhere" },
  { id: "tasks", keys: ["3"], what: "Tasks", group: "Everywhere" },
  { id: "workflows", keys: ["4"], what: "Workflows", group: "Everywhere" },
  { id: "workers", keys: ["5"], what: "Workers", group: "Everywhere" },
  { id: "escape", keys: ["Esc"], what: "Close the panel, then the selection, then the filter", group: "Everywhere" },
  { id: "sheet", keys: ["?"], what: "This sheet", group: "Everywhere" },
  { id: "next", keys: ["j", "↓"], what: "Next row", group: "Lists" },
  { id: "previous", keys: ["k", "↑"], what: "Previous row", group: "Lists" },
  { id: "open", keys: ["Enter"], what: "Open the row", group: "Lists" },
  { id: "openTab", keys: ["o"], what: "Open the row in a new tab", group: "Lists" },
  { id: "failure", keys: ["f"], what: "Next failure", group: "Lists" },
  { id: "hold", keys: ["Space"], what: "Hold or follow", group: "Lists" },
  { id: "workflow", keys: ["w"], what: "The workflow of the task", group: "Tasks" },
  { id: "copyId", keys: ["y"], what: "Copy the id", group: "Tasks" },
  { id: "copyCurl", keys: ["c"], what: "Copy as a curl command", group: "Tasks" },
  { id: "back", keys: ["["], what: "Earlier", group: "Time" },
  { id: "forth", keys: ["]"], what: "Later", group: "Time" },
] as const;

export type KeyId = (typeof KEYS)[number]["id"];
/** Returns `false` if it has nothing to do; then an outer handler is called, or the browser's own action happens. */
export type KeyHandler = (event: KeyboardEvent) => unknown;
export type KeyHandlers = { readonly [id in KeyId]?: KeyHandler };

const NAMES: { readonly [key: string]: string } = { ArrowDown: "↓", ArrowUp: "↑", Escape: "Esc", " ": "Space" };
const IDS = new Map<string, KeyId>(KEYS.flatMap(({ id, keys }) => keys.map((key) => [key, id] as const)));

/** Return which key of the table was pressed. Pure. */
export function keyOf(event: Pick<KeyboardEvent, "key" | "ctrlKey" | "metaKey" | "altKey">): KeyId | undefined {
  const { key, ctrlKey, metaKey, altKey } = event;
  if (altKey) return undefined;
  if (ctrlKey || metaKey) return key.toLowerCase() === "k" ? "search" : undefined;
  return IDS.get(NAMES[key] ?? key);
}

const stack: { readonly current: KeyHandlers }[] = [];

/** Handle keys while the component is mounted. The component that was mounted last is asked first. */
export function useKeys(handlers: KeyHandlers): void {
  const ref = useRef(handlers);
  ref.current = handlers;
  useEffect(() => {
    stack.push(ref);
    return () => void stack.splice(stack.indexOf(ref), 1);
  }, []);
}

/** Listen to the keys of the page. They are off in fields, and with modifiers. */
export function listenToKeys(): void {
  addEventListener("keydown", (event) => {
    const id = keyOf(event);
    if (!id || event.defaultPrevented) return;
    if (document.querySelector("dialog:modal")) return; // it has its own keys
    const target = event.target as Element;
    const isField = !!target.closest?.("input, textarea, select, [contenteditable]");
    if (isField && id !== "escape" && !event.ctrlKey && !event.metaKey) return;
    if ((id === "open" || id === "hold") && target.closest?.("a, button, summary, [role=tab]")) return;
    for (let index = stack.length - 1; index >= 0; index--) {
      const handler = stack[index]!.current[id];
      if (!handler || handler(event) === false) continue;
      event.preventDefault();
      return;
    }
  });
}
