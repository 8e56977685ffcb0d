/**
 * Filters, by the rules of the gateway (gateway/filter.py): a pattern is compared whole and case-sensitively; `*`
 * matches any text, `?` one character, and a leading `!` excludes. A backslash before `\`, `,`, `*`, `?` or `!`
 * takes that character literally. Pure.
 */
import { words } from "./task.js";
import type { Filter, FilterField } from "./types.js";

const enum Max {
  ALTERNATIVES = 100,
  PATTERNS = 1_000,
  GLOBS = 100,
}
const FIELDS = words("name root_id parent_id state type uuid hostname queue cluster");

/** A filter as the gateway takes it: for each field a list of at least one pattern. */
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
        !values.every((value) => typeof value === "string" && /^(?!!?$)[^]{1,1000}$/.test(value.replace(/\\[\\,*?!]/g, "-")))
      ) {
        throw new TypeError(`invalid ${field}=${given}: expected ${FIELDS} of 1 to 1000 characters`);
      }
    }
    return patterns;
  });
  if (bounded(filters)) return filters;
  throw new RangeError("at most 1000 values, 100 with wildcards");
}

/**
 * Return filters that pass what any of the watched filters passes. Those with one field and no exclusion are
 * merged by field.
 *
 * Undefined stands for all events: the gateway does not accept as many filters. Each watch also has a matcher.
 */
export function union(watched: readonly { readonly filters: readonly Patterns[] }[]): Patterns[] | undefined {
  const merged: { [key: string]: { readonly [field: string]: readonly string[] } } = {};
  for (const filter of watched.flatMap(({ filters }) => filters as readonly Required<Patterns>[])) {
    const json = JSON.stringify(filter);
    // An exclusion, a second field, or no field. A value that looks like one of these is not merged either.
    if (/"!|],|{}/.test(json)) merged[json] = filter;
    else {
      for (const [field, values] of Object.entries(filter)) {
        const all = (merged[field] ??= { [field]: [] })[field] as string[];
        for (const value of values) if (!all.includes(value)) all.push(value);
      }
    }
  }
  return bounded(Object.values(merged));
}

/** Return filters, or undefined if the gateway does not accept as many. */
function bounded(filters: Patterns[]): Patterns[] | undefined {
  const patterns = filters.flatMap(Object.values).flat();
  const globs = patterns.filter((pattern) => source(pattern).includes("."));
  if (filters.length <= Max.ALTERNATIVES && patterns.length <= Max.PATTERNS && globs.length <= Max.GLOBS) return filters;
  return undefined;
}

/** Return a function that returns whether an event passes any of some filters. */
export function matcher(filters: readonly Patterns[]): Matcher {
  const clauses = filters.map((filter) =>
    Object.entries(filter).map(([field, patterns]): Matcher => {
      let unwanted = "";
      let wanted = "";
      for (const pattern of patterns) {
        if (pattern.startsWith("!")) unwanted += `(?!${source(pattern.slice(1))}$)`;
        else wanted += "|" + source(pattern);
      }
      const expression = new RegExp(`^${unwanted}(${wanted.slice(1) || ".*"})$`, "su");
      return ({ [field]: value }) => {
        // Celery sends ids of any type; the gateway compares their JSON text.
        if (typeof value !== "string" && /id$/.test(field)) value = JSON.stringify(value ?? undefined);
        return typeof value === "string" ? expression.test(value) : !wanted;
      };
    }),
  );
  return (event) => clauses.some((clause) => clause.every((passes) => passes(event)));
}

/** Return a pattern as a regular expression. Literals become code points, so only wildcards contain a `.`. */
function source(pattern: string): string {
  return pattern
    .replace(/\\([\\,*?!])|[^\w*?-]/gu, (all, literal = all) => `\\u{${literal.codePointAt(0).toString(16)}}`)
    .replace(/\?|(\*)+/g, ".$1");
}
