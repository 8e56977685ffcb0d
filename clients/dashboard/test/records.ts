import type { Attempt, Task, WorkflowTask } from "../../js/src/types.ts";

/** Return a record of a task, with `null` where nothing else is given. */
export function record(uuid: string, fields: Partial<Task> = {}): Task {
  return {
    ...{ uuid, name: "shop.pay", state: "PENDING", root_id: "r", parent_id: null, type: null, timestamp: 0, worker: null, client: null },
    ...{ queue: null, exchange: null, routing_key: null, sent: null, received: null, started: null, succeeded: null, failed: null },
    ...{ retried: null, revoked: null, rejected: null, lost: null, args: null, kwargs: null, eta: null, expires: null, retries: 0 },
    ...{ attempt: 1, queued_seconds: null, runtime: null, result: null, exception: null, traceback: null, custom_at: null, custom: null },
    ...{ progress: null, clock: null, pid: null, children: [], stale: false },
    ...fields,
  };
}

/** Return a task of a workflow. */
export function node(uuid: string, children: readonly WorkflowTask[] = [], fields: Partial<Task> = {}): WorkflowTask {
  return { ...record(uuid, fields), children };
}

export function attempt(fields: Partial<Attempt>): Attempt {
  return { ...{ retries: 0, state: "STARTED", worker: null, pid: null, sent: null, eta: null, received: null, started: null, ended: null }, exception: null, ...fields };
}
