/**
 * Which events a watch wants, by the rules of the gateway's own filters: a pattern is compared whole and
 * case-sensitively; `*` is any text, `?` one character, a leading `!` excludes. Pure.
 */
import type { Filter, FilterField } from "./types.js";

const enum Max {
  ALTERNATIVES = 100,
  PATTERNS = 1_000,
  GLOBS = 100,
}
const FIELDS = "type name root_id parent_id uuid hostname state queue cluster".split(" ");

/** A filter as the gateway takes it: every field a list of one pattern at least. */
export type Patterns = { readonly [field in FilterField]?: readonly string[] };

/** Tells whether an event passes. */
export type Matcher = (event: { readonly [field: string]: unknown }) => boolean;

/**
 * Return filters in the form of the gateway.
 *
 * @param filter one, or several of which any is enough.
 * @throws TypeError for an unknown field or a value that is none, RangeError for too many values.
 */
export function parse(filter: Filter | readonly Filter[]): Patterns[] {
  const filters = [filter].flat().map((alternative) => {
    const patterns: { [field: string]: string[] } = {};
    for (const [field, given] of Object.entries(alternative)) {
      if (!FIELDS.includes(field)) throw new TypeError(`no field ${field}; there are ${FIELDS}`);
      if (given !== undefined) patterns[field] = checked(field, [given].flat());
    }
    return patterns;
  });
  if (isTooMuch(filters)) throw new RangeError("at most 1000 values, 100 with wildcards");
  return filters;
}

/** Return the values of a field. Throws for what cannot be such. */
export function checked(field: string, values: string[]): string[] {
  for (const value of values.length ? values : [""]) {
    if (typeof value !== "string" || !/^(?!!?$)[^]{1,1000}$/.test(value)) throw new TypeError(`${field}: a value has 1 to 1000 characters`);
  }
  return values;
}

/**
 * Return filters of which any passes what any of those given does; as few as is easy.
 *
 * Undefined stands for everything. It is the answer to more than the gateway takes: whoever watches has a
 * matcher, too.
 */
export function union(watched: readonly { readonly filters: readonly Patterns[] }[]): Patterns[] | undefined {
  const merged: { [key: string]: { [field: string]: readonly string[] } } = {};
  for (const filter of watched.flatMap(({ filters }) => filters)) {
    const [[field, values] = ["", ["!"]], more] = Object.entries(filter);
    const isSimple = !more && !values.some(isExclusion);
    merged[isSimple ? field : JSON.stringify(filter)] = isSimple
      ? { [field]: [...new Set([...(merged[field]?.[field] ?? []), ...values])] }
      : filter;
  }
  const filters = Object.values(merged);
  return isTooMuch(filters) ? undefined : filters;
}

function isTooMuch(filters: readonly Patterns[]): boolean {
  const patterns = filters.flatMap((filter) => Object.values(filter).flat());
  const globs = patterns.filter((pattern) => /[*?]/.test(pattern));
  return filters.length > Max.ALTERNATIVES || patterns.length > Max.PATTERNS || globs.length > Max.GLOBS;
}

/** Return what tells whether an event passes any of some filters. */
export function matcher(filters: readonly Patterns[]): Matcher {
  const clauses = filters.map((filter) =>
    Object.entries(filter).map(([field, patterns]) => ({
      field,
      isOpen: patterns.every(isExclusion),
      wanted: expression(patterns.filter((pattern) => !isExclusion(pattern))),
      unwanted: expression(patterns.filter(isExclusion).map((pattern) => pattern.slice(1))),
    })),
  );
  return (event) =>
    clauses.some((all) =>
      all.every(({ field, isOpen, wanted, unwanted }) => {
        const value = event[field];
        return typeof value === "string" ? (isOpen || wanted.test(value)) && !unwanted.test(value) : isOpen;
      }),
    );
}

const isExclusion = (pattern: string): boolean => pattern[0] === "!";

/** Return what finds any of some patterns; of none, nothing. */
function expression(patterns: readonly string[]): RegExp {
  const texts = patterns.map((pattern) =>
    pattern.replace(/[\\^$.+()[\]{}|/]/g, "\\$&").replace(/\*+/g, ".*").replaceAll("?", "."),
  );
  return new RegExp(`^(${texts.join("|") || "(?!)"})$`, "su");
}
