/** The tree of a workflow's tasks, with counts and progress: as `GET /workflows/{root_id}` has it. Pure. */
import { isReady } from "./task.js";
import type { Task, Workflow, WorkflowTask } from "./types.js";

const enum Max {
  DEPTH = 100,
}

/**
 * Return the workflow of a root; null if it has no tasks. Nothing recurses: there may be 50,000 of them,
 * abreast or in a chain.
 *
 * @param members by uuid, in the order in which they became known. Parents may lead in a circle.
 */
export function workflow(rootId: string, members: ReadonlyMap<string, Task>): Workflow | null {
  const total = members.size;
  if (!total) return null;
  const counts: { [state: string]: number } = {};
  const below = new Map<string | null, Task[]>();
  const roots: Task[] = [];
  let ready = 0;
  let progress = 0;
  for (const task of members.values()) {
    const { uuid, parent_id: parentId } = task;
    const state = task.state ?? "PENDING";
    counts[state] = (counts[state] ?? 0) + 1;
    ready += +isReady(task);
    progress += isReady(task) ? 1 : (task.progress ?? 0);
    const beside = below.get(parentId);
    if (parentId === uuid || !members.has(parentId as string)) roots.push(task);
    else if (beside) beside.push(task);
    else below.set(parentId, [task]);
  }

  const tasks: WorkflowTask[] = [];
  const placed = new Set<Task>();
  const plant = (root: Task): void => {
    const due: [Task, WorkflowTask[], number][] = [[root, tasks, 1]];
    for (let next; (next = due.pop()); ) {
      const [task, beside, depth] = next;
      if (placed.has(task)) continue;
      placed.add(task);
      const children: WorkflowTask[] = [];
      beside.push({ ...task, children });
      const following = below.get(task.uuid) ?? [];
      if (depth < Max.DEPTH) for (const child of [...following].reverse()) due.push([child, children, depth + 1]);
      else for (const child of following) roots.push(child);
    }
  };
  let planted = 0;
  for (const task of [undefined, ...members.values()]) {
    if (task) roots.push(task); // it has no root if parents lead in a circle
    while (planted < roots.length) plant(roots[planted++] as Task); // there are more where the tree is cut
  }
  return { root_id: rootId, total, ready, progress: progress / total, counts, tasks };
}
