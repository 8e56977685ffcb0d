/** Which tasks a list has, by the rules of `GET /tasks`. Pure. */
import { type Matcher, matcher, parse } from "./filter.js";
import { begunAt } from "./task.js";
import type { Filter, Params, PollOptions, Task, TaskConditions } from "./types.js";
import { idText, number, seconds, words } from "./values.js";

const SEARCHED = words("uuid name args kwargs result exception");
const COMPARISON = /^(>=?|<=?|=)(-?[\d.]+(?:e-?\d+)?)$/i;

/** The options of a request. */
interface Conditions extends PollOptions {
  readonly where?: { readonly [field: string]: string | readonly string[] | undefined } | undefined;
  readonly [name: string]: unknown;
}

/** A task's record, of any fields. */
type Fields = { readonly [field: string]: unknown };

/**
 * Return a function that returns whether a list has a task.
 *
 * @param now returns the epoch seconds from which ages count.
 * @throws TypeError for an invalid filter or comparison.
 */
export function selector(filter: Filter, conditions: TaskConditions, now: () => number): (task: Task) => boolean {
  const { q, since, before, stale, where = {} } = conditions;
  const matches: Matcher = matcher(parse(filter));
  const sought = q?.toLowerCase();
  const comparisons = Object.entries(where).flatMap(([field, given]) =>
    [given ?? []].flat().map((text) => {
      const [, sign, bound] = COMPARISON.exec(text) ?? [];
      if (!sign) throw new TypeError(`invalid comparison ${field}${text}: expected a number after >, >=, <, <= or =, such as ${field}>=5`);
      return (task: Fields) => compare(number(task[field]) ?? NaN, sign, +bound!);
    }),
  );
  return (task) => {
    const begun = begunAt(task);
    const fields = task as unknown as Fields;
    return (
      (since === undefined || begun >= momentOf(since, now())) &&
      (before === undefined || begun < momentOf(before, now())) &&
      (stale === undefined || task.stale === stale) &&
      matches({ __proto__: task, hostname: task.worker ?? task.client } as Fields) &&
      comparisons.every((passes) => passes(fields)) &&
      (!sought || SEARCHED.some((field) => idText(fields[field])?.toLowerCase().includes(sought)))
    );
  };
}

/** Return the parameters of a request: of a filter, whose values are patterns, and of options. */
export function paramsOf(filter: Filter, { where = {}, signal, intervalMs, ...others }: Conditions): Params {
  const params = others as { [name: string]: Params[string] };
  for (const [field, given] of Object.entries(filter)) {
    // A comma would separate two patterns.
    params[field] = [given ?? []].flat().map((pattern) => `${pattern}`.replace(/\\.|,/gs, (part) => part.replace(/^,/, "\\,")));
  }
  for (const [field, given] of Object.entries(where)) {
    for (const text of [given ?? []].flat()) {
      if (text[0] === "=") params[field] = text.slice(1);
      else params[field + text] = "";
    }
  }
  return params;
}

function compare(value: number, sign: string, bound: number): boolean {
  return (sign[1] || sign === "=") && value === bound ? true : sign[0] === ">" ? value > bound : sign[0] === "<" && value < bound;
}

/** Return the epoch seconds of an age, or of an RFC 3339 time. */
function momentOf(text: string, nowSeconds: number): number {
  return nowSeconds - (seconds(text) ?? nowSeconds - Date.parse(text) / 1_000);
}
