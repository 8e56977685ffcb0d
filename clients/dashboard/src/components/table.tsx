/** A table of rows of one height: sortable, one stop of the tab key, with only the rows in sight in the page. */
import { Component, type ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { useKeys } from "../keys.ts";
import { base, go } from "../navigation.ts";
import { parseRoute } from "../route.ts";
import { InRow } from "./link.tsx";

export interface Column<T> {
  readonly key: string;
  readonly label: ComponentChildren;
  readonly cell: (row: T) => ComponentChildren;
  /** The width, such as `8rem`; without it the column takes a share of what is left. */
  readonly width?: string;
  /** Numbers are aligned to the right. */
  readonly isNumber?: boolean;
  /** 1 (default): always; 2: from 600 px; 3: from 900 px; 4: from 1,200 px. */
  readonly from?: 1 | 2 | 3 | 4;
  /** The key that `onSort` gets; without it the column cannot be sorted. */
  readonly sort?: string;
  readonly title?: string;
}

export interface TableProps<T> {
  readonly label: string;
  readonly columns: readonly Column<T>[];
  readonly rows: readonly T[];
  readonly rowKey: (row: T) => string;
  /** The address that Enter, a double click and `o` open. */
  readonly href?: ((row: T) => string | null) | undefined;
  readonly sort?: { readonly key: string; readonly descending: boolean } | undefined;
  readonly onSort?: ((key: string, descending: boolean) => void) | undefined;
  readonly selected?: string | null;
  /** Is called with a row's key on a click on it, and with null on Escape. */
  readonly onSelect?: ((key: string | null) => void) | undefined;
  readonly rowClass?: ((row: T) => string) | undefined;
  /** Whether `f` jumps to this row. */
  readonly isFailure?: ((row: T) => boolean) | undefined;
}

/** Above this many rows, only those in sight are in the page. */
const ALL = 200;
const OVERSCAN = 20;

export function DataTable<T>(props: TableProps<T>) {
  const { label, columns, rows, rowKey, href, sort, onSort, selected, onSelect, rowClass, isFailure } = props;
  const table = useRef<HTMLTableElement>(null);
  const [focused, setFocused] = useState<string | null>(null);
  const [from, to, height] = useVisible(table, rows.length);
  const at = Math.max(0, focused === null ? 0 : rows.findIndex((row) => rowKey(row) === focused));

  const hasFocus = (): boolean => !!table.current?.contains(document.activeElement);
  const focusRow = (index: number): void => {
    const row = rows[index];
    if (row === undefined) return;
    setFocused(rowKey(row));
    const focus = (): boolean => {
      const found = table.current?.querySelector<HTMLElement>(`tr[aria-rowindex="${index + 2}"]`);
      found?.focus({ preventScroll: true });
      found?.scrollIntoView({ block: "nearest" });
      return !!found;
    };
    if (focus()) return;
    const top = (table.current?.getBoundingClientRect().top ?? 0) + scrollY;
    scrollTo({ top: top + index * height - innerHeight / 2 });
    requestAnimationFrame(() => requestAnimationFrame(focus));
  };
  useLayoutEffect(() => {
    if (!history.state) return;
    const [top, key] = history.state; // of `go`
    history.replaceState(null, "");
    scrollTo(0, top);
    focusRow(rows.findIndex((row) => rowKey(row) === key));
  }, []);
  const step = (by: number) => () => {
    const isInside = hasFocus();
    if (!rows.length || !(isInside || isFirst(table.current))) return false;
    focusRow(Math.min(rows.length - 1, Math.max(0, isInside ? at + by : at)));
    return true;
  };
  /** Act on the address of the row with the focus. */
  const opened = (act: (target: URL) => unknown) => () => {
    const target = hasFocus() && rows[at] !== undefined && href?.(rows[at]!);
    return target ? act(new URL(target, base)) : false;
  };
  useKeys({
    next: step(1),
    previous: step(-1),
    open: opened((target) => go(parseRoute(target, base))),
    openTab: opened((target) => void open(target, "_blank", "noopener")),
    failure: () => {
      if (!isFailure) return false;
      const start = hasFocus() ? at + 1 : 0;
      const found = [...rows.keys()].map((index) => (index + start) % rows.length).find((index) => isFailure(rows[index]!));
      return found === undefined ? false : focusRow(found);
    },
    escape: () => (selected != null && onSelect ? onSelect(null) : false),
  });

  return (
    <table ref={table} class="table" role="grid" aria-label={label} aria-rowcount={rows.length + 1}>
      <thead>
        <tr aria-rowindex={1}>
          {columns.map((column) => (
            <th key={column.key} scope="col" class={classOf(column)} title={column.title} style={column.width ? { inlineSize: column.width } : undefined}
              aria-sort={sort && column.sort === sort.key ? (sort.descending ? "descending" : "ascending") : undefined}>
              {column.sort && onSort ? (
                <button type="button" class="plain" onClick={() => onSort(column.sort!, sort?.key === column.sort ? !sort!.descending : true)}>
                  {column.label}
                  <span aria-hidden="true">{sort?.key === column.sort ? (sort!.descending ? " ▾" : " ▴") : ""}</span>
                </button>
              ) : column.label}
            </th>
          ))}
        </tr>
      </thead>
      <tbody onFocusIn={(event) => setFocused(keyAt(event))}
        onClick={onSelect && ((event: Event) => !(event.target as Element).closest("a, button, .spacer") && onSelect(keyAt(event)))}>
        {from > 0 && <tr aria-hidden="true" class="spacer"><td colSpan={columns.length} style={{ blockSize: `${from * height}px` }} /></tr>}
        <InRow.Provider value={true}>
          {rows.slice(from, to).map((row, offset) => {
            const key = rowKey(row);
            const index = from + offset;
            return (
              <TableRow key={key} name={key} row={row} columns={columns} index={index + 2} isStop={index === at}
                isSelected={onSelect ? key === selected : undefined} class={rowClass?.(row)} />
            );
          })}
        </InRow.Provider>
        {to < rows.length && <tr aria-hidden="true" class="spacer"><td colSpan={columns.length} style={{ blockSize: `${(rows.length - to) * height}px` }} /></tr>}
      </tbody>
    </table>
  );
}

interface RowProps {
  readonly name: string;
  readonly row: unknown;
  readonly columns: readonly Column<never>[];
  readonly index: number;
  readonly isStop: boolean;
  readonly isSelected: boolean | undefined;
  readonly class: string | undefined;
}

/** A row: rendered again only if it has changed. */
class TableRow extends Component<RowProps> {
  override shouldComponentUpdate(next: RowProps): boolean {
    return (Object.keys(next) as (keyof RowProps)[]).some((name) => next[name] !== this.props[name]);
  }

  override render({ name, row, columns, index, isStop, isSelected, class: className }: RowProps) {
    return (
      <tr data-key={name} aria-rowindex={index} tabIndex={isStop ? 0 : -1} aria-selected={isSelected} class={className}>
        {columns.map((column) => <td key={column.key} class={classOf(column)}>{column.cell(row as never)}</td>)}
      </tr>
    );
  }
}

/** Return the key of the row of an event. */
function keyAt({ target }: Event): string {
  return (target as Element).closest<HTMLElement>("tr")!.dataset["key"]!;
}

function classOf({ isNumber, from }: Column<never>): string | undefined {
  return [isNumber && "number", from && from > 1 && `from-${from}`].filter(Boolean).join(" ") || undefined;
}

/** Return whether a table takes `j` and `k` because none has the focus: the first of the page. */
function isFirst(table: HTMLTableElement | null): boolean {
  return !document.activeElement?.closest("table.table") && document.querySelector("main table.table") === table;
}

/** Return the first row in sight, the one after the last, and the height of a row in pixels. */
function useVisible(table: { readonly current: HTMLTableElement | null }, count: number): readonly [number, number, number] {
  const [range, setRange] = useState<readonly [number, number, number]>([0, ALL, 24]);
  const isLong = count > ALL;
  useLayoutEffect(() => {
    if (!isLong) return;
    const look = (): void => {
      const body = table.current?.tBodies[0];
      if (!body) return;
      const height = body.querySelector("tr:not(.spacer)")?.getBoundingClientRect().height || 24;
      const top = -body.getBoundingClientRect().top;
      const first = Math.max(0, Math.floor(top / height) - OVERSCAN);
      const last = Math.ceil((top + innerHeight) / height) + OVERSCAN;
      setRange((before) => {
        const isNear = Math.abs(before[0] - first) < OVERSCAN / 2 && Math.abs(before[1] - last) < OVERSCAN / 2;
        return isNear && before[2] === height ? before : [first, Math.max(first + 1, last), height];
      });
    };
    look();
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look);
    return () => {
      removeEventListener("scroll", look);
      removeEventListener("resize", look);
    };
  }, [isLong]);
  if (!isLong) return [0, count, 24];
  const to = Math.min(count, range[1]);
  return [Math.max(0, Math.min(range[0], to - 1)), to, range[2]];
}
