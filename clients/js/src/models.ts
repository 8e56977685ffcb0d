/** What is made of events: a task or a workflow, of its tasks' records, and the table of workers. */
import { nowMs } from "./environment.js";
import type { Model } from "./feed.js";
import { checked } from "./filter.js";
import { Roster } from "./roster.js";
import { apply } from "./task.js";
import type { Task, Worker } from "./types.js";

const enum Ms {
  /** Values of many parts change no more than 20 times a second. */
  PACE = 50,
  /** How long a worker's end may go unnoticed. */
  LOOK_AGAIN = 2_000,
}

/**
 * Return how to make a value of the tasks of one uuid or one root_id.
 *
 * @param make is given them by uuid, in the order in which they became known.
 * @throws TypeError without an id.
 */
export function tasks<T>(
  field: "uuid" | "root_id",
  id: string,
  make: (tasks: ReadonlyMap<string, Task>) => T | null,
): () => Model<T> {
  const filters = [{ [field]: checked(field, [id]) }];
  return () => {
    const known = new Map<string, Task>();
    return {
      filters,
      paceMs: field === "uuid" ? 0 : Ms.PACE,
      event(event) {
        const { uuid = "", type } = event;
        if (type.startsWith("task-")) known.set(uuid, apply(known.get(uuid), event));
      },
      /** What is told replaces what was known, what is not stays: the gateway may have forgotten it. */
      refresh(pages) {
        for (const page of pages) for (const task of page.tasks) if (task[field] === id) known.set(task.uuid, task);
      },
      make: () => make(known),
    };
  };
}

/** All workers, of whom every snapshot tells. */
export function workers(): Model<readonly Worker[]> {
  const roster = new Roster();
  return {
    filters: [{ type: ["worker-*"] }],
    paceMs: Ms.PACE,
    lookAgainMs: Ms.LOOK_AGAIN,
    event: (event) => roster.hear(event, nowMs()),
    refresh(pages) {
      for (const page of pages) for (const worker of page.workers) roster.put(worker, nowMs());
    },
    make: () => roster.look(nowMs()),
  };
}
