/**
 * A task's record, and how events change it: as the gateway's own record goes when events come in order.
 * What state a task is in is the gateway's word, on every event. Pure.
 */
import type { Event, Task } from "./types.js";

type Mutable<T> = { -readonly [field in keyof T]: T[field] };
type TimeField =
  | "sent"
  | "received"
  | "started"
  | "succeeded"
  | "failed"
  | "retried"
  | "revoked"
  | "rejected"
  | "informed";

const CALL = ["args", "kwargs", "eta", "expires"];
const ERROR = ["exception", "traceback"];
/** By type of event: where its time goes, and which of its fields are kept. */
const RULES: { [type: string]: [TimeField | null, readonly string[]] } = {
  "task-sent": ["sent", [...CALL, "queue", "exchange", "routing_key"]],
  "task-received": ["received", CALL],
  "task-started": ["started", []],
  "task-succeeded": ["succeeded", ["result"]],
  "task-failed": ["failed", ERROR],
  "task-retried": ["retried", ERROR],
  "task-rejected": ["rejected", []],
  "task-revoked": ["revoked", []],
  "task-cancelled": [null, []],
};
const CUSTOM_RULE: [TimeField, readonly string[]] = ["informed", []];
/** What is no field of a custom event's own. */
const COMMON =
  "type uuid timestamp hostname utcoffset pid clock local_received time id cluster name root_id parent_id state".split(
    " ",
  );

/** Tell whether a task has ended, whichever way. */
export function isReady(task: { readonly state: string | null }): boolean {
  return ["SUCCESS", "FAILURE", "REVOKED"].includes(task.state as string);
}

/**
 * Return a task's record after one of its events.
 *
 * @param known before it; undefined if there is none yet.
 */
export function apply(known: Task | undefined, event: Event): Task {
  const { type, hostname } = event;
  const [timeField, fields] = RULES[type] ?? CUSTOM_RULE;
  const task: Mutable<Task> = { ...(known ?? blank(event)), stale: false };
  const timestamp = number(event.timestamp) ?? task.timestamp;
  const before = timeField && task[timeField];
  const isNew = before === null || timestamp > before;
  const isYoung = isNew || timestamp === before;
  const [isSent, isReceived] = [type === "task-sent", type === "task-received"];
  const isCustom = timeField === "informed";

  take(task, event, isSent, isReceived);
  if (isReceived && isNew && task.informed !== null && (task.informed <= timestamp || hostname !== task.worker)) {
    task.informed = task.info = task.progress = null; // they were of the attempt before
  }
  if (timestamp >= task.timestamp) {
    task.type = type;
    task.timestamp = timestamp;
    task.clock = number(event["clock"]) ?? task.clock;
  }
  if (hostname?.includes("@")) {
    if (isSent) task.client = isYoung ? hostname : task.client;
    else if (isCustom) task.worker ??= /^gen\d+@/.test(hostname) ? null : hostname; // clients send such, too
    else if (isNew) [task.worker, task.pid] = [hostname, number(event["pid"])];
  }
  if (timeField && isYoung) task[timeField] = timestamp;
  for (const field of fields) takeField(task, event, field, isYoung);
  if (isCustom && isYoung) {
    const info = Object.fromEntries(Object.entries(event).filter(([field]) => !COMMON.includes(field)));
    task.info = Object.keys(info).length ? info : null;
    task.progress = progress(info);
  }
  const retries = number(event["retries"]);
  if ((isSent || isReceived) && retries !== null) {
    const isYoungest = timestamp >= (task.sent ?? 0) && timestamp >= (task.received ?? 0);
    if (isYoungest || retries > task.retries) task.retries = retries;
    task.attempts = Math.max(task.attempts, task.retries);
  }
  if (isNew) measure(task, event, before, timestamp);
  return task;
}

/** What a task is called: the worker's word goes before the client's, and both before what others say. */
function take(task: Mutable<Task>, event: Event, isSent: boolean, isReceived: boolean): void {
  const isAuthority = isReceived || (isSent && task.received === null);
  for (const field of ["name", "root_id", "parent_id"] as const) {
    const value = event[field];
    // A retried task without a parent is sent again as its own child (celery/app/task.py, retry).
    if (typeof value !== "string" || (field === "parent_id" && value === task.uuid)) continue;
    if (isAuthority || task[field] === null) task[field] = value;
  }
  task.state = event.state ?? task.state;
}

function takeField(task: { [field: string]: unknown }, event: Event, field: string, isYoung: boolean): void {
  const value = event[field];
  const isKnown = task[field] !== null;
  const isPlanned = field === "eta" || field === "expires"; // of which null says that there is none
  const isSecondHand = event.type === "task-sent" && task["received"] !== null && CALL.includes(field);
  if ((isSecondHand || !isYoung) && (isPlanned || isKnown)) return;
  if (typeof value === "string" || (isPlanned && value !== undefined)) task[field] = value;
}

/** Count attempts, and tell how long the last one waited and ran. */
function measure(task: Mutable<Task>, event: Event, before: number | null, timestamp: number): void {
  const { started } = task;
  switch (event.type) {
    case "task-started": {
      task.attempts = Math.max(task.attempts + 1, task.retries);
      const since = task.attempts <= task.retries + 1 ? null : before; // each had a message of its own
      const queued = [task.sent, task.rejected, task.received].find(
        (time) => time !== null && time <= timestamp && (since === null || time > since),
      );
      task.queued_seconds = queued == null ? null : timestamp - queued;
      task.runtime = null;
      break;
    }
    case "task-sent": // read after what the worker says of it
      if (started !== null && timestamp <= started && task.attempts <= task.retries + 1) {
        task.queued_seconds = started - timestamp;
      }
      break;
    case "task-succeeded":
      if (started !== null) task.attempts = Math.max(task.attempts, task.retries + 1);
      task.runtime = number(event["runtime"]) ?? since(started, timestamp);
      break;
    case "task-failed":
      task.runtime = since(started, timestamp);
  }
}

function since(started: number | null, timestamp: number): number | null {
  return started === null || timestamp < started ? null : timestamp - started;
}

function progress(info: { [field: string]: unknown }): number | null {
  const [said, current, total] = [number(info["progress"]), number(info["current"]), number(info["total"])];
  if (said !== null && said >= 0 && said <= 1) return said;
  return current !== null && total !== null && total > 0 ? Math.min(1, Math.max(0, current / total)) : null;
}

export function number(value: unknown): number | null {
  return typeof value === "number" ? value : null;
}

/** A record of which nothing is known but whose it is. */
function blank(event: Event): Task {
  const nothing =
    "name state root_id parent_id type worker client queue exchange routing_key sent received started succeeded failed retried revoked rejected args kwargs eta expires queued_seconds runtime result exception traceback informed info progress clock pid";
  return {
    uuid: event.uuid,
    ...Object.fromEntries(nothing.split(" ").map((field) => [field, null])),
    timestamp: 0,
    retries: 0,
    attempts: 0,
    ...("cluster" in event && { cluster: event["cluster"] }),
    children: [],
    stale: false,
  } as unknown as Task;
}
