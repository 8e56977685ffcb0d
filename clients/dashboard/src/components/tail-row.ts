/** A row of the tail, as plain DOM: made once, written often. */
import { href } from "../route.ts";
import { lookOf, stateOfType } from "../states.ts";
import type { Entry } from "../tail.ts";
import { shortId, visible } from "../text.ts";
import { clock } from "../time.ts";

const CELLS = ["time", "type", "name", "state", "uuid", "root_id", "hostname", "detail"] as const;
type Cell = (typeof CELLS)[number];

export interface Row {
  readonly element: HTMLElement;
  readonly cells: { readonly [cell in Cell]: HTMLElement };
  entry: Entry | undefined;
  /** Where it is: the number of its entry, as of the list's origin. */
  place: number;
}

/** Add a row to its parent. */
export function newRow(parent: HTMLElement): Row {
  const element = document.createElement("div");
  element.role = "row";
  const cells = Object.fromEntries(
    CELLS.map((cell) => {
      const isLink = cell === "uuid" || cell === "root_id";
      const outer = document.createElement("span");
      outer.role = "cell";
      outer.className = `cell ${cell}`;
      const inner = document.createElement(isLink ? "a" : "bdi");
      if (isLink) inner.tabIndex = -1;
      inner.append("");
      outer.append(inner);
      element.append(outer);
      return [cell, inner];
    }),
  ) as unknown as Row["cells"];
  parent.append(element);
  return { element, cells, entry: undefined, place: NaN };
}

/** Show an entry in a row. */
export function writeRow(row: Row, entry: Entry, isUtc: boolean): void {
  const { element, cells } = row;
  const isEvent = entry.kind === "event";
  row.entry = entry;
  if (element.hidden) element.hidden = false;
  const { kind, shape } = lookOf(entry.type.startsWith("worker-") ? "" : stateOfType(entry.type) || entry.state);
  const className = isEvent ? `tail-row${entry.type.startsWith("worker-") ? " worker" : ` state-${kind}`}` : `tail-row tail-note ${entry.kind}`;
  if (element.className !== className) element.className = className;
  write(cells.time, isEvent ? clock(entry.time, isUtc, 3) : "");
  write(cells.type, isEvent ? `${entry.type.startsWith("worker-") ? "▪" : shape} ${entry.type}` : "");
  write(cells.name, entry.name);
  write(cells.state, entry.state);
  write(cells.hostname, entry.hostname);
  write(cells.detail, entry.detail);
  link(cells.uuid as HTMLAnchorElement, entry.uuid, "task", entry.cluster);
  link(cells.root_id as HTMLAnchorElement, entry.root_id, "workflow", entry.cluster);
}

function write(element: HTMLElement, text: string): void {
  const node = element.firstChild as Text;
  const shown = visible(text);
  if (node.data !== shown) node.data = shown;
}

function link(element: HTMLAnchorElement, id: string, view: "task" | "workflow", cluster: string): void {
  write(element, shortId(id));
  if (id) element.setAttribute("href", href({ view, id, query: cluster ? [["cluster", cluster]] : [] }));
  else element.removeAttribute("href");
}
