/**
 * Which events a watch wants, by the rules of the gateway's own filters: a pattern is compared whole and
 * case-sensitively; `*` is any text, `?` one character, a leading `!` excludes. Pure.
 */
import type { Filter, FilterField } from "./types.js";

export const MAX_PATTERNS = 1_000;
export const MAX_GLOBS = 100;
const MAX_PATTERN_CHARS = 1_000;
const FIELDS = ["type", "name", "root_id", "parent_id", "uuid", "hostname", "state", "queue", "cluster"];

/** A filter as the gateway takes it: every field a list of one pattern at least. */
export type Patterns = { readonly [field in FilterField]?: readonly string[] };

/** Tells whether an event passes. */
export type Matcher = (event: { readonly [field: string]: unknown }) => boolean;

/**
 * Return filters in the form of the gateway.
 *
 * @param filter one, or several of which any is enough.
 * @throws TypeError for an unknown field or an empty value, RangeError for too many or too long ones.
 */
export function parse(filter: Filter | readonly Filter[]): Patterns[] {
  const parsed = [filter].flat().map((alternative) => {
    const patterns: { [field: string]: string[] } = {};
    for (const [field, given] of Object.entries(alternative)) {
      if (!FIELDS.includes(field)) throw new TypeError(`unknown field "${field}"; there are ${FIELDS.join(", ")}`);
      if (given === undefined) continue;
      const values = [given].flat();
      if (!values.length) throw new TypeError(`${field}: an empty list matches nothing; leave the field out`);
      for (const value of values) checkPattern(field, value);
      patterns[field] = values;
    }
    return patterns;
  });
  const [count, globs] = counts(parsed);
  if (count > MAX_PATTERNS || globs > MAX_GLOBS) {
    throw new RangeError(`at most ${MAX_PATTERNS} values to filter by, of which ${MAX_GLOBS} with wildcards`);
  }
  return parsed;
}

/** Throw for what cannot be a field's value. */
export function checkPattern(field: string, value: unknown): void {
  if (typeof value !== "string" || !value || value === "!") throw new TypeError(`${field}: an empty value, or no text`);
  if (value.length > MAX_PATTERN_CHARS) {
    throw new RangeError(`${field}: a value of ${value.length} characters; at most ${MAX_PATTERN_CHARS} are taken`);
  }
}

/** Return how many patterns there are in filters, and how many of them have wildcards. */
export function counts(filters: readonly Patterns[]): [patterns: number, globs: number] {
  const patterns = filters.flatMap((filter) => Object.values(filter).flat());
  return [patterns.length, patterns.filter(isGlob).length];
}

/** Return what tells whether an event passes any of some filters. */
export function matcher(filters: readonly Patterns[]): Matcher {
  const anyOf = filters.map((filter) => {
    const allOf = Object.entries(filter).map(([field, patterns]): Matcher => {
      const wanted = patterns.filter((pattern) => pattern[0] !== "!");
      const isWanted = oneOf(wanted);
      const isUnwanted = oneOf(patterns.filter((pattern) => pattern[0] === "!").map((pattern) => pattern.slice(1)));
      return (event) => {
        const value = event[field];
        if (typeof value !== "string") return !wanted.length;
        return (!wanted.length || isWanted(value)) && !isUnwanted(value);
      };
    });
    return (event: { readonly [field: string]: unknown }) => allOf.every((matches) => matches(event));
  });
  return (event) => anyOf.some((matches) => matches(event));
}

/** Exact patterns are looked up, only globs are tried. */
function oneOf(patterns: readonly string[]): (value: string) => boolean {
  const exact = new Set(patterns.filter((pattern) => !isGlob(pattern)));
  const globs = patterns.filter(isGlob).map(expression);
  return (value) => exact.has(value) || globs.some((glob) => glob.test(value));
}

function isGlob(pattern: string): boolean {
  return /[*?]/.test(pattern);
}

/** What stands between two stars is looked for once, where it comes first: in linear time a star. */
function expression(glob: string): RegExp {
  const texts = glob.split(/\*+/).map((text) => text.replace(/[\\^$.+()[\]{}|/]/g, "\\$&").replaceAll("?", "[^]"));
  const last = texts.length > 1 ? `[^]*${texts.pop()}` : "";
  return new RegExp(`^${texts.map((text, i) => (i ? `(?=([^]*?${text}))\\${i}` : text)).join("")}${last}$`, "u");
}
