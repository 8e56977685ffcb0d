/**
 * The rows of the tail, as plain DOM: rows are reused, and only those in sight are in the page. The newest row is on top.
 *
 * The list follows: new rows push the others down. It holds while the pointer is over it, a row is selected, it is
 * scrolled, or it was told to: then nothing moves, and new rows are counted.
 */
import { pointerMoves } from "../pointer.ts";
import type { Entry, TailBuffer, TailCallbacks, TailState } from "../tail.ts";
import { cut, visible } from "../text.ts";
import { newRow, type Row, writeRow } from "./tail-row.ts";

/** Milliseconds between two updates; after one with many new rows, which nobody can read in between. */
const DRAW_MS = 100;
const BUSY_DRAW_MS = 250;
const MANY_ROWS = 8;
const OVERSCAN = 3;
const MAX_PLACE = 50_000;
export class TailList {
  readonly #rows: Row[] = [];
  /** As high as all rows. */
  readonly #body = document.createElement("div");
  /** Moves all rows at once: each row has its place for as long as it shows the same entry. */
  readonly #mover = document.createElement("div");
  #origin = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #drawnAt = 0;
  /** Rows that the last update has written. */
  #written = 0;
  #isPointerOver = false;
  #isTold = false;
  #selected: Entry | undefined;
  #rowHeight = 24;
  #state: TailState = { isHeld: false, unseen: 0 };

  constructor(readonly root: HTMLElement, readonly buffer: TailBuffer, readonly isUtc: () => boolean, readonly callbacks: TailCallbacks) {
    this.#body.className = "tail-body";
    this.#mover.className = "tail-mover";
    this.#mover.role = "rowgroup";
    this.#body.append(this.#mover);
    root.append(this.#body);
    root.addEventListener("scroll", this.#onScroll, { passive: true });
    this.#body.addEventListener("pointermove", this.#onPointer);
    this.#body.addEventListener("pointerleave", this.#onPointer);
    this.#body.addEventListener("click", this.#onClick);
    this.#resizes.observe(root);
  }

  readonly #resizes = new ResizeObserver(() => this.draw());

  /** Draw soon. */
  schedule(): void {
    if (this.#timer !== undefined) return;
    const wait = Math.max(0, this.#drawnAt + (this.#written > MANY_ROWS ? BUSY_DRAW_MS : DRAW_MS) - performance.now());
    this.#timer = setTimeout(() => requestAnimationFrame(() => this.draw()), wait);
  }

  /** Draw the rows in sight now. */
  draw(): void {
    if (!this.#body.isConnected) return; // it is closed
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#drawnAt = performance.now();
    this.#written = 0;
    this.#hold();
    const { buffer, root } = this;
    const end = this.#end;
    const total = Math.max(0, end - buffer.first);
    this.#measure(end);
    this.#mover.style.transform = `translateY(${(end - 1 - this.#origin) * this.#rowHeight}px)`;
    const height = `${total * this.#rowHeight}px`;
    if (this.#body.style.blockSize !== height) this.#body.style.blockSize = height;
    const from = Math.max(0, Math.floor(root.scrollTop / this.#rowHeight) - OVERSCAN);
    const shown = Math.min(total - from, Math.ceil(root.clientHeight / this.#rowHeight) + 2 * OVERSCAN);
    this.#fill(from, Math.max(0, shown), end);
    root.ariaRowCount = String(total + 1);
    this.#report(end);
  }

  /** Draw all rows again, such as after the filter has changed. */
  reset(): void {
    this.select(null);
    this.#isTold = false;
    this.buffer.release();
    for (const row of this.#rows) row.entry = undefined;
    this.root.scrollTop = 0;
    this.draw();
  }

  /** Hold, or follow again: then the newest row is in sight. */
  hold(isTold: boolean): void {
    this.#isTold = isTold;
    if (!isTold) {
      this.#isPointerOver = false;
      this.select(null);
      this.root.scrollTop = 0;
    }
    this.draw();
  }

  /** Select a row, or none; it gets the focus if it is asked for. */
  select(entry: Entry | null, withFocus = false): void {
    if (this.#selected !== (entry ?? undefined)) {
      this.#selected = entry ?? undefined;
      this.callbacks.selected(entry);
    }
    if (!entry) return this.draw();
    this.#hold();
    this.#scrollTo(entry);
    this.draw();
    if (withFocus) this.#rows.find((row) => row.entry === entry)?.element.focus({ preventScroll: true });
  }

  /** Select the next row of some kind, older (1) or newer (-1) than the selected one. */
  step(by: 1 | -1, isWanted: (entry: Entry) => boolean = () => true): boolean {
    const newest = this.#end - 1;
    const begin = this.#selected ? this.#selected.seq - by : newest;
    for (let seq = begin; seq >= this.buffer.first && seq <= newest; seq -= by) {
      const entry = this.buffer.at(seq);
      if (entry?.kind !== "event" || !isWanted(entry)) continue;
      this.select(entry, true);
      return true;
    }
    return false;
  }

  get selected(): Entry | undefined {
    return this.#selected;
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#resizes.disconnect();
    this.#body.remove();
    this.root.removeEventListener("scroll", this.#onScroll);
  }

  get #end(): number {
    return this.buffer.heldEnd ?? this.buffer.end;
  }

  /** Begin or end to hold. */
  #hold(): void {
    const mayMove = !this.#isTold && !this.#isPointerOver && !this.#selected && this.root.scrollTop < 2;
    if (mayMove) this.buffer.release();
    else this.buffer.hold();
  }

  #report(end: number): void {
    const state = { isHeld: this.buffer.heldEnd !== undefined, unseen: this.buffer.end - end };
    if (state.isHeld === this.#state.isHeld && state.unseen === this.#state.unseen) return;
    this.#state = state;
    this.callbacks.changed(state);
  }

  /** Show the rows `from` to `from + shown`, counted from the newest; rows that show them already stay as they are. */
  #fill(from: number, shown: number, end: number): void {
    while (this.#rows.length < shown) this.#rows.push(newRow(this.#mover));
    const isUtc = this.isUtc();
    const free: Row[] = [];
    const taken = new Map<Entry, Row>();
    const last = end - 1 - from;
    for (const row of this.#rows) {
      const { entry } = row;
      if (entry && entry.seq <= last && entry.seq > last - shown && this.buffer.at(entry.seq) === entry) taken.set(entry, row);
      else free.push(row);
    }
    for (let index = from; index < from + shown; index++) {
      const entry = this.buffer.at(end - 1 - index);
      if (!entry) continue;
      const row = taken.get(entry) ?? free.pop()!;
      if (row.entry !== entry) {
        this.#written++;
        writeRow(row, entry, isUtc);
      }
      this.#place(row, index);
    }
    for (const row of free) {
      if (!row.element.hidden) row.element.hidden = true;
      row.entry = undefined;
      row.place = NaN;
    }
  }

  /** Measure a row, and begin with other places if those are far from the origin: browsers have no huge coordinates. */
  #measure(end: number): void {
    const height = this.#rows.find((row) => !row.element.hidden)?.element.offsetHeight || this.#rowHeight;
    if (height === this.#rowHeight && Math.abs(end - this.#origin) < MAX_PLACE) return;
    this.#rowHeight = height;
    this.#origin = end;
    for (const row of this.#rows) row.place = NaN;
  }

  #place(row: Row, index: number): void {
    const { element, entry } = row;
    const place = entry!.seq - this.#origin;
    if (row.place !== place) {
      row.place = place;
      element.style.transform = `translateY(${-place * this.#rowHeight}px)`;
    }
    const isSelected = entry === this.#selected;
    if ((element.ariaSelected === "true") !== isSelected) element.ariaSelected = String(isSelected);
    const tabIndex = isSelected || (!this.#selected && index === 0) ? 0 : -1;
    if (element.tabIndex !== tabIndex) element.tabIndex = tabIndex;
  }

  #scrollTo(entry: Entry): void {
    const top = (this.#end - 1 - entry.seq) * this.#rowHeight;
    const { root } = this;
    const bottom = root.scrollTop + root.clientHeight - this.#rowHeight;
    if (top < root.scrollTop) root.scrollTop = top;
    else if (top > bottom - this.#rowHeight) root.scrollTop = top - root.clientHeight + 2 * this.#rowHeight;
  }

  #rowOf(target: EventTarget | null): Row | undefined {
    const element = (target as Element | null)?.closest?.(".tail-row");
    return this.#rows.find((row) => row.element === element);
  }

  readonly #onScroll = (): void => this.draw();

  readonly #onPointer = (event: PointerEvent): void => {
    const isMove = event.type === "pointermove";
    // A list that has moved below a resting pointer does not hold.
    if (isMove && !pointerMoves()) return;
    const row = isMove ? this.#rowOf(event.target) : undefined;
    // A touch leaves no pointer over the list.
    const isOver = !!row?.entry && event.pointerType !== "touch";
    if (row?.entry) {
      const title = visible(cut(`${row.entry.name}\n${row.entry.detail}`, 1_000)).trim();
      if (row.element.title !== title) row.element.title = title;
    }
    if (isOver === this.#isPointerOver) return;
    this.#isPointerOver = isOver;
    this.draw();
  };

  readonly #onClick = (event: MouseEvent): void => {
    const entry = this.#rowOf(event.target)?.entry;
    const target = event.target as Element;
    if (entry?.kind !== "event" || target.closest("a[href]")) return;
    const cell = (["type", "name", "state", "hostname"] as const).find((cell) => target.closest(`bdi`)?.parentElement?.classList.contains(cell));
    if (cell && entry[cell]) this.callbacks.filtered(cell, entry[cell], event.altKey);
    else this.select(entry === this.#selected ? null : entry, true);
  };
}
