/** What is made of events: a task or a workflow, of its tasks' records, and the table of workers. */
import { nothing, nowMs } from "./environment.js";
import { GatewayError } from "./errors.js";
import type { Model } from "./feed.js";
import { escape, matcher, parse } from "./filter.js";
import { Roster } from "./roster.js";
import { apply, keyOf } from "./task.js";
import type { Filter, Source, Task, Worker } from "./types.js";

const enum Ms {
  /** Values of many parts change at most 20 times a second. */
  PACE = 50,
  /** How long a worker's silence may go unnoticed. */
  LOOK_AGAIN = 2_000,
}

/** Makes a value of the tasks with an id, in the order in which they became known, and the one that changed last. */
export type MakeTasks<T> = (tasks: readonly Task[], last: Task) => T | null;

/**
 * Return how to make a value of the tasks of one uuid or one root_id.
 *
 * @param refuse is called once if the root_id is the uuid of a task that belongs to another root.
 * @param cluster the broker's name; undefined for any broker.
 * @throws TypeError without an id.
 */
export function tasks<T>(
  field: "uuid" | "root_id",
  id: string,
  make: MakeTasks<T>,
  refuse: (error: Error) => void = nothing,
  cluster?: string,
): () => Model<T> {
  const fields = [...new Set([field, "uuid"])]; // the task itself, too: it may belong to another root
  const filters = parse(fields.map((field) => ({ [field]: [id && escape(id)], cluster: cluster && escape(cluster) }) as Filter));
  const matches = matcher(filters);
  return () => {
    const known = new Map<string, Task>();
    let last: Task | undefined;
    let tell = refuse;
    const put = (task: Task): void => {
      known.set(keyOf(task.cluster, task.uuid), task);
      if (task[field] === id) last = task;
      else if (task.root_id) {
        tell(new GatewayError(`the task ${id} belongs to the root ${task.root_id}`, { code: "not-a-root" }));
        tell = nothing;
      }
    };
    return {
      filters,
      paceMs: field === "uuid" ? 0 : Ms.PACE,
      event(event) {
        const { uuid, cluster, type } = event;
        // An application's event may have a field `cluster` though the broker has no name.
        const before = known.get(keyOf(undefined, uuid)) ?? known.get(keyOf(cluster, uuid));
        if (type.startsWith("task-")) put(apply(before, event));
      },
      /** A record replaces what was known. A task that is missing stays: the gateway may have evicted it. */
      refresh(pages) {
        for (const page of pages) for (const task of page.tasks) if (matches(task as {})) put(task);
      },
      make: () => (last ? make([...known.values()].filter((task) => task[field] === id), last) : null),
    };
  };
}

/** All workers, which every snapshot has. */
export function workers(sources: () => readonly Source[]): Model<readonly Worker[]> {
  const roster = new Roster();
  return {
    filters: [{ type: ["worker-*"] }],
    paceMs: Ms.PACE,
    lookAgainMs: Ms.LOOK_AGAIN,
    event: (event) => roster.hear(event, nowMs()),
    refresh: (pages) => roster.refresh(pages.flatMap((page) => page.workers), nowMs()),
    make: () => roster.look(nowMs(), sources()),
  };
}
