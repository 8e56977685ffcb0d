/** When `ready` of a task or a workflow settles, by the rules of the gateway's `until=ready` (stream/completion.py). */
import { after, nothing } from "./environment.js";
import { GatewayError, TaskError } from "./errors.js";
import type { Reader } from "./feed.js";
import { isReady } from "./task.js";
import type { ClientOptions, Known, Task, Workflow } from "./types.js";

const enum Ms {
  WAIT_KNOWN = 30_000,
  LOST_GRACE = 60_000,
  QUIET = 2_000,
  /** Of a workflow without `task-sent` events: more tasks may wait in a queue. */
  UNSURE_QUIET = 30_000,
  MAX_TIMER = 2 ** 31 - 1,
}

/** How `ready` settles if this state lasts for some time. */
export interface Verdict {
  /** `undefined`: it resolves with the value. */
  readonly error?: Error | undefined;
  /** The time begins again when it changes. */
  readonly reason: string;
  readonly afterMs: number;
}

type Judge<T> = (known: Known<T>) => Verdict | undefined;

/** Return the verdict on a task. */
export function judgeTask(uuid: string, options: ClientOptions): Judge<Task> {
  const other = judgeRest("task", uuid, options);
  return (known) => {
    const task = known.value;
    if (!task || !isReady(task)) return other(known, task?.stale);
    return { error: task.state === "SUCCESS" ? undefined : new TaskError(task), reason: "ready", afterMs: 0 };
  };
}

/** Return the verdict on a workflow. */
export function judgeWorkflow(rootId: string, options: ClientOptions, quietMs?: number): Judge<Workflow> {
  const other = judgeRest("workflow", rootId, options);
  return (known) => {
    const flow = known.value;
    if (!flow || flow.ready < flow.total) return other(known, flow && flow.ready + (flow.counts["LOST"] ?? 0) === flow.total);
    const afterMs = quietMs ?? (flow.sent_events ? Ms.QUIET : Ms.UNSURE_QUIET);
    return { reason: `${flow.total} ready, ${afterMs}`, afterMs };
  };
}

function judgeRest(kind: "task" | "workflow", id: string, options: ClientOptions) {
  const { waitKnownMs = Ms.WAIT_KNOWN, lostGraceMs = Ms.LOST_GRACE } = options;
  return ({ status, error }: Known<unknown>, isLost?: boolean | null): Verdict | undefined => {
    const of = (word: string, message: string, afterMs: number): Verdict => {
      const code = `${kind}-${word}`;
      return { error: new GatewayError(`the ${kind} ${id} ${message}`, { code }), reason: code, afterMs };
    };
    if (error) return { error, reason: "error", afterMs: 0 };
    if (status === "unknown") return of("unknown", "is unknown: the gateway has no event of it", waitKnownMs);
    return isLost ? of("lost", "is lost: its worker is gone", lostGraceMs) : undefined;
  };
}

/**
 * Return a promise that settles when a verdict is final. A verdict that has to last is checked with a snapshot at its
 * end, since the connection may have been lost meanwhile. Nobody has to await the promise.
 *
 * @param refetch requests a snapshot.
 */
export function settled<T>(
  look: () => Known<T>,
  join: (reader: Reader) => () => void,
  judge: Judge<T>,
  refetch: () => void,
): Promise<T> {
  const ready = new Promise<T>((resolve, reject) => {
    let reason: string | undefined;
    let isDue = false;
    let cancel = nothing;
    let leave = nothing;
    const settle = ({ error }: Verdict): void => {
      cancel();
      leave();
      if (error) reject(error);
      else resolve(look().value as T);
    };
    const next = (): void => {
      const verdict = judge(look());
      if (verdict?.reason === reason) return;
      reason = verdict?.reason;
      isDue = false;
      cancel();
      if (!verdict) return;
      if (!verdict.afterMs) return settle(verdict);
      const due = (): void => {
        isDue = true;
        refetch();
      };
      if (verdict.afterMs <= Ms.MAX_TIMER) cancel = after(verdict.afterMs, due);
    };
    const fetched = (): void => {
      next();
      if (isDue) settle(judge(look())!);
    };
    leave = join({
      next,
      fetched,
      end(error = new DOMException("closed", "AbortError")) {
        cancel();
        reject(error);
      },
    });
    next();
  });
  ready.catch(nothing);
  return ready;
}
