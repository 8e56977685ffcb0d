/** Which rows of a changing list are shown while it is held. Pure. */

export interface Hold<T> {
  readonly rows: readonly T[];
  /** The keys of the rows, in order. */
  readonly keys: readonly string[];
  /** How many new rows are not shown. */
  readonly waiting: number;
  /** Whether rows are shown that the list no longer has. */
  readonly hasLeft: boolean;
  /** How many rows events had added to the list when the hold began. */
  readonly since: number;
}

/**
 * Return the rows to show: those that were shown, in their order and with their new values, then rows of the list after
 * the last one of them. Rows that have left the list stay.
 *
 * @param before the hold before this one; null: show all.
 * @param arrived how many rows events have added to the list so far.
 * @param others current values of rows that have left the list.
 */
export function hold<T>(
  before: Hold<T> | null,
  list: readonly T[],
  arrived: number,
  keyOf: (row: T) => string,
  others: readonly T[] = [],
): Hold<T> {
  const listed = list.map(keyOf);
  if (!before?.keys.length) return { rows: list, keys: listed, waiting: 0, hasLeft: false, since: arrived };
  const current = new Map<string, T>(others.map((row) => [keyOf(row), row]));
  list.forEach((row, at) => current.set(listed[at] as string, row));
  const keys = [...before.keys];
  const rows: T[] = keys.map((key, at) => (current.has(key) ? current.get(key) : before.rows[at]) as T);
  const shown = new Set(keys);
  const last = listed.reduce((place, key, at) => (shown.has(key) ? at : place), -1);
  if (last >= 0) {
    list.slice(last + 1).forEach((row, at) => {
      rows.push(row);
      keys.push(listed[last + 1 + at]!);
      shown.add(keys[keys.length - 1]!);
    });
  }
  const present = new Set(listed);
  const hidden = listed.filter((key) => !shown.has(key)).length;
  const isFull = hidden === list.length && hidden > 0; // then more rows have passed than the list has
  return {
    rows,
    keys,
    waiting: isFull ? Math.max(hidden, arrived - before.since) : hidden,
    hasLeft: before.keys.some((key) => !present.has(key)),
    since: before.since,
  };
}
