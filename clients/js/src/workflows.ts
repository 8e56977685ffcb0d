/** A list of workflows, which is fetched again and again. */
import type { Model } from "./feed.js";
import type { Request } from "./http.js";
import { polled } from "./poll.js";
import { paramsOf } from "./select.js";
import type { Filter, WorkflowList, WorkflowListOptions, WorkflowSummary } from "./types.js";

const enum Ms {
  INTERVAL = 2_000,
}
const enum Max {
  LIMIT = 1_000,
  ROWS = 10_000,
}

/** Return a function that returns a model of a list of workflows. */
export function workflowList(get: Request, filter: Filter, options: WorkflowListOptions): () => Model<WorkflowList> {
  const { state, limit = 100, intervalMs = Ms.INTERVAL, ...others } = options;
  const params = paramsOf({ ...filter, ...(state && { state }) }, others);
  return polled(async (signal, pages) => {
    const workflows: WorkflowSummary[] = [];
    const wanted = Math.min(limit * pages, Max.ROWS);
    let cursor: string | undefined;
    do {
      const page = await get("/workflows", { ...params, limit: Math.min(Max.LIMIT, wanted - workflows.length), cursor }, signal);
      workflows.push(...page.workflows);
      cursor = page.cursor ?? undefined;
    } while (cursor && workflows.length < wanted);
    return { workflows, more: !!cursor && wanted < Max.ROWS };
  }, intervalMs);
}
