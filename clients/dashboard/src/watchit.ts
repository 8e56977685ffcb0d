/** Lines to paste that watch a task, a workflow or a filter: for a shell, JavaScript, React and Python. Pure. */
import { literal, type Query } from "./route.ts";

export type Target =
  | { readonly kind: "task" | "workflow"; readonly id: string; readonly cluster?: string | undefined }
  /** The parameters of a view's address. */
  | { readonly kind: "filter"; readonly query: Query };

export interface Lines {
  readonly id: "curl" | "tail" | "javascript" | "react" | "python";
  readonly label: string;
  readonly text: string;
}

export interface WatchIt {
  readonly lines: readonly Lines[];
  /** Parameters that a stream does not have, so the lines watch more than the view shows. */
  readonly dropped: readonly string[];
}

/** Fields of filters of a stream, in the order of the options of `celery-gateway tail`. */
const FIELDS = ["type", "name", "root_id", "parent_id", "uuid", "hostname", "state", "queue", "cluster"];
/** Characters that reverse, hide or break text, or that a terminal takes as a key when they are pasted. */
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;
const SHORT_ESCAPES: { readonly [character: string]: string } = { "\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\" };

/**
 * Return the lines that watch something.
 *
 * @param base the gateway's URL.
 * @param needsToken whether the gateway has authentication: the lines then have the placeholder `TOKEN`, an environment
 *   variable.
 */
export function watchIt(target: Target, base: string, needsToken: boolean): WatchIt {
  const root = base.replace(/\/+$/, "");
  const isFilter = target.kind === "filter";
  const query = isFilter ? target.query : queryOf(target);
  const known = query.filter(([name, value]) => value && (FIELDS.includes(name) || (isFilter && name === "since")));
  const dropped = query.filter((one) => one[1] && !known.includes(one) && !["sort", "by", "view", "tab"].includes(one[0]));
  const lines: Lines[] = [
    { id: "curl", label: "curl", text: curl(root, known, isFilter, needsToken) },
    // No program has arguments with this character.
    ...(known.some(([, value]) => value.includes("\0")) ? [] : [{ id: "tail", label: "Terminal", text: tail(root, known, isFilter, needsToken) } as const]),
    { id: "javascript", label: "JavaScript", text: javascript(target, root, known, needsToken) },
    { id: "react", label: "React", text: react(target, root, known, needsToken) },
    { id: "python", label: "Python", text: python(root, known, isFilter, needsToken) },
  ];
  return { lines, dropped: dropped.map(([name]) => name) };
}

function queryOf({ kind, id, cluster }: Exclude<Target, { readonly kind: "filter" }>): Query {
  const own = [kind === "task" ? "uuid" : "root_id", literal(id)] as const;
  return cluster === undefined ? [own] : [own, ["cluster", literal(cluster)]];
}

function curl(root: string, query: Query, isFilter: boolean, needsToken: boolean): string {
  const all: Query = [...query, ...(isFilter ? [] : ([["snapshot", "1"], ["until", "ready"]] as const)), ["format", "ndjson"]];
  const search = all.map(([name, value]) => `${name}=${encoded(value)}`).join("&");
  const header = needsToken ? `-H "Authorization: Bearer $TOKEN" ` : "";
  return `curl --no-buffer ${header}${shell(`${root}/events?${search}`)}`;
}

function tail(root: string, query: Query, isFilter: boolean, needsToken: boolean): string {
  // `=` keeps a value that begins with a hyphen from being an option.
  const options = query.map(([name, value]) => `--${name.replace("_", "-")}=${shell(value)}`);
  const until = isFilter ? [] : ["--until ready"];
  return [`${needsToken ? 'GATEWAY_TOKEN="$TOKEN" ' : ""}celery-gateway tail`, ...until, ...options, shell(root)].join(" ");
}

function javascript(target: Target, root: string, query: Query, needsToken: boolean): string {
  const [watch, callback] =
    target.kind === "filter"
      ? [`events(${filterObject(query)}${sinceOf(query)})`, "(event) => console.log(event.type, event.name, event.uuid)"]
      : target.kind === "task"
        ? [`task(${idArguments(target)})`, "(task) => console.log(task?.state, task?.progress)"]
        : [`workflow(${idArguments(target)})`, "(workflow) => console.log(workflow?.ready, workflow?.total)"];
  return [
    'import { connect } from "@celery-gateway/client";',
    "",
    `const client = connect(${clientOptions(root, needsToken)});`,
    `client.${watch}.subscribe(${callback});`,
  ].join("\n");
}

function react(target: Target, root: string, query: Query, needsToken: boolean): string {
  const hook = { task: "useTask", workflow: "useWorkflow", filter: "useEvents" }[target.kind];
  const call = target.kind === "filter" ? `useEvents(${filterObject(query)})` : `${hook}(${idArguments(target)})`;
  const [name, shown] = {
    task: ["task", "<p>{task?.state}</p>"],
    workflow: ["workflow", "<p>{workflow?.ready} of {workflow?.total}</p>"],
    filter: ["events", "<ul>{events.map((event) => <li key={event.id}>{event.type}</li>)}</ul>"],
  }[target.kind] as [string, string];
  return [
    'import { connect } from "@celery-gateway/client";',
    `import { GatewayProvider, ${hook} } from "@celery-gateway/client/react";`,
    "",
    `const client = connect(${clientOptions(root, needsToken)});`,
    "function Shown() {",
    `  const ${name} = ${call};`,
    `  return ${shown};`,
    "}",
    "export const App = () => <GatewayProvider client={client}><Shown /></GatewayProvider>;",
  ].join("\n");
}

function python(root: string, query: Query, isFilter: boolean, needsToken: boolean): string {
  const all: Query = [...query, ...(isFilter ? [] : ([["snapshot", "1"], ["until", "ready"]] as const)), ["format", "ndjson"]];
  const parameters = all.map(([name, value]) => `    (${text(name, "python")}, ${text(value, "python")}),`);
  const headers = needsToken ? `{"Authorization": "Bearer " + os.environ["TOKEN"]}` : "{}";
  return [
    needsToken ? "import json, os" : "import json",
    "import httpx",
    "",
    "params = [",
    ...parameters,
    "]",
    `headers = ${headers}`,
    `with httpx.stream("GET", ${text(`${root}/events`, "python")}, params=params, headers=headers, timeout=60) as response:`,
    "    response.raise_for_status()",
    "    for line in response.iter_lines():",
    '        message = json.loads(line)',
    '        is_event = not message["type"].startswith("gateway-")',
    '        for task in [message] if is_event else message.get("tasks", []):',
    '            print(task.get("type"), task.get("name"), task.get("state"))',
  ].join("\n");
}

function clientOptions(root: string, needsToken: boolean): string {
  return `{ url: ${text(root, "javascript")}${needsToken ? ", token: process.env.TOKEN" : ""} }`;
}

function idArguments({ id, cluster }: Exclude<Target, { readonly kind: "filter" }>): string {
  const options = cluster === undefined ? "" : `, { cluster: ${text(cluster, "javascript")} }`;
  return text(id, "javascript") + options;
}

/** Return a filter of the client: there, a comma does not separate patterns. */
function filterObject(query: Query): string {
  const patterns = new Map<string, string[]>();
  for (const [name, value] of query) {
    if (name !== "since") patterns.set(name, [...(patterns.get(name) ?? []), ...split(value)]);
  }
  const fields = [...patterns].map(([name, values]) => `${name}: [${values.map((value) => text(value, "javascript")).join(", ")}]`);
  return fields.length ? `{ ${fields.join(", ")} }` : "{}";
}

function sinceOf(query: Query): string {
  const since = query.find(([name]) => name === "since");
  return since ? `, { since: ${text(since[1], "javascript")} }` : "";
}

/** Return the patterns of a parameter: those between commas without a backslash. */
export function split(value: string): readonly string[] {
  return (value.match(/(?:\\[^]|[^,\\]|\\$)+/g) ?? []).map((pattern) => pattern.trim()).filter(Boolean);
}

/**
 * Return a text as one word of a shell. Plain words stay as they are. Characters that a terminal takes as keys become
 * escapes, so that a paste cannot do anything else; bash, zsh, ksh and POSIX.1-2024 have these (`$'…'`).
 */
export function shell(value: string): string {
  const clean = value.replace(/\p{Cs}/gu, "\ufffd");
  if (/^[A-Za-z0-9_@%+=:,./-]+$/.test(clean)) return clean;
  if (!HIDDEN.test(clean)) return `'${clean.replaceAll("'", "'\\''")}'`;
  const escaped = [...clean].map((character) => {
    if (character === "'" || character === "\\") return `\\${character}`;
    if (!HIDDEN.test(character)) return character;
    return [...new TextEncoder().encode(character)].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");
  });
  return `$'${escaped.join("")}'`;
}

/** Return a text as a literal. Characters that hide or reverse text become escapes, as does `<`, for scripts in HTML. */
export function text(value: string, language: "javascript" | "python"): string {
  const escaped = [...value.replace(/\p{Cs}/gu, "\ufffd")].map((character) => {
    const short = SHORT_ESCAPES[character];
    if (short) return short;
    if (character !== "<" && !HIDDEN.test(character)) return character;
    const code = character.codePointAt(0)!.toString(16);
    if (code.length <= 4) return `\\u${code.padStart(4, "0")}`;
    return language === "python" ? `\\U${code.padStart(8, "0")}` : `\\u{${code}}`;
  });
  return `"${escaped.join("")}"`;
}

/** Encode all but characters that are harmless in a URL. */
function encoded(value: string): string {
  return encodeURIComponent(value.replace(/\p{Cs}/gu, "\ufffd")).replace(/%(40|2C|3A|2F)/g, (all) => decodeURIComponent(all));
}
