/** Parts of views: the root element, panels, tabs, and what is shown instead of contents. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { asksForToken } from "../gateway.ts";
import { useKeys } from "../keys.ts";
import { visible } from "../text.ts";

export interface ViewProps {
  readonly name: string;
  readonly state: "loading" | "ready" | "empty" | "error";
  readonly title: ComponentChildren;
  /** Beside the title. */
  readonly tools?: ComponentChildren;
  readonly children: ComponentChildren;
}

/** The root element of each view, `<main>`, with its heading. */
export function ViewFrame({ name, state, title, tools, children }: ViewProps) {
  return (
    <main id="main" data-view={name} data-state={state} tabIndex={-1} aria-busy={state === "loading"}>
      <div class="view-head">
        <h1>{title}</h1>
        {tools && <div class="tools">{tools}</div>}
      </div>
      {children}
    </main>
  );
}

/** Move the focus to the view, such as after a search. */
export function focusMain(): void {
  document.getElementById("main")?.focus({ preventScroll: true });
}

export interface EmptyProps {
  /** One sentence: what is empty, and why. */
  readonly title: ComponentChildren;
  /** What to do. */
  readonly children?: ComponentChildren;
}

export function Empty({ title, children }: EmptyProps) {
  return (
    <div class="empty">
      <p class="empty-title">{title}</p>
      {children}
    </div>
  );
}

/** What to do without a worker. */
export function StartWorker() {
  return (
    <>
      <p>A worker appears with its first event, and its tasks with theirs. Start one that sends events of tasks:</p>
      <pre>celery -A proj worker -E</pre>
      <p>If one runs already, this prints what keeps its events from arriving, and how to fix it:</p>
      <pre>celery-gateway check --broker URL</pre>
    </>
  );
}

export interface ErrorBoxProps {
  readonly error: Error | string;
  readonly children?: ComponentChildren;
}

/** An error of the gateway or of the page, in its own words. */
export function ErrorBox({ error, children }: ErrorBoxProps) {
  if (asksForToken(error)) return null;
  return (
    <div class="error-box" role="alert">
      <p><bdi>{visible(typeof error === "string" ? error : error.message)}</bdi></p>
      {children}
    </div>
  );
}

/** Rows without contents, while the first answer is awaited. */
export function Skeleton({ rows = 6 }: { readonly rows?: number }) {
  return (
    <div class="skeleton" aria-hidden="true">
      {Array.from({ length: rows }, (_, index) => <div key={index} />)}
    </div>
  );
}

export interface CopyButtonProps {
  readonly text: string;
  readonly label?: string;
}

export function CopyButton({ text, label = "Copy" }: CopyButtonProps) {
  const [result, setResult] = useState("");
  useEffect(() => {
    if (!result) return;
    const timer = setTimeout(() => setResult(""), 1_500);
    return () => clearTimeout(timer);
  }, [result]);
  return (
    <button type="button" class="copy" onClick={() => void copy(text).then((isDone) => setResult(isDone ? "Copied" : "Not copied"))}>
      {result || label}
    </button>
  );
}

/** Copy a text; return whether it worked. Without HTTPS a browser has no clipboard of its own. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "visually-hidden";
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    return isDone;
  }
}

export interface PanelProps {
  readonly label: string;
  readonly onClose: () => void;
  readonly children: ComponentChildren;
}

/** A panel at the side, at the bottom on a phone. Escape closes it, and gives the focus back. */
export function Panel({ label, onClose, children }: PanelProps) {
  const ref = useRef<HTMLElement>(null);
  useKeys({ escape: onClose });
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    return () => {
      if (ref.current?.contains(document.activeElement) ?? true) before?.focus?.();
    };
  }, []);
  return (
    <aside class="panel" aria-label={label} ref={ref}>
      <button type="button" class="panel-close" aria-label="Close the panel" onClick={onClose}>✕</button>
      {children}
    </aside>
  );
}

export interface TabsProps {
  readonly label: string;
  readonly tabs: readonly { readonly id: string; readonly label: ComponentChildren }[];
  readonly current: string;
  readonly onChange: (id: string) => void;
  readonly children: ComponentChildren;
}

/** Tabs and the contents of the current one. Arrow keys change the tab. */
export function Tabs({ label, tabs, current, onChange, children }: TabsProps) {
  const list = useRef<HTMLDivElement>(null);
  const move = (event: KeyboardEvent): void => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = (tabs.findIndex(({ id }) => id === current) + step + tabs.length) % tabs.length;
    onChange(tabs[at]!.id);
    (list.current?.children[at] as HTMLElement | undefined)?.focus();
  };
  return (
    <>
      <div class="tabs" role="tablist" aria-label={label} ref={list} onKeyDown={move}>
        {tabs.map(({ id, label }) => (
          <button key={id} type="button" role="tab" id={`tab-${id}`} aria-selected={id === current} aria-controls={id === current ? "tab-panel" : undefined}
            tabIndex={id === current ? 0 : -1} onClick={() => onChange(id)}>
            {label}
          </button>
        ))}
      </div>
      <div role="tabpanel" id="tab-panel" aria-labelledby={`tab-${current}`}>{children}</div>
    </>
  );
}
