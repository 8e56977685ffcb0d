/** The events of the tail: what a row shows, and the newest rows. Pure. */
import type { Event, Gap, Skipped } from "../../js/src/index.ts";
import type { Matcher } from "../../js/src/filter.ts";
import { asText, count, cut, exceptionText, plural } from "./text.ts";
import { duration } from "./time.ts";

/** A row: an event, or a note between events. Nothing of a large event is kept beside these fields. */
export interface Entry {
  /** Rows are numbered; the numbers of the buffer have no holes. */
  seq: number;
  readonly kind: "event" | "gap" | "skipped" | "filter" | "note";
  readonly id: string;
  /** Epoch seconds; NaN if it is not known. */
  readonly time: number;
  readonly type: string;
  readonly name: string;
  readonly state: string;
  readonly uuid: string;
  readonly root_id: string;
  readonly parent_id: string;
  readonly hostname: string;
  readonly queue: string;
  readonly cluster: string;
  /** The main details in one line; the text of a note. */
  readonly detail: string;
  readonly isFailure: boolean;
  /** Of a note: the events that are not kept. */
  readonly missing?: number;
}

/** Rows that are kept; and as many that come while the list holds. */
export const MAX_ENTRIES = 10_000;
/** Characters of so many rows. */
export const MAX_CHARS = 8_000_000;
const MAX_FIELD = 500;
const MAX_DETAIL = 300;
/** The gateway has sent the events from before within this time. */
const REPLAY_MS = 10_000;
/** A part of a text keeps the whole text in memory: a longer one is copied. */
const COPIED_FROM = 1_000;

const WITH_COLUMN = new Set(["id", "time", "type", "name", "state", "uuid", "root_id", "parent_id", "hostname", "timestamp", "utcoffset",
  "pid", "clock", "queue", "attempt", "cluster", "local_received", "truncated"]);

const kept = (value: unknown, max = MAX_FIELD): string => {
  const text = asText(value);
  if (text.length <= max) return text;
  const part = cut(text, max);
  return text.length > COPIED_FROM ? (JSON.parse(JSON.stringify(part)) as string) : part;
};

/** Return the row of an event. Fields of an application have any types. */
export function entryOf(event: Event): Entry {
  const time = typeof event.time === "string" ? Date.parse(event.time) / 1_000 : Number(event.timestamp ?? NaN);
  return {
    seq: 0,
    kind: "event",
    id: kept(event.id),
    time,
    type: kept(event.type),
    name: kept(event.name),
    state: kept(event.state),
    uuid: kept(event.uuid),
    root_id: kept(event.root_id),
    parent_id: kept(event.parent_id),
    hostname: kept(event.hostname),
    queue: kept(event.queue),
    cluster: kept(event.cluster),
    detail: kept(brief(event), MAX_DETAIL),
    isFailure: event.type === "task-failed" || event.type === "task-lost",
  };
}

/** Return a row that is not an event. */
export function noteOf(kind: Exclude<Entry["kind"], "event">, detail: string): Entry {
  return { ...entryOf({} as Event), kind, detail };
}

const GAP_REASONS: { readonly [reason in Gap["reason"]]: string } = {
  evicted: "they were no longer in the gateway's history",
  slow: "this page was too slow",
  broker: "the gateway lost its connection to the broker",
  "unknown-id": "the gateway was restarted, or does not know this page's position",
};

/** Return the text of a gap. */
export function gapText({ reason, lost, cluster }: Gap): string {
  const what = lost === null ? "Events may be missing here" : `${plural(lost, "event is", "events are")} missing here`;
  return `${what}${cluster === undefined ? "" : ` of ${cluster}`}: ${GAP_REASONS[reason] ?? asText(reason)}.`;
}

/** Return whether an event with a time is one from before its stream was open, `ageMs` ago. Clocks of workers may be far behind. */
export function isReplayed(time: number, now: number, ageMs: number): boolean {
  return ageMs < REPLAY_MS && time < now - ageMs / 1_000;
}

/** Return the text of skipped events. */
export function skippedText(skipped: Pick<Skipped, "count">, maxRate: number, isOld: boolean): string {
  return `${plural(skipped.count, isOld ? "older event" : "event")} not shown: this page shows at most ${count(maxRate)} a second.`;
}

/** Return the main details of an event, in one line. */
export function brief(event: Event): string {
  const { current, total, message, exception, result, runtime, args, kwargs, retries, eta, queue } = event;
  const isNumber = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value);
  if (isNumber(current) && isNumber(total) && total > 0) return `${count(current)} of ${count(total)} ${asText(message)}`.trimEnd();
  let parts: string[];
  if (exception) {
    parts = [exceptionText(event)];
  } else if (result !== undefined) {
    parts = [isNumber(runtime) ? duration(runtime) : "", asText(result)];
  } else if (args !== undefined) {
    parts = [args === "()" ? "" : asText(args), kwargs === "{}" ? "" : asText(kwargs), retries ? `retry ${asText(retries)}` : "",
      eta ? `at ${asText(eta)}` : "", queue ? `→ ${asText(queue)}` : ""];
  } else {
    parts = Object.entries(event)
      .filter(([field, value]) => !WITH_COLUMN.has(field) && value !== null && value !== false)
      .slice(0, 20)
      .map(([field, value]) => `${field}=${cut(asText(value), MAX_DETAIL)}`);
  }
  return parts.filter(Boolean).join(" · ");
}

const charsOf = (entry: Entry): number => 200 + entry.name.length + entry.uuid.length + entry.root_id.length + entry.hostname.length + entry.detail.length;

/** Rows, the oldest first. In place of the oldest ones that are too many there is a note with their number. */
class Rows {
  readonly entries: Entry[] = [];
  #chars = 0;

  /** @param end the number that the next row will have. */
  constructor(public end: number) {}

  get first(): number {
    return this.end - this.entries.length;
  }

  push(entry: Entry): void {
    const { entries } = this;
    if (entry.kind === "filter" && entries.at(-1)?.kind === "filter") {
      this.#chars -= charsOf(entries.pop()!);
      this.end--;
    }
    entry.seq = this.end++;
    entries.push(entry);
    this.#chars += charsOf(entry);
    while (entries.length > MAX_ENTRIES || this.#chars > MAX_CHARS) this.#drop(Math.ceil(entries.length / 10));
  }

  /** Give all rows other numbers. */
  move(by: number): void {
    this.end += by;
    for (const entry of this.entries) entry.seq += by;
  }

  #drop(number: number): void {
    const { first } = this;
    let missing = 0;
    for (const entry of this.entries.splice(0, number + 1)) {
      this.#chars -= charsOf(entry);
      missing += entry.missing ?? Number(entry.kind === "event");
    }
    const detail = `${plural(missing, "event")} not kept: the page keeps the newest ${count(MAX_ENTRIES)}.`;
    const note = { ...noteOf("note", detail), seq: first + number, missing };
    this.entries.unshift(note);
    this.#chars += charsOf(note);
  }
}

/** The newest rows. While it holds, the rows that were there stay, and the newest of those that come are kept beside them. */
export class TailBuffer {
  #rows = new Rows(0);
  /** Those that came since it holds. */
  #fresh: Rows | undefined;

  get length(): number {
    return this.#rows.entries.length + (this.#fresh?.entries.length ?? 0);
  }

  /** The number of the oldest row; that of the next one if there is none. */
  get first(): number {
    return this.#rows.first;
  }

  /** The number that the next row will have. */
  get end(): number {
    return (this.#fresh ?? this.#rows).end;
  }

  /** The number after the newest row that was there when it began to hold; undefined if it does not hold. */
  get heldEnd(): number | undefined {
    return this.#fresh && this.#rows.end;
  }

  /** Return the row with a number, if it is still there. */
  at(seq: number): Entry | undefined {
    const rows = this.#fresh && seq >= this.#rows.end ? this.#fresh : this.#rows;
    return rows.entries[seq - rows.first];
  }

  /** Keep the rows that are there until `release`. */
  hold(): void {
    this.#fresh ??= new Rows(this.#rows.end);
  }

  /** Continue. Rows get other numbers if some that came are not kept. */
  release(): void {
    const fresh = this.#fresh;
    if (!fresh) return;
    this.#fresh = undefined;
    this.#rows.move(fresh.first - this.#rows.end);
    for (const entry of fresh.entries) this.#rows.push(entry);
  }

  /** Add a row as the newest. A note about the filter replaces one that is the newest. */
  push(entry: Entry): void {
    (this.#fresh ?? this.#rows).push(entry);
  }

  /** Keep only the events that a filter passes, and no notes about filters. Rows get other numbers. */
  keep(passes: Matcher): void {
    this.release();
    const { entries, end } = this.#rows;
    const kept = entries.filter((entry) => (entry.kind === "event" ? passes(fieldsOf(entry)) : entry.kind !== "filter"));
    this.#rows = new Rows(end - kept.length);
    for (const entry of kept) this.#rows.push(entry);
  }

  clear(): void {
    this.#rows = new Rows(this.end);
    this.#fresh = undefined;
  }
}

/** A row has no difference between an empty value and none. */
function fieldsOf(entry: Entry): { readonly [field: string]: unknown } {
  return Object.fromEntries(Object.entries(entry).map(([field, value]) => [field, value || null]));
}

/** Whether the list follows. */
export interface TailState {
  readonly isHeld: boolean;
  /** Rows that came since the list holds. */
  readonly unseen: number;
}

/** What a list of rows reports. */
export interface TailCallbacks {
  readonly changed: (state: TailState) => void;
  readonly selected: (entry: Entry | null) => void;
  /** A value was clicked: only this value, or without it. */
  readonly filtered: (field: string, value: string, isWithout: boolean) => void;
}
