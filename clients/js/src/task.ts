/**
 * A task's record, and how each event changes it: as in the gateway (gateway/course.py). Events come in the order
 * in which they arrived at the gateway; their timestamps are not compared. Pure.
 *
 * The record shows one attempt, number `attempts`; 0 means that the task is only sent. Each event has the number of
 * its attempt in the current run (0 in an earlier run), and the task's state after it:
 *
 * - A higher number opens an attempt, if the state is the one that the event reports.
 * - A lower number belongs to an older attempt, if the event leaves the state as it is; so does an event that reports
 *   more than the state. Older attempts change only `retried` and `rejected`.
 * - A run begins where the state leaves SUCCESS, FAILURE or REVOKED, and with a `task-sent` in PENDING.
 */
import type { Event, Task } from "./types.js";

type Fields = { [field: string]: any };

/** Celery's event types without `task-`, and the states that they report: within an attempt the index only grows. */
const WORDS = words("sent lost received started retried cancelled rejected succeeded failed revoked");
const STATES = words("PENDING LOST RECEIVED STARTED RETRY CANCELLED REJECTED SUCCESS FAILURE REVOKED");
const enum Rank {
  LOST = 1,
  RECEIVED = 2,
  STARTED = 3,
  CUSTOM = 3.5,
  REJECTED = 6,
}
const enum Max {
  TEXT = 32_000,
  STATE = 255,
}
/** Fields that are texts. The first two are of a plan, the first four of a call, the last three of an outcome. */
const TEXTS = words("eta expires args kwargs queue exchange routing_key result exception traceback");
const BLANK_RUN = {
  ...blank(TEXTS.slice(7)),
  ...blank(words("sent received started retried rejected succeeded failed revoked lost queued_seconds runtime informed info progress")),
  stale: false,
};
const BLANK = {
  ...blank(TEXTS),
  ...blank(words("name root_id parent_id state type clock client worker pid")),
  ...BLANK_RUN,
  timestamp: 0,
  retries: 0,
  attempts: 0,
  children: [],
};

/** Return whether a task has ended, whichever way. */
export function isReady({ state }: { readonly state?: string | null | undefined }): boolean {
  return rankOf(state) > Rank.REJECTED;
}

/** Return where a state stands within an attempt. */
function rankOf(state: string | null | undefined): number {
  const index = STATES.indexOf(state ?? "PENDING");
  return index < 0 ? Rank.CUSTOM : index;
}

/** Return an id as text, as the gateway does: Celery accepts ids of any JSON type. */
export function idText(id: unknown): string | undefined {
  return typeof id === "string" ? id : JSON.stringify(id ?? undefined);
}

/** Return what identifies a task or a worker: several brokers may have the same uuid or hostname. */
export function keyOf(cluster: unknown, id: unknown): string {
  return `${[cluster, idText(id)]}`;
}

/**
 * Return a task's record after one of its events.
 *
 * @param known the record before it; undefined if there is none yet.
 */
export function apply(known: Task | undefined, event: Event): Task {
  const { type, uuid, timestamp, hostname, clock, pid, utcoffset, local_received, time, id, cluster, ...rest } = event;
  let { name, root_id, parent_id, queue, state, attempt, ...own }: Fields = rest;
  const task: Fields = { ...(known ?? { ...BLANK, uuid: idText(uuid), ...((cluster && { cluster }) as {}) }) };
  const { state: before, attempts, sent, retried, rejected } = task;
  const at = timestamp ?? null;
  const word = type.slice(5);
  const index = word === "lost" && own.source !== "gateway" ? -1 : WORDS.indexOf(word);
  const isCustom = index < 0;
  const isSent = !index;
  const isReceived = index === Rank.RECEIVED;
  const custom = word.toUpperCase().slice(0, Max.STATE);
  const reported = STATES[index] ?? (STATES.includes(custom) ? "STARTED" : custom);
  let retries = own.retries ?? task.retries;
  attempt ??= attempts;

  if (isCustom) {
    // Fields `state` and `attempt` of the application replace those of the gateway: the record decides.
    const isOver = rankOf(before) > Rank.CUSTOM;
    if (isReady(task) || (isOver && state !== reported)) state = before;
    else if (state !== before) state = reported;
    if (state !== before || !(attempt < attempts)) attempt = attempts + +(!attempts || (isOver && state !== before));
  }
  const isNews = state === reported;
  const isDiscarded = word === "revoked" && own.terminated !== true && at !== task.revoked; // by a worker, unread
  const isRun = isNews && (isSent || (isReady(task) && (isDiscarded || state !== before)));
  // A redelivered message may be reported as sent when a later attempt at it is shown.
  const isOlder = attempt < attempts && !(isNews && state !== before) && !(isSent && attempt && retries === task.retries);
  // A worker's names replace a client's.
  if (isReceived || !task.root_id || isRun || (isSent && attempt === task.attempts && !task.received)) {
    const parent = idText(parent_id);
    task.name = name ?? task.name;
    task.root_id = idText(root_id) ?? task.root_id ?? (isSent || isReceived ? task.uuid : null);
    // A retried task without a parent is sent again as its own child (celery/app/task.py, retry).
    if (parent !== task.uuid) task.parent_id = parent ?? task.parent_id;
  }

  if (isRun) Object.assign(task, BLANK_RUN, { retries: (retries = own.retries ?? 0) });
  else if (attempt > attempts && isNews) Object.assign(task, BLANK_RUN, { sent, retried, rejected });
  else if (isOlder || (isSent ? retries < task.retries : rankOf(state) < rankOf(reported))) {
    if (isOlder && attempt && /^re[tj]/.test(word)) task[word] = at; // 0: of a run before
    return task as Task;
  }
  task.state = state;
  if (!isSent) task.attempts = attempt;
  else if (isRun) Object.assign(task, { attempts: 0, worker: null, pid: null });
  if (isNews) {
    Object.assign(task, { type, timestamp: at ?? task.timestamp, clock: clock ?? task.clock });
    Object.assign(task, { lost: null, stale: index === Rank.LOST });
  }

  if (isCustom) {
    const { progress, current, total } = own;
    const parts = [progress, total > 0 ? Math.min(Math.max(current / total, 0), 1) : null];
    task.progress = parts.find((part) => typeof part === "number" && part >= 0 && part <= 1) ?? null;
    task.informed = at ?? task.informed;
    task.info = Object.keys(own)[0] ? own : null;
    if (/^(?!gen\d+@).*@/.test(hostname ?? "")) task.worker ??= hostname; // not a client's
  } else {
    if (isSent) task.client = hostname;
    else Object.assign(task, { worker: hostname, pid: pid ?? null });
    if (isNews || index <= Rank.STARTED) {
      if (word in BLANK) task[word] = at;
      if (retries >= task.retries) {
        takeTexts(task, event, isSent && attempt <= task.attempts && task.received);
        task.retries = retries;
      }
      if (index > Rank.STARTED) {
        task.runtime = (word === "succeeded" ? own.runtime : null) ?? null;
        for (const field of TEXTS.slice(7)) if (!(field in own)) task[field] = null; // of another outcome
      }
      if (attempt <= task.attempts) measure(task, index <= Rank.STARTED);
    }
  }
  if (task.state === "SUCCESS") task.progress = 1;
  return task as Task;
}

/**
 * Set the texts that an event has.
 *
 * @param isSecondHand a worker's account of the call replaces the client's, which only fills what is missing.
 */
function takeTexts(task: Fields, event: Event, isSecondHand: boolean): void {
  TEXTS.forEach((field, index) => {
    const value = event[field];
    if (isSecondHand && (index < 2 || (index < 4 && task[field] !== null))) return;
    if (typeof value === "string") task[field] = value.slice(-Max.TEXT);
    else if (index < 2 && value !== undefined) task[field] = value; // null: it is not planned
  });
}

/** Set how long the attempt was in the queue, until it began, and how long it ran if its worker does not say. */
function measure(task: Fields, isBegin: boolean): void {
  const { started, received, rejected, attempts, retries, succeeded, failed } = task;
  let { sent } = task;
  if (!started) return;
  // An attempt that went back to the queue had no message of its own.
  if (attempts > retries + 1 && !(rejected && sent > rejected)) sent = rejected;
  const queuedAt = sent && sent <= started ? sent : received;
  if (isBegin) task.queued_seconds = queuedAt && queuedAt <= started ? started - queuedAt : null;
  const ended = succeeded ?? failed;
  if (ended >= started) task.runtime ??= ended - started;
}

export function words(text: string): string[] {
  return text.split(" ");
}

/** Return an object whose fields are null. */
export function blank(fields: readonly string[]): { [field: string]: null } {
  return Object.fromEntries(fields.map((field) => [field, null]));
}
