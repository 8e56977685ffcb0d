/** The states of tasks: each has a colour, a shape and its word. Pure. */

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

/** Return whether a task in this state has ended. */
export function isReady(state: string): boolean {
  return state === "SUCCESS" || state === "FAILURE" || state === "REVOKED";
}

/** Return the state that an event's type stands for, for its colour; "" for another type. */
export function stateOfType(type: string): string {
  const states: { readonly [type: string]: string } = {
    "task-sent": "PENDING", "task-received": "RECEIVED", "task-started": "STARTED", "task-succeeded": "SUCCESS",
    "task-failed": "FAILURE", "task-retried": "RETRY", "task-revoked": "REVOKED", "task-rejected": "REJECTED", "task-lost": "LOST",
  };
  return Object.hasOwn(states, type) ? states[type]! : "";
}
