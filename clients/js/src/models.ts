/** The models of a task and of a workflow, from the records of tasks. */
import { type Attempts, attempts } from "./attempts.js";
import { nothing } from "./environment.js";
import { GatewayError } from "./errors.js";
import type { Model } from "./feed.js";
import { escape, matcher, parse } from "./filter.js";
import type { Request } from "./http.js";
import { outlive } from "./task.js";
import type { Filter, Task } from "./types.js";
import { keyOf, shrink } from "./values.js";

const enum Ms {
  /** Values of many parts change at most 20 times a second. */
  PACE = 50,
}

const enum Max {
  /** As many as the gateway remembers. */
  TASKS = 100_000,
}

/** Makes a value of the tasks with an id, in the order in which they became known, and of the one that changed last. */
export type MakeTasks<T> = (tasks: readonly Task[], last: Task) => T | null;

/**
 * Return a function that returns a model of the tasks of one uuid or one root_id.
 *
 * @param refuse is called once if the root_id is the uuid of a task that belongs to another root, and once for too many.
 * @param cluster the broker's name; undefined for any broker.
 * @param maxTasks beyond it the oldest tasks are dropped, but not the root; `refuse` is called once.
 * @param get fetches the attempts; without it the records have none.
 * @throws TypeError without an id.
 */
export function tasks<T>(
  field: "uuid" | "root_id",
  id: string,
  make: MakeTasks<T>,
  refuse: (error: Error) => void = nothing,
  cluster?: string,
  maxTasks: number = Max.TASKS,
  get?: Request,
): () => Model<T> {
  const fields = [...new Set([field, "uuid"])]; // the task itself, too: it may belong to another root
  const filters = parse(fields.map((field) => ({ [field]: [id && escape(id)], cluster: cluster && escape(cluster) }) as Filter));
  const matches = matcher(filters);
  return () => {
    const known = new Map<string, Task>();
    let last: Task | undefined;
    let error: Error | undefined;
    let isFull = false;
    let kept: Attempts | undefined;
    const put = (task: Task): void => {
      if (task[field] === id) kept?.look(task, known.get(keyOf(task.cluster, task.uuid)));
      known.set(keyOf(task.cluster, task.uuid), task);
      if (shrink(known, maxTasks, ({ uuid }) => uuid === id)) {
        if (!isFull) refuse(new GatewayError(`too many tasks: at most ${maxTasks} are kept`, { code: "too-many-tasks" }));
        isFull = true;
      }
      if (task[field] === id) last = task;
      else if (task.uuid === id && task.root_id && !error) {
        error = new GatewayError(`the task ${id} belongs to the root ${task.root_id}`, { code: "not-a-root" });
        refuse(error);
      }
    };
    return {
      filters,
      wants: { view: "record" },
      paceMs: field === "uuid" ? 0 : Ms.PACE,
      start({ changed }) {
        if (get) kept = attempts(get, field, id, cluster, changed);
        return () => kept?.end();
      },
      get error() {
        return error;
      },
      event(event, record) {
        const { uuid, cluster } = record ?? event;
        const before = known.get(keyOf(cluster, uuid));
        const task = record ? { children: before?.children ?? [], ...record } : outlive(before, event);
        if (task) put(task);
      },
      /** A record replaces what was known. A task that is missing stays: the gateway may have evicted it. */
      refresh(pages) {
        for (const page of pages) for (const task of page.tasks) if (matches(task as {})) put(task);
      },
      make() {
        const add = (task: Task): Task => kept?.add(task) ?? task;
        return last ? make([...known.values()].filter((task) => task[field] === id).map(add), add(last)) : null;
      },
    };
  };
}
