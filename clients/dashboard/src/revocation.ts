/** What a revocation is about, and what has become of it. Pure. */
import { isReady, lookOf } from "./states.ts";
import { plural } from "./text.ts";

export interface Revocable {
  readonly uuid: string;
  readonly state: string;
}

interface Tree extends Revocable {
  readonly children: readonly Tree[];
}

/** Return all tasks of trees. */
export function flattened(tasks: readonly Tree[]): readonly Revocable[] {
  const found: Tree[] = [];
  const open = [...tasks].reverse();
  for (let task = open.pop(); task; task = open.pop()) {
    found.push(task);
    open.push(...task.children);
  }
  return found;
}

export function runs({ state }: Revocable): boolean {
  const { kind } = lookOf(state);
  return kind === "running" || kind === "custom";
}

/** Return the tasks that have not ended. */
export function unready(tasks: readonly Revocable[]): readonly Revocable[] {
  return tasks.filter(({ state }) => !isReady(state));
}

export interface Question {
  readonly title: string;
  readonly button: string;
  /** What will happen. */
  readonly text: string;
}

/**
 * Return the question before an action.
 *
 * @param tasks those that have not ended.
 */
export function question(tasks: readonly Revocable[], terminate: boolean, isWorkflow: boolean): Question {
  const verb = terminate ? "Terminate" : "Revoke";
  const what = isWorkflow ? `${plural(tasks.length, "task")} of this workflow` : "this task";
  const running = tasks.filter(runs).length;
  const waiting = tasks.length - running;
  const parts: string[] = [];
  if (waiting) parts.push(`Workers discard ${isWorkflow ? `the ${plural(waiting, "task")} that ${waiting === 1 ? "waits" : "wait"}` : "it before it starts"}.`);
  if (running && !terminate) {
    const those = isWorkflow ? `${plural(running, "task")} that already ${running === 1 ? "runs, and goes" : "run, and go"} on` : "It already runs, and goes on";
    parts.push(isWorkflow ? `There ${running === 1 ? "is" : "are"} ${those}.` : `${those}.`);
  }
  if (terminate) {
    parts.push(
      `The worker processes that run ${isWorkflow ? "them" : "it"} are ended. A process may have begun another task by then, which is ended, too.`,
    );
  }
  return { title: `${verb} ${what}?`, button: isWorkflow ? `${verb} ${plural(tasks.length, "task")}` : verb, text: parts.join(" ") };
}

export interface Outcome {
  readonly revoked: number;
  /** Ended in another way, such as SUCCESS. */
  readonly ended: number;
  readonly running: number;
  readonly waiting: number;
}

/** Return what has become of the tasks that were revoked. Those that are not known any more count as ended. */
export function outcome(uuids: readonly string[], tasks: readonly Revocable[]): Outcome {
  const states = new Map(tasks.map((task) => [task.uuid, task]));
  const result = { revoked: 0, ended: 0, running: 0, waiting: 0 };
  for (const uuid of uuids) {
    const task = states.get(uuid);
    if (task?.state === "REVOKED") result.revoked++;
    else if (!task || isReady(task.state)) result.ended++;
    else if (runs(task)) result.running++;
    else result.waiting++;
  }
  return result;
}

/** Return an outcome as a sentence. */
export function describe({ revoked, ended, running, waiting }: Outcome): string {
  const parts = [
    revoked && `${plural(revoked, "task")} revoked`,
    waiting && `${plural(waiting, "task")} still ${waiting === 1 ? "waits" : "wait"}`,
    running && `${plural(running, "task")} still ${running === 1 ? "runs" : "run"}`,
    ended && `${plural(ended, "task")} had ended before`,
  ].filter(Boolean);
  return parts.length ? `${parts.join(", ")}.` : "No task was left to revoke.";
}
