/** Addresses of the dashboard: a route is what an address shows, and each route has one address. Pure. */

export type ViewName =
  | "overview" | "live" | "tasks" | "task" | "workflows" | "workflow" | "workers" | "worker" | "queues" | "failures";

/** A parameter of the query. The name of a comparison has its operator, such as `runtime>=`. */
export type Parameter = readonly [name: string, value: string];
export type Query = readonly Parameter[];

export interface Route {
  /** `unknown`: there is no view at this address. */
  readonly view: ViewName | "unknown";
  /** The uuid, root_id or hostname of `task`, `workflow` and `worker`; else an empty text. */
  readonly id: string;
  readonly query: Query;
}

/** The path of each view, and of one of its items. */
const PATHS: readonly (readonly [path: string, list: ViewName, item?: ViewName])[] = [
  ["", "overview"],
  ["statistics", "overview"],
  ["events", "live"],
  ["tasks", "tasks", "task"],
  ["workflows", "workflows", "workflow"],
  ["workers", "workers", "worker"],
  ["queues", "queues"],
  ["failures", "failures"],
];

export const FILTER_FIELDS = ["name", "state", "queue", "hostname", "uuid", "root_id", "parent_id", "cluster"] as const;
export const COMPARED_FIELDS = ["runtime", "queued_seconds", "attempt", "retries", "progress"] as const;
export const OPERATORS = [">=", "<=", ">", "<", "="] as const;
/** What the list of workflows can be compared by. */
export const WORKFLOW_NUMBERS = ["total", "ready", "failed"] as const;
const comparisons = (fields: readonly string[]): string[] =>
  fields.flatMap((field) => OPERATORS.map((operator) => field + (operator === "=" ? "" : operator)));
const TASK_FILTER = [...FILTER_FIELDS, ...comparisons(COMPARED_FIELDS), "q", "since", "before", "stale"];

/** The parameters that each view knows. */
export const PARAMETERS: { readonly [view in ViewName]: readonly string[] } = {
  overview: ["window", "name", "cluster"],
  live: [...FILTER_FIELDS, "type", "since"],
  tasks: [...TASK_FILTER, "sort", "by"],
  task: ["cluster", "tab"],
  workflows: [...FILTER_FIELDS, ...comparisons(WORKFLOW_NUMBERS), "q", "since", "before", "sort"],
  workflow: ["cluster", "view", "task"],
  workers: ["cluster", "status", "hostname"],
  worker: ["cluster", "tab"],
  queues: ["cluster"],
  failures: ["name", "cluster", "since"],
};

const COMPARISON = new RegExp(`^(${[...COMPARED_FIELDS, ...WORKFLOW_NUMBERS].join("|")})(>=|<=|>|<)([^]*)$`);

/** Return the parameters of a query, in their order. */
export function parseQuery(search: string): Query {
  return search
    .replace(/^\?/, "")
    .split("&")
    .filter(Boolean)
    .map((part): Parameter => {
      const text = decoded(part.replaceAll("+", " "));
      const [, field, operator, compared] = COMPARISON.exec(text) ?? [];
      if (field) return [field + operator, compared!];
      const [name = "", ...rest] = part.replaceAll("+", " ").split("=");
      return [decoded(name), decoded(rest.join("="))];
    });
}

/** Return the query with its `?`; an empty text without parameters. */
export function formatQuery(query: Query): string {
  const parts = query.map(([name, value]) =>
    /[<>]=?$/.test(name) ? encoded(name).replace("%3D", "=") + encoded(value) : `${encoded(name)}=${encoded(value)}`,
  );
  return parts.length ? `?${parts.join("&")}` : "";
}

/**
 * Return the route of an address.
 *
 * @param url the address.
 * @param base the address of the overview, which ends with `/`.
 */
export function parseRoute(url: URL, base: URL): Route {
  const query = parseQuery(url.search);
  const unknown: Route = { view: "unknown", id: "", query };
  const isBelow = `${url.pathname}/`.startsWith(base.pathname);
  const [first = "", ...rest] = isBelow ? url.pathname.slice(base.pathname.length).replace(/\/$/, "").split("/") : ["?"];
  const [, list, item] = PATHS.find(([path]) => path === first) ?? [];
  if (!list) return unknown;
  if (!rest.length) return { view: list, id: "", query };
  return item ? { view: item, id: rest.map(decoded).join("/"), query } : unknown; // as the gateway reads the path
}

/** Return the address of a route, relative to that of the overview. */
export function href(route: Partial<Route>): string {
  const { view = "overview", id = "", query = [] } = route;
  for (const [path, list, item] of PATHS) {
    if (list === view) return (path || "./") + formatQuery(query);
    if (item !== view) continue;
    if (id && id !== "." && id !== "..") return `${path}/${encoded(id)}${formatQuery(query)}`;
    // A browser takes these as steps of a path, even if they are encoded.
    return path + formatQuery([...query, [path === "tasks" ? "uuid" : path === "workflows" ? "root_id" : "hostname", id]]);
  }
  return "./";
}

/** Return the values of a parameter, in their order. */
export function valuesOf(query: Query, name: string): readonly string[] {
  return query.filter(([other]) => other === name).map(([, value]) => value);
}

/** Return the value of a parameter; several ones with commas, as the gateway reads them. */
export function valueOf(query: Query, name: string): string {
  return valuesOf(query, name).join(",");
}

/** Return a query with another value of a parameter. It keeps its place. `""` removes it. */
export function withValue(query: Query, name: string, value: string): Query {
  const at = query.findIndex(([other]) => other === name);
  const rest = query.filter(([other], index) => other !== name || index === at);
  if (at < 0) return value ? [...rest, [name, value]] : rest;
  return rest.flatMap((one, index) => (index !== at ? [one] : value ? [[name, value] as const] : []));
}

/** Return the parameters of a route that its view does not know. */
export function unknownParameters({ view, query }: Route): readonly string[] {
  if (view === "unknown") return [];
  return [...new Set(query.map(([name]) => name))].filter((name) => !PARAMETERS[view].includes(name));
}

/** Return the pattern of a filter that matches exactly this text. */
export function literal(text: string): string {
  return text.replace(/[\\,*?]|^!/g, "\\$&");
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a lone %, which the gateway also takes as it is
  }
}

/** Encode all but characters that are harmless in a path and in a query, so that addresses are readable. */
function encoded(text: string): string {
  return encodeURIComponent(text.replace(/\p{Cs}/gu, "\ufffd")).replace(/%(40|2C|3A)/g, (all) => decodeURIComponent(all));
}
