import { nothing } from "./environment.js";
import type { Task } from "./types.js";

/** The gateway has refused a request, the answer is not that of a gateway, or the client cannot do what it is asked for. */
export class GatewayError extends Error {
  override readonly name = "GatewayError";
  /** A stable word for programs, such as `bad-value`. */
  declare readonly code: string;
  /** The status of the HTTP response; undefined if there was none, as over a WebSocket. */
  declare readonly status: number | undefined;
  /** The part of the request that was wrong, if the gateway has named it. */
  declare readonly parameter: string | undefined;
  /** The values that are possible there, if the gateway has listed them. */
  declare readonly allowed: readonly string[] | undefined;

  constructor(message: string, { code, status, parameter, allowed }: Details) {
    super(message);
    Object.assign(this, { code, status, parameter, allowed }); // not all that an answer has
  }
}

interface Details {
  readonly code: string;
  readonly status?: number | undefined;
  readonly parameter?: string | undefined;
  readonly allowed?: readonly string[] | undefined;
}

/** Return whether a response's status says that the same request is refused again. */
export function isFinal(status: number | undefined): boolean {
  return /^4(0[01345]|1[34]|31)$/.test(`${status}`);
}

/** Return the error of an HTTP response that is not a success, or not that of a gateway. */
export async function refusal(url: URL, response: Response): Promise<GatewayError> {
  const { status } = response;
  const { error } = (await response.json().catch(nothing)) ?? {};
  return new GatewayError(error?.message ?? `${url}: ${status}`, { code: "no-stream", ...error, status });
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
