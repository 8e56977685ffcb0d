/** Celery's events live: `connect` to a Celery Gateway, then watch events, tasks, workflows and workers. */
export { connect } from "./client.js";
export { GatewayError, TaskError } from "./errors.js";
export { escape } from "./filter.js";
export { login, logout } from "./session.js";
export type * from "./types.js";
