import type { Task } from "./types.js";

/** The gateway has refused something, or did not answer like a gateway. */
export class GatewayError extends Error {
  override readonly name = "GatewayError";

  /**
   * @param code a stable word for programs, such as `bad-value`.
   * @param status of the HTTP answer; undefined where it was told in a WebSocket.
   * @param parameter what of the request was wrong, where the gateway says so.
   */
  constructor(
    readonly code: string,
    message: string,
    readonly status?: number,
    readonly parameter?: string,
  ) {
    super(message);
  }
}

/** A task has ended in FAILURE or REVOKED; the message is its exception. */
export class TaskError extends Error {
  override readonly name = "TaskError";

  constructor(readonly task: Task) {
    super(task.exception ?? `${task.name ?? "task"} ${task.uuid}: ${task.state}`);
  }
}
