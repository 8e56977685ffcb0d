/**
 * A task's record. The gateway sends it with each event (`view=record`); here is what replaces it after the gateway has
 * evicted the task. Pure.
 */
import type { Event, Task } from "./types.js";
import { blank, idText, number, words } from "./values.js";

const READY = words("SUCCESS FAILURE REVOKED");
/** Fields that an event of Celery, and an event of a lost task, has under the same name. */
const TEXTS = "name root_id parent_id queue exchange routing_key args kwargs eta expires result exception traceback";
const OTHERS = "state type timestamp clock pid retries attempt runtime";
const TIMES = "sent received started succeeded failed retried revoked rejected lost";
const SHARED = words(`${TEXTS} ${OTHERS}`);
const BLANK = {
  ...blank(`${TEXTS} ${OTHERS} ${TIMES} worker client queued_seconds custom_at custom progress`),
  stale: false,
  children: [],
};

/** Return whether a task has ended, whichever way. */
export function isReady({ state }: { readonly state?: string | null | undefined }): boolean {
  return READY.includes(state!);
}

/** Return when a task began: sent, else received, else started; 0 if that is not known. */
export function begunAt({ sent, received, started }: Task): number {
  return number(sent || received || started) ?? 0;
}

/**
 * Return the record of a task that the gateway has evicted, after one of its events: only the fields that this event has
 * are current. Undefined if there is no record, and for an application's own event.
 *
 * @param known the record before it; undefined if there is none.
 */
export function outlive(known: Task | undefined, event: Event): Task | undefined {
  const { uuid, cluster, hostname, timestamp } = event;
  const word = event.type.slice(5);
  if (event.type !== `task-${word}` || !words(TIMES).includes(word) || uuid == null) return known;
  const task: { [field: string]: unknown } = { ...BLANK, uuid: idText(uuid), ...((cluster && { cluster }) as {}), ...known };
  for (const field of SHARED) if (typeof (event[field] ?? task) !== "object") task[field] = event[field];
  task[word] = timestamp;
  task[word === "sent" ? "client" : "worker"] = hostname;
  task["stale"] = task["state"] === "LOST";
  if (!task["stale"]) task["lost"] = null;
  if (task["state"] === "SUCCESS") task["progress"] = 1;
  return task as unknown as Task;
}
