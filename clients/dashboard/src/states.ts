/** The states of tasks: each has a colour, a shape and its word. Pure. */
import type { Task } from "../../js/src/types.ts";

export interface StateLook {
  /** The class `state-…` of its colour, also for bars. */
  readonly kind: "done" | "failed" | "retry" | "running" | "waiting" | "off" | "lost" | "custom";
  readonly shape: string;
}

const LOOKS: { readonly [state: string]: StateLook | undefined } = Object.assign(Object.create(null), {
  PENDING: { kind: "waiting", shape: "…" },
  RECEIVED: { kind: "waiting", shape: "○" },
  STARTED: { kind: "running", shape: "●" },
  PROGRESS: { kind: "running", shape: "◐" },
  SUCCESS: { kind: "done", shape: "✓" },
  FAILURE: { kind: "failed", shape: "✗" },
  RETRY: { kind: "retry", shape: "↻" },
  REVOKED: { kind: "off", shape: "⊘" },
  REJECTED: { kind: "off", shape: "⊗" },
  LOST: { kind: "lost", shape: "?" },
});

/** Celery's states and `LOST`, in the order of a task's life. */
export const STATES = ["PENDING", "RECEIVED", "STARTED", "PROGRESS", "RETRY", "SUCCESS", "FAILURE", "REVOKED", "REJECTED", "LOST"] as const;

/** Return how a state is shown; a custom one as a running task. */
export function lookOf(state: string): StateLook {
  return LOOKS[state] ?? { kind: "custom", shape: "◆" };
}

/** The states of tasks that wait, and of those that run, as a filter. As in the gateway's numbers, tasks in a custom state run. */
export const WAITING = "PENDING,RECEIVED,RETRY,REJECTED,CANCELLED";
export const RUNNING = `${WAITING},SUCCESS,FAILURE,REVOKED,LOST`.replace(/\w+/g, "!$&");

/** Return whether a task in this state has ended. */
export function isReady(state: string): boolean {
  return state === "SUCCESS" || state === "FAILURE" || state === "REVOKED";
}

/** Return when a task started: not before it was sent, whatever its worker's clock says. */
export function startOf({ started, sent }: Pick<Task, "started" | "sent">): number | null {
  return started === null || sent === null ? started : Math.max(started, sent);
}

/** Return how long a task ran; of a lost one, until it counted as lost. Null if it has not ended, or that is not known. */
export function ranOf({ runtime, started, lost, stale }: Pick<Task, "runtime" | "started" | "lost" | "stale">): number | null {
  return runtime ?? (stale && started !== null && lost !== null ? Math.max(0, lost - started) : null);
}

/** Return the state that an event's type stands for, for its colour; "" for another type. */
export function stateOfType(type: string): string {
  const states: { readonly [type: string]: string } = {
    "task-sent": "PENDING", "task-received": "RECEIVED", "task-started": "STARTED", "task-succeeded": "SUCCESS",
    "task-failed": "FAILURE", "task-retried": "RETRY", "task-revoked": "REVOKED", "task-rejected": "REJECTED", "task-lost": "LOST",
  };
  return Object.hasOwn(states, type) ? states[type]! : "";
}
