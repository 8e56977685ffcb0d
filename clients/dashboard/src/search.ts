/**
 * The search bar: `state:FAILURE name:shop.* runtime>5 some text` and the query of an address. Pure.
 *
 * Words are separated by spaces. A word with `field:` is a filter, one with `>` or the like a comparison, and all others
 * together are the text that is searched. A value with spaces is in double quotes; `""` in them is one quote.
 */
import { COMPARED_FIELDS, FILTER_FIELDS, type Parameter, type Query } from "./route.ts";
import { STATES } from "./states.ts";

export interface Searched {
  readonly query: Query;
  /** One sentence for each word that cannot be used. */
  readonly errors: readonly string[];
}

/** Other names of fields. */
const ALIASES: { readonly [name: string]: string | undefined } = Object.assign(Object.create(null), {
  worker: "hostname", task: "name", root: "root_id", parent: "parent_id", workflow: "root_id", id: "uuid",
});
export const TASK_FIELDS: readonly string[] = [...FILTER_FIELDS, "since", "before", "stale", "sort"];
export const EVENT_FIELDS: readonly string[] = ["type", ...FILTER_FIELDS, "since"];

const WORD = /(?:"(?:[^"]|"")*"|[^\s"])+|"[^]*/g;
const COMPARISON = new RegExp(`^(${COMPARED_FIELDS.join("|")})(>=|<=|>|<|=)([^]*)$`);
const FIELD = /^([a-z_]+):([^]*)$/;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Return whether a text is a UUID, which Celery gives to tasks. */
export function isUuid(text: string): boolean {
  return UUID.test(text.trim());
}

/** Return the words of a text, with where they begin. */
export function wordsOf(text: string): readonly { readonly at: number; readonly word: string }[] {
  return [...text.matchAll(WORD)].map((match) => ({ at: match.index, word: match[0] }));
}

/**
 * Return the query of a text.
 *
 * @param fields those that are allowed; with `state` also comparisons and a text, unless `type` is among them.
 */
export function parseSearch(text: string, fields: readonly string[] = TASK_FIELDS): Searched {
  const query: Parameter[] = [];
  const errors: string[] = [];
  const free: string[] = [];
  const isTasks = !fields.includes("type");
  for (const { word } of wordsOf(text)) {
    if (word.startsWith('"')) {
      free.push(unquoted(word));
      continue;
    }
    const [, compared, operator, number] = (isTasks && COMPARISON.exec(word)) || [];
    const [, name, value] = FIELD.exec(word) ?? [];
    if (compared) {
      const limit = unquoted(number!);
      if (Number.isFinite(Number(limit)) && limit) query.push([compared + (operator === "=" ? "" : operator), limit]);
      else errors.push(`${compared}${operator} needs a number`);
    } else if (name) {
      const field = fields.includes(name) ? name : (ALIASES[name] ?? name);
      if (!fields.includes(field)) errors.push(unknownField(name, word, fields, isTasks));
      else if (!unquoted(value!)) errors.push(`${name}: needs a value`);
      else query.push([field, field === "state" ? states(unquoted(value!)) : unquoted(value!)]);
    } else free.push(unquoted(word));
  }
  if (free.length && isTasks) query.push(["q", free.join(" ")]);
  else if (free.length) errors.push(`"${free.join(" ")}" is no filter: write ${fields.map((field) => `${field}:`).join(", ")} with a pattern`);
  return { query, errors };
}

function unknownField(name: string, word: string, fields: readonly string[], isTasks: boolean): string {
  const known = isTasks ? [...fields, ...COMPARED_FIELDS.map((field) => `${field}>`)] : fields;
  const quote = isTasks ? `; to search this text, write "${word}" with the quotes` : "";
  return `there is no filter ${name}: expected ${known.join(", ")}${quote}`;
}

/** Return the text of a query; parameters that the bar cannot have are left out. */
export function formatSearch(query: Query, fields: readonly string[] = TASK_FIELDS): string {
  const words = query.flatMap(([name, value]) => {
    if (name === "q") return [];
    const compared = COMPARISON.exec(`${name}${/[<>=]$/.test(name) ? "" : "="}`);
    if (compared && !fields.includes("type")) return [compared[1] + compared[2]! + quoted(value)];
    return fields.includes(name) ? [`${name}:${quoted(value)}`] : [];
  });
  const text = query.filter(([name]) => name === "q").map(([, value]) => value).join(" ");
  return [...words, ...(text ? [freeText(text)] : [])].join(" ");
}

/** Return a text that `parseSearch` reads as this text to search. */
function freeText(text: string): string {
  const isPlain = !/["\n\t]|^ | $| {2}/.test(text) && wordsOf(text).every(({ word }) => !FIELD.test(word) && !COMPARISON.test(word));
  return isPlain ? text : `"${text.replaceAll('"', '""')}"`;
}

function quoted(value: string): string {
  return /[\s"]/.test(value) || !value ? `"${value.replaceAll('"', '""')}"` : value;
}

function unquoted(text: string): string {
  return text.replace(/"((?:[^"]|"")*)("|$)/g, (_, inner: string) => inner.replaceAll('""', '"'));
}

/** Return states in the way Celery writes them. */
function states(value: string): string {
  return value
    .split(",")
    .map((state) => {
      const upper = state.replace(/^!/, "").toUpperCase();
      return (STATES as readonly string[]).includes(upper) ? (state.startsWith("!") ? "!" : "") + upper : state;
    })
    .join(",");
}

/** Values that are known, by field, with the number of their tasks. */
export type KnownValues = { readonly [field in string]?: { readonly [value: string]: number } };

export interface Completion {
  /** The whole text with the completion. */
  readonly text: string;
  readonly label: string;
  readonly count: number | null;
}

const MAX_COMPLETIONS = 8;

/**
 * Return completions of the last word: names of fields, then values of the field.
 *
 * @param escape returns the pattern of a value.
 */
export function completions(text: string, known: KnownValues, escape: (value: string) => string, fields: readonly string[] = TASK_FIELDS): readonly Completion[] {
  const last = wordsOf(text).at(-1);
  const word = last && last.at + last.word.length === text.length ? last.word : "";
  const before = text.slice(0, text.length - word.length);
  const [, name, begun = ""] = FIELD.exec(word) ?? [];
  const field = name && !fields.includes(name) ? (ALIASES[name] ?? name) : name;
  if (field) {
    const found = Object.entries(known[field] ?? {}).filter(([value]) => value && value.toLowerCase().includes(unquoted(begun).toLowerCase()));
    return found
      .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
      .slice(0, MAX_COMPLETIONS)
      .map(([value, count]) => ({ text: `${before}${name}:${quoted(escape(value))} `, label: `${name}:${value}`, count }));
  }
  const values = word.length < 2 ? [] : Object.entries(known).flatMap(([field, all]) =>
    Object.entries(all ?? {})
      .filter(([value]) => value.toLowerCase().includes(word.toLowerCase()))
      .map(([value, count]) => ({ text: `${before}${field}:${quoted(escape(value))} `, label: `${field}:${value}`, count })),
  );
  const names = word ? fields.filter((field) => field.startsWith(word)) : fields;
  return [
    ...names.map((field) => ({ text: `${before}${field}:`, label: `${field}:`, count: null })),
    ...values.sort((a, b) => b.count - a.count),
  ].slice(0, MAX_COMPLETIONS);
}
