/** From the query of an address to what the client takes, and the parts of a query that can be taken away. Pure. */
import type { Filter, TaskConditions } from "../../js/src/types.ts";
import { COMPARED_FIELDS, FILTER_FIELDS, type Query, valueOf, WORKFLOW_NUMBERS } from "./route.ts";

/** Return the patterns of a parameter: a comma separates them, `\,` does not. Spaces around a comma are dropped. */
export function patternsOf(value: string): string[] {
  return (value.match(/(?:\\[^]|[^\\,])+/g) ?? []).map((pattern) => pattern.trim()).filter(Boolean);
}

/** Return a pattern list without one of its patterns. */
export function withoutPattern(value: string, pattern: string): string {
  return patternsOf(value).filter((other) => other !== pattern).join(",");
}

const COMPARISON = new RegExp(`^(${[...COMPARED_FIELDS, ...WORKFLOW_NUMBERS].join("|")})(>=|<=|>|<|)$`);

/** A part of a filter: one parameter, or one of its patterns. */
export interface Part {
  readonly name: string;
  readonly value: string;
  /** Such as `state:FAILURE`. */
  readonly label: string;
  /** The query without it. */
  readonly rest: Query;
}

/** What selects tasks; not how they are sorted. */
const FREE = ["q", "since", "before", "stale"];

/** Return the filter of a query for the client. */
export function filterOf(query: Query): Filter {
  const filter: { [field: string]: readonly string[] } = {};
  for (const field of FILTER_FIELDS) {
    const patterns = query.filter(([name]) => name === field).flatMap(([, value]) => patternsOf(value));
    if (patterns.length) filter[field] = patterns;
  }
  return filter;
}

/** Return the comparisons of a query with some fields, such as `{runtime: [">=5"]}`. */
export function comparedOf<F extends string>(query: Query, fields: readonly F[]): { [field in F]?: string[] } {
  const where: { [field in F]?: string[] } = {};
  for (const [name, value] of query) {
    const [, found, operator] = COMPARISON.exec(name) ?? [];
    const field = fields.find((one) => one === found);
    if (field) (where[field] ??= []).push(`${operator || "="}${value}`);
  }
  return where;
}

/** Return the other conditions of a query for the client. */
export function conditionsOf(query: Query): TaskConditions {
  const where = comparedOf(query, COMPARED_FIELDS);
  const [q, since, before, stale] = FREE.map((name) => valueOf(query, name));
  return {
    ...(q && { q }),
    ...(since && { since }),
    ...(before && { before }),
    ...(stale && { stale: stale === "1" }),
    ...(Object.keys(where).length && { where }),
  };
}

/** Return the parts of a query that select something, each with the query that is left without it. */
export function partsOf(query: Query): Part[] {
  return query.flatMap(([name, value], at): Part[] => {
    const others = query.filter((_, index) => index !== at);
    const whole = (label: string): Part[] => [{ name, value, label, rest: others }];
    if ((FILTER_FIELDS as readonly string[]).includes(name)) {
      const patterns = patternsOf(value);
      return patterns.map((pattern) => {
        const left = withoutPattern(value, pattern);
        return { name, value: pattern, label: `${name}:${pattern}`, rest: left ? query.map((one, index) => (index === at ? [name, left] as const : one)) : others };
      });
    }
    if (COMPARISON.test(name)) return whole(/[<>=]$/.test(name) ? name + value : `${name}=${value}`);
    if (name === "q") return whole(`“${value}”`);
    if (name === "stale") return whole(value === "1" ? "only lost" : "not lost");
    return FREE.includes(name) ? whole(`${name} ${value}`) : [];
  });
}

/** Return the value that is most like a pattern that matches nothing: another case, a part, or one wrong letter. */
export function suggestion(pattern: string, values: Readonly<Record<string, number>>): string | null {
  const wanted = pattern.replace(/[\\!*?]/g, "").toLowerCase();
  if (!wanted) return null;
  const rated = Object.entries(values).map(([value, count]) => {
    const lower = value.toLowerCase();
    const shared = commonPrefix(lower, wanted);
    const rank = lower === wanted ? 3 : lower.includes(wanted) || (lower && wanted.includes(lower)) ? 2 : shared >= Math.max(2, Math.min(4, wanted.length - 1)) ? 1 : 0;
    return { value, rank, shared, count };
  });
  const best = rated.filter(({ rank, value }) => rank && value).sort((a, b) => b.rank - a.rank || b.shared - a.shared || b.count - a.count)[0];
  return best?.value ?? null;
}

function commonPrefix(a: string, b: string): number {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return length;
}
