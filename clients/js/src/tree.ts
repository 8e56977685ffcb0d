/** The tree of a workflow's tasks with counts and progress, as `GET /workflows/{root_id}` returns it. Pure. */
import { isReady } from "./task.js";
import type { Task, Workflow, WorkflowTask } from "./types.js";
import { keyOf } from "./values.js";

const enum Max {
  DEPTH = 100,
}
type Node = WorkflowTask & { children: WorkflowTask[] };

/**
 * Return the workflow of a root; null if it has no tasks. Nothing recurses: there may be 50,000 tasks, side by
 * side or in a chain.
 *
 * @param members its tasks, in the order in which they became known. Parents may form a circle.
 */
export function workflow(rootId: string, members: readonly Task[]): Workflow | null {
  const total = members.length;
  if (!total) return null;
  const nodes = new Map<string, Node>();
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
    nodes.set(keyOf(task.cluster, task.uuid), { ...task, children: [] });
  }
  const roots: Node[] = [];
  for (const node of nodes.values()) {
    const parent = nodes.get(keyOf(node.cluster, node.parent_id)) ?? node;
    (parent === node ? roots : parent.children).push(node);
  }

  const placed = new Set<WorkflowTask>();
  const isNew = (node: WorkflowTask): boolean => !placed.has(node) && !!placed.add(node);
  const tasks: Node[] = [];
  let next = 0;
  for (const extra of [null, ...nodes.values()]) {
    if (extra) roots.push(extra); // parents in a circle have no root
    for (let root; (root = roots[next++]); ) {
      if (!isNew(root)) continue;
      tasks.push(root);
      let level = [root];
      for (let depth = 1; level.length; depth++) {
        level = level.flatMap((node) => {
          const children = node.children as Node[];
          if (depth < Max.DEPTH) return (node.children = children.filter(isNew));
          for (const child of children) roots.push(child);
          return (node.children = []);
        });
      }
    }
    next--;
  }
  progress /= total;
  return { root_id: rootId, total, known: total, ready, sent_events: isSent, progress, counts: { ...counts }, tasks };
}
