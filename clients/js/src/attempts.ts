/** The attempts of tasks: records of events have none, so they are fetched after a change. */
import { after, nothing, nowMs } from "./environment.js";
import type { Request } from "./http.js";
import type { Attempt, Task, WorkflowTask } from "./types.js";

const enum Ms {
  /** Between two requests. */
  PACE = 1_000,
  /** After a failure. */
  RETRY = 5_000,
}

/** What keeps the attempts of some tasks. */
export interface Attempts {
  /** A record is known, after another one. */
  look(task: Task, before: Task | undefined): void;
  /** Return a record with its attempts, if they are known. */
  add(task: Task): Task;
  end(): void;
}

/**
 * @param field a task (`uuid`), or those of a workflow: these are fetched once one of them has a second attempt.
 * @param changed is called after they were fetched.
 */
export function attempts(
  get: Request,
  field: "uuid" | "root_id",
  id: string,
  cluster: string | undefined,
  changed: () => void,
): Attempts {
  const path = `/${field === "uuid" ? "tasks" : "workflows"}/${encodeURIComponent(id)}`;
  const known = new Map<string, readonly Attempt[]>();
  /** The same object for the same record and attempts. */
  const made = new WeakMap<Task, Task>();
  const ending = new AbortController();
  let atMs = -Infinity;
  let isPlanned = false;
  let cancel = nothing;

  const plan = (pauseMs: number): void => {
    if (isPlanned) return;
    isPlanned = true;
    cancel = after(Math.max(0, atMs + pauseMs - nowMs()), () => {
      isPlanned = false;
      atMs = nowMs();
      get(path, { fields: "attempts", cluster }, ending.signal).then(
        (answer: { tasks?: WorkflowTask[] }) => {
          for (let level = answer.tasks ?? [answer as WorkflowTask]; level[0]; ) {
            for (const { uuid, attempts } of level) {
              if (attempts && JSON.stringify(attempts) !== JSON.stringify(known.get(uuid))) known.set(uuid, attempts);
            }
            level = level.flatMap(({ children }) => (answer.tasks ? children : []));
          }
          changed();
        },
        (error) => ending.signal.aborted || error.status < 500 || plan(Ms.RETRY),
      );
    });
  };

  return {
    look(task, before) {
      const isMany = field === "uuid" || task.attempt > 1 || task.retries > 0;
      const isOther = (["state", "attempt", "worker", "started"] as const).some((field) => before?.[field] !== task[field]);
      if (isMany && isOther) plan(Ms.PACE);
    },
    add(task) {
      const found = known.get(task.uuid);
      if (!found || found === task.attempts) return task;
      const before = made.get(task);
      if (before?.attempts === found) return before;
      const added = { ...task, attempts: found };
      made.set(task, added);
      return added;
    },
    end() {
      ending.abort();
      cancel();
    },
  };
}
