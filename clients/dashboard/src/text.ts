/** Texts of events, which are untrusted, as texts for people. Pure. */

/** Characters that reverse, hide or break text: controls and formats, such as U+202E. Not tab, line feed and joiners. */
const HIDDEN = /(?![\n\t\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

const PLAIN = /^[\n\t\x20-\x7e]*$/;

/** Return a text with characters that reverse, hide or break text as escapes. */
export function visible(text: string): string {
  if (PLAIN.test(text)) return text;
  return text.replace(HIDDEN, (found) => `\\u{${found.codePointAt(0)!.toString(16)}}`);
}

/** Return a JSON value as text: a string as it is, `""` for null and undefined. */
export function asText(value: unknown): string {
  return typeof value === "string" ? value : value == null ? "" : JSON.stringify(value) ?? "";
}

/** Return an exception as text: of Celery's `ExceptionWithTraceback()`, which has no details, the last line of the traceback. */
export function exceptionText(record: object): string {
  const { exception, traceback } = record as { readonly exception?: unknown; readonly traceback?: unknown };
  const text = asText(exception);
  if (typeof traceback !== "string" || !/^ExceptionWithTraceback\(/.test(text)) return text;
  const whole = traceback.trimEnd();
  return whole.slice(whole.lastIndexOf("\n") + 1) || text;
}

/** Return a text of at most `max` characters; a cut one ends with `…`. */
export function cut(text: string, max: number): string {
  return text.length <= max ? text : `${text.slice(0, max - 1).replace(/[\ud800-\udbff]$/, "")}…`;
}

/** Return a UUID's first eight digits; other ids whole. */
export function shortId(id: string): string {
  return id.replace(/^([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i, "$1");
}

const grouped = new Intl.NumberFormat("en");

/** Return a count with groups of digits: `12,345`. */
export function count(value: number): string {
  return grouped.format(value);
}

/** Return `1 task`, `2 tasks`. */
export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** Return a part of a whole as percent with at most one decimal; `–` of nothing. */
export function percent(part: number, whole: number): string {
  if (!whole) return "–";
  const value = (100 * part) / whole;
  return `${value && value < 9.95 ? Math.max(0.1, Number(value.toFixed(1))) : Math.round(value)} %`;
}

/** Return a rate a second: `142/s`, `0.4/s`, `9/min`. */
export function rate(perSecond: number): string {
  if (!perSecond) return "0/s";
  if (perSecond >= 9.95) return `${count(Math.round(perSecond))}/s`;
  if (perSecond >= 0.95) return `${perSecond.toFixed(1).replace(/\.0$/, "")}/s`;
  return `${Number((perSecond * 60).toPrecision(2))}/min`;
}
