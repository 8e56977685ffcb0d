import type { Task } from "./types.js";

/** The gateway has refused something, or did not answer like a gateway. */
export class GatewayError extends Error {
  override readonly name = "GatewayError";
  /** A stable word for programs, such as `bad-value`. */
  declare readonly code: string;
  /** Of the HTTP answer; undefined where it was told in a WebSocket. */
  declare readonly status: number | undefined;
  /** What of the request was wrong, where the gateway says so. */
  declare readonly parameter: string | undefined;

  constructor(message: string, told: { code: string; status?: number; parameter?: string | undefined }) {
    super(message);
    Object.assign(this, told);
  }
}

/** A task has ended in FAILURE or REVOKED; the message is its exception. */
export class TaskError extends Error {
  override readonly name = "TaskError";
  declare readonly task: Task;

  constructor(task: Task) {
    super(task.exception ?? `${task.name}: ${task.state}`);
    this.task = task;
  }
}
