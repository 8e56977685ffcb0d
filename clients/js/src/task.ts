/**
 * A task's record, and how events change it: as the gateway's own record goes when events come in order.
 * What state a task is in is the gateway's word, on every event. Pure.
 */
import type { Event, Task } from "./types.js";

type Fields = { [field: string]: unknown };

/** Where the time of an event goes: its type without `task-`. That of a custom event goes to `informed`. */
const TIMES = words("sent received started succeeded failed retried revoked rejected informed");
const BLANK = {
  ...blank(TIMES),
  ...blank(words("name root_id parent_id state type clock args kwargs eta expires queue exchange routing_key client")),
  ...blank(words("worker pid queued_seconds runtime result exception traceback info progress")),
  timestamp: 0,
  retries: 0,
  attempts: 0,
  starts: 0,
  children: [],
};

/** Tell whether a task has ended, whichever way. */
export function isReady({ state }: { readonly state: string | null }): boolean {
  return /^(SUCCESS|FAILURE|REVOKED)$/.test(state ?? "");
}

/**
 * Return a task's record after one of its events.
 *
 * @param known before it; undefined if there is none yet.
 */
export function apply(known: Task | undefined, event: Event): Task {
  const { type, uuid, timestamp, hostname, state, clock, pid, utcoffset, time, id, cluster, ...rest } = event;
  const { name, root_id, parent_id, ...own } = rest;
  const task = { ...(BLANK as unknown as Task), ...known, uuid, stale: false } as { -readonly [f in keyof Task]: Task[f] };
  const record: Fields = task;
  if (cluster) record["cluster"] = cluster;
  const at = (timestamp ?? task.timestamp) as number;
  const word = type.slice(5);
  const isCustom = !TIMES.includes(word) && word !== "cancelled";
  const timeField = isCustom ? "informed" : word;
  const before = record[timeField] as number | null | undefined;
  const isSent = word === "sent";
  const isSecondHand = isSent && task.received; // the worker's word goes before the client's
  task.state = state ?? task.state;
  if (at >= task.timestamp) Object.assign(task, { type, timestamp: at, clock });
  const told = own["retries"] as number | undefined;
  // A client tells what it has sent when that may have begun already, or be over.
  if ((before && before >= at) || (isSent && (told ?? 0) < task.retries)) return task as Task;

  if (timeField in task) record[timeField] = at;
  if (isSent) task.client = hostname ?? null;
  else if (!isCustom) Object.assign(task, { worker: hostname, pid });
  if (word === "received" && (task.informed ?? 0) <= at) task.informed = task.info = task.progress = null; // the attempt before's
  // A retried task without a parent is sent again as its own child (celery/app/task.py, retry).
  const said: Fields = { ...(!isCustom && own), name, root_id, ...(parent_id !== uuid && { parent_id }) };
  for (const field in said) {
    const isFree = record[field] === null || !(isCustom || isSecondHand);
    if (field in BLANK && field !== "retries" && isFree) record[field] = said[field] ?? record[field];
  }
  // A retry may be heard of before what its worker says of the attempt that it follows, in a batch.
  if (told! > task.retries || (word === "received" && at >= (task.sent ?? 0))) task.retries = told ?? 0;
  if (isCustom) {
    const { progress = NaN, current = NaN, total = NaN } = own as { [field: string]: number };
    const part = progress <= 1 ? progress : total > 0 ? current / total : -1;
    Object.assign(task, { info: Object.keys(own)[0] ? own : null, progress: part >= 0 ? Math.min(part, 1) : null });
  }
  if (word === "started") task.starts++;
  if (word === "received" && !before) task.starts ||= told ?? 0; // so often before the gateway listened
  const isLast = word === "succeeded" && task.started;
  task.attempts = Math.max(task.starts, task.attempts, task.retries + (isLast ? 1 : 0));
  const { started, sent, rejected, received, attempts, retries } = task;
  const isRedelivered = attempts > retries + 1; // otherwise each attempt had a message of its own
  if (word === "started") {
    const since = (isRedelivered && before) || 0;
    const last = (...times: (number | null)[]): number => Math.max(0, ...times.filter((time) => time! <= at && time! > since) as number[]);
    const queued = last(sent, rejected) || last(received);
    task.queued_seconds = queued ? at - queued : null;
    task.runtime = null;
  } else if (isSent && started && at <= started && !isRedelivered) {
    task.queued_seconds = started - at; // it is read after what the worker says
  } else if (/^(succeeded|failed)$/.test(word)) {
    task.runtime = (own["runtime"] as number | null) ?? (started && at >= started ? at - started : null);
  }
  return task as Task;
}

export function words(text: string): string[] {
  return text.split(" ");
}

/** Return an object with fields of which nothing is known. */
export function blank(fields: readonly string[]): { [field: string]: null } {
  return Object.fromEntries(fields.map((field) => [field, null]));
}
