/** The parts of a filter, each with a button that takes it away. */
import { goQuery } from "../navigation.ts";
import type { Query } from "../route.ts";
import { partsOf } from "../task-query.ts";
import { visible } from "../text.ts";
import { Text } from "./text.tsx";

export function FilterParts({ query }: { readonly query: Query }) {
  const parts = partsOf(query);
  if (!parts.length) return null;
  const kept = query.filter(([name]) => name === "sort" || name === "window");
  return (
    <div class="inline filter-parts" role="group" aria-label="Filter">
      {parts.map(({ label, rest }, at) => (
        <button key={`${label} ${at}`} type="button" class="chip" title={visible(`Remove ${label}`)} onClick={() => goQuery(rest, { replace: false })}>
          <Text value={label} max={60} /> <span aria-hidden="true">✕</span><span class="visually-hidden">remove</span>
        </button>
      ))}
      {parts.length > 1 && <button type="button" class="plain link" onClick={() => goQuery(kept, { replace: false })}>Remove all</button>}
    </div>
  );
}
