/**
 * Filters, by the rules of the gateway (tests/conformance/filter.json): a pattern is compared whole and case-sensitively; `*`
 * matches any text, `?` one character, and a leading `!` excludes. A backslash before `\`, `,`, `*`, `?` or `!`
 * takes that character literally. Pure.
 */
import type { Filter, FilterField } from "./types.js";
import { idText, words } from "./values.js";

/** The gateway's limits for one request; the bytes leave room for a second list, that of the snapshot. */
const enum Max {
  ALTERNATIVES = 100,
  PATTERNS = 1_000,
  GLOBS = 100,
  BYTES = 120_000,
  COMPARED = 4_096,
}
/** The beginning of a value that is compared: as many characters as in the gateway. */
const COMPARED = /^[^]{0,4096}/u;
const FIELDS = words("uuid root_id name parent_id state type hostname queue cluster");
const ESCAPED = /\\([\\,*?!])/g;

/** A filter in the form of the gateway: for each field a list of at least one pattern. */
export type Patterns = { readonly [field in FilterField]?: readonly string[] };

/** Returns whether an event passes. */
export type Matcher = (event: { readonly [field: string]: unknown }) => boolean;

/** Return the pattern that matches exactly this text. */
export function escape(text: string): string {
  return text.replace(/[\\,*?!]/g, "\\$&");
}

/**
 * Return filters in the form of the gateway.
 *
 * @param filter one filter, or several; an event has to pass any of them. An escape counts as one character.
 * @throws TypeError for an unknown field or an invalid value, RangeError for too many values.
 */
export function parse(filter: Filter | readonly Filter[]): Patterns[] {
  const filters = [filter].flat().map((alternative) => {
    const patterns: { [field: string]: string[] } = {};
    for (const [field, given] of Object.entries(alternative)) {
      if (given === undefined) continue;
      const values = (patterns[field] = [given].flat());
      if (
        !FIELDS.includes(field) ||
        !values[0] ||
        !values.every((value) => typeof value === "string" && /^(?!!?$)[^]{1,1000}$/.test(value.replace(ESCAPED, "-")))
      ) {
        throw new TypeError(`invalid ${field}=${given}: expected ${FIELDS} of 1 to 1000 characters`);
      }
    }
    return patterns;
  });
  if (fits(filters)) return filters;
  throw new RangeError("the filter is too large: at most 100 filters, 1000 values, 100 with wildcards, 120 kB");
}

/**
 * Return filters that pass what any of the watched filters passes. Those that differ in one field only are merged,
 * unless they exclude values of this field.
 */
export function union(watched: readonly { readonly filters: readonly Patterns[] }[]): Patterns[] {
  const merged = new Map<string, [filter: Patterns, field: string, values: Set<string>]>();
  for (const { filters } of watched) {
    for (const filter of filters) {
      const field = FIELDS.find((field) => field in filter) ?? "";
      const { [field as FilterField]: values = [], ...rest } = filter;
      const excludes = values.some((value) => value[0] === "!");
      const key = JSON.stringify([field, rest, excludes && values]);
      const found = merged.get(key);
      if (found) for (const value of values) found[2].add(value);
      else merged.set(key, [filter, field, new Set(values)]);
    }
  }
  return [...merged.values()].map(([filter, field, values]) => (field ? { ...filter, [field]: [...values] } : filter));
}

/** Return whether the gateway accepts these filters in one request. */
export function fits(filters: readonly Patterns[]): boolean {
  const patterns = filters.flatMap((filter) => Object.values(filter)).flat();
  return (
    filters.length <= Max.ALTERNATIVES &&
    patterns.length <= Max.PATTERNS &&
    patterns.filter(isGlob).length <= Max.GLOBS &&
    new TextEncoder().encode(JSON.stringify(filters)).length <= Max.BYTES
  );
}

/** Return a function that returns whether an event passes any of some filters. */
export function matcher(filters: readonly Patterns[]): Matcher {
  const clauses = filters.map((filter) =>
    Object.entries(filter).map(([field, patterns]): Matcher => {
      const wanted = patterns.filter((pattern) => pattern[0] !== "!");
      const isWanted = anyOf(wanted);
      const isExcluded = anyOf(patterns.filter((pattern) => pattern[0] === "!").map((pattern) => pattern.slice(1)));
      return ({ [field]: value }) => {
        // Celery sends ids of any type; the gateway compares their JSON text.
        if (/id$/.test(field)) value = idText(value);
        if (typeof value !== "string") return !wanted[0];
        if (value.length > Max.COMPARED) value = COMPARED.exec(value)![0];
        return (!wanted[0] || isWanted(value as string)) && !isExcluded(value as string);
      };
    }),
  );
  return (event) => clauses.some((clause) => clause.every((passes) => passes(event)));
}

function isGlob(pattern: string): boolean {
  return /[*?]/.test(pattern.replace(ESCAPED, ""));
}

/** Return a function that returns whether a text matches any pattern. */
function anyOf(patterns: readonly string[]): (text: string) => boolean {
  const exact = new Set(patterns.filter((pattern) => !isGlob(pattern)).map((pattern) => pattern.replace(ESCAPED, "$1")));
  const globs = patterns.filter(isGlob).map(expression);
  return (text) => exact.has(text) || globs.some((glob) => glob.test(text));
}

/**
 * Return a glob as a regular expression that takes linear time. Each part between two `*` is searched once, from left
 * to right: a lookahead never backtracks into what it has found, and the back reference consumes that.
 */
function expression(glob: string): RegExp {
  const [first, ...parts] = glob
    .replace(/\\([\\,*?!])|[^\w*?-]/gu, (all, literal = all) => `\\u{${literal.codePointAt(0).toString(16)}}`)
    .replaceAll("?", ".")
    .split(/\*+/);
  const last = parts.pop();
  const middle = parts.map((part, index) => `(?=(.*?${part}))\\${index + 1}`).join("");
  return new RegExp(`^${first}${middle}${last === undefined ? "" : `.*${last}`}$`, "su");
}
