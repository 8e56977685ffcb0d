/** The tree of a workflow's tasks, with counts and progress: as `GET /workflows/{root_id}` has it. Pure. */
import { isReady } from "./task.js";
import type { Task, Workflow, WorkflowTask } from "./types.js";

const MAX_DEPTH = 100;

/**
 * Return the workflow of a root. Nothing recurses: there may be 50,000 tasks, abreast or in a chain.
 *
 * @param members by uuid, in the order in which they became known. Parents may lead in a circle.
 */
export function workflow(rootId: string, members: ReadonlyMap<string, Task>): Workflow {
  const counts: { [state: string]: number } = {};
  const below = new Map<string, Task[]>();
  const roots: Task[] = [];
  let ready = 0;
  let progress = 0;
  for (const task of members.values()) {
    const { uuid, parent_id: parentId, state } = task;
    counts[state ?? "PENDING"] = (counts[state ?? "PENDING"] ?? 0) + 1;
    ready += +isReady(task);
    progress += isReady(task) ? 1 : (task.progress ?? 0);
    const siblings = below.get(parentId ?? "");
    if (parentId === null || parentId === uuid || !members.has(parentId)) roots.push(task);
    else if (siblings) siblings.push(task);
    else below.set(parentId, [task]);
  }

  const tasks: WorkflowTask[] = [];
  const placed = new Set<string>();
  /** Place a task and all that comes below it, each before the next beside it. */
  const plant = (root: Task): void => {
    const due: [Task, WorkflowTask[], number][] = [[root, tasks, 1]];
    for (let next; (next = due.pop()); ) {
      const [task, siblings, depth] = next;
      if (placed.has(task.uuid)) continue;
      const children: WorkflowTask[] = [];
      placed.add(task.uuid);
      siblings.push({ ...task, children });
      const following = below.get(task.uuid) ?? [];
      if (depth >= MAX_DEPTH) for (const child of following) roots.push(child);
      else for (let i = following.length; i--; ) due.push([following[i] as Task, children, depth + 1]);
    }
  };
  for (let i = 0; i < roots.length; i++) plant(roots[i] as Task);
  for (const task of members.values()) {
    if (placed.has(task.uuid)) continue;
    const first = roots.push(task) - 1;
    for (let i = first; i < roots.length; i++) plant(roots[i] as Task);
  }
  const total = members.size;
  return { root_id: rootId, total, ready, progress: total && progress / total, counts, tasks };
}
