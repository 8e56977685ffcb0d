/** What is asked of the gateway: one stream for all that is watched. Pure. */
import { counts, MAX_GLOBS, MAX_PATTERNS, type Patterns } from "./filter.js";

const MAX_ALTERNATIVES = 100;

/** The body of `POST /events`, and what goes with `{"op": "open"}`. */
export interface StreamRequest {
  /** Which events are wanted: what matches any of these; left out: all. */
  any?: readonly Patterns[] | undefined;
  /** Go on right after it. */
  last_event_id?: string | undefined;
  since?: string | undefined;
  /**
   * Of which tasks it is to be told, in `gateway-snapshot` pages, how they are. The last page is there even if
   * this is empty, and marks where what is new in this request begins.
   */
  snapshot?: readonly Patterns[] | undefined;
}

/**
 * Return filters of which any passes what any of those given does; as few as is easy.
 *
 * Undefined stands for everything. It is also the answer to more filters than the gateway takes: who watches
 * matches for itself, too.
 */
export function union(filters: Iterable<Patterns>): Patterns[] | undefined {
  const alternatives = new Map<string, Patterns>();
  for (const filter of filters) {
    const [field, ...others] = Object.keys(filter) as (keyof Patterns)[];
    if (!field) return undefined;
    const values = filter[field] ?? [];
    if (others.length || values.some((value) => value[0] === "!")) alternatives.set(JSON.stringify(filter), filter);
    else alternatives.set(field, { [field]: [...new Set([...(alternatives.get(field)?.[field] ?? []), ...values])] });
  }
  const merged = [...alternatives.values()];
  const [patterns, globs] = counts(merged);
  return merged.length > MAX_ALTERNATIVES || patterns > MAX_PATTERNS || globs > MAX_GLOBS ? undefined : merged;
}
