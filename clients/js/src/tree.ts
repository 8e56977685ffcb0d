/** The tree of a workflow's tasks with counts and progress, as `GET /workflows/{root_id}` returns it. Pure. */
import { begunAt, isReady } from "./task.js";
import type { Task, Workflow, WorkflowTask } from "./types.js";
import { keyOf, number } from "./values.js";

const enum Max {
  DEPTH = 100,
}
/** A task with its place in the tree. */
interface Place {
  readonly task: Task;
  children: Place[];
}

/** The nodes of the last values: one is used again while its task and its children are the same objects. */
const nodes = new WeakMap<Task, WorkflowTask>();

/**
 * Return the workflow of a root; null if it has no tasks. Nothing recurses: there may be 50,000 tasks, side by
 * side or in a chain.
 *
 * @param members its tasks, in the order in which they became known. Parents may form a circle.
 */
export function workflow(rootId: string, members: readonly Task[]): Workflow | null {
  const total = members.length;
  if (!total) return null;
  const places = new Map<string, Place>();
  const counts: { [state: string]: number } = Object.create(null); // a state may be called `__proto__`
  let ready = 0;
  let progress = 0;
  let isSent = true;
  for (const task of members) {
    const state = task.state ?? "PENDING";
    counts[state] = (counts[state] ?? 0) + 1;
    if (isReady(task)) ready++;
    progress += isReady(task) ? 1 : (task.progress ?? 0);
    isSent &&= task.sent !== null;
    places.set(keyOf(task.cluster, task.uuid), { task, children: [] });
  }
  const roots: Place[] = [];
  for (const place of places.values()) {
    const parent = places.get(keyOf(place.task.cluster, place.task.parent_id)) ?? place;
    (parent === place ? roots : parent.children).push(place);
  }

  /** Parents are before their children. */
  const placed = new Set<Place>();
  const isNew = (place: Place): boolean => !placed.has(place) && !!placed.add(place);
  const tops: Place[] = [];
  let next = 0;
  for (const extra of [null, ...places.values()]) {
    if (extra) roots.push(extra); // parents in a circle have no root
    for (let root; (root = roots[next++]); ) {
      if (!isNew(root)) continue;
      tops.push(root);
      let level = [root];
      for (let depth = 1; level.length; depth++) {
        level = level.flatMap((place) => {
          const { children } = place;
          if (depth < Max.DEPTH) return (place.children = children.filter(isNew));
          for (const child of children) roots.push(child);
          return (place.children = []);
        });
      }
    }
    next--;
  }
  for (const { task, children } of [...placed].reverse()) {
    const before = nodes.get(task)?.children;
    if (before?.length === children.length && children.every((child, index) => nodes.get(child.task) === before[index])) continue;
    nodes.set(task, { ...task, children: children.map((child) => nodes.get(child.task)!) });
  }
  progress /= total;
  return {
    ...{ root_id: rootId, total, known: total, ready, sent_events: isSent, progress, counts: { ...counts } },
    critical_path: criticalPath(places),
    tasks: tops.map(({ task }) => nodes.get(task)!),
  };
}

/** Return the steps from a root to the task that has been running for longest; or, if none runs, that ended last. */
function criticalPath(places: ReadonlyMap<string, Place>): Workflow["critical_path"] {
  let last: Task | undefined;
  let best: readonly [group: number, seconds: number] = [-1, 0];
  for (const { task } of places.values()) {
    const rank: typeof best = isReady(task) ? [1, endOf(task)] : isRunning(task) ? [2, -(begunAt(task) || endOf(task))] : [0, 0];
    if (rank[0] > best[0] || (rank[0] === best[0] && rank[1] > best[1])) [last, best] = [task, rank];
  }
  const path = new Set<Task>();
  for (; last && !path.has(last); last = places.get(keyOf(last.cluster, last.parent_id))?.task) path.add(last);
  return [...path].reverse().map((task) => {
    const { uuid, name, state } = task;
    const end = endOf(task);
    return { uuid, name, state: state ?? "PENDING", seconds: Math.max(0, end - (begunAt(task) || end)) };
  });
}

function isRunning({ state }: Task): boolean {
  return !/^(PENDING|REJECTED|CANCELLED|LOST)?$/.test(state ?? "");
}

function endOf({ state, succeeded, failed, revoked, timestamp }: Task): number {
  return number({ SUCCESS: succeeded, FAILURE: failed, REVOKED: revoked }[state] || timestamp) ?? 0;
}
