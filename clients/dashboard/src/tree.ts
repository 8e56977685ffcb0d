/** The rows of a workflow's tree: what is open, and equal siblings as one row. Pure. */
import type { WorkflowTask } from "../../js/src/types.ts";
import { isReady } from "./states.ts";

/** More siblings of one name than this are one row. */
export const MAX_EQUAL = 20;

export interface TaskRow {
  readonly kind: "task";
  readonly key: string;
  readonly depth: number;
  readonly task: WorkflowTask;
  /** Whether children are shown; null without children. */
  readonly isOpen: boolean | null;
  /** Its place among the rows of the same parent, from 1; and their number. */
  readonly position: readonly [at: number, size: number];
}

/** Siblings of one name. Failed ones have rows of their own, before it. */
export interface GroupRow {
  readonly kind: "group";
  readonly key: string;
  readonly depth: number;
  readonly name: string | null;
  readonly tasks: readonly WorkflowTask[];
  readonly isOpen: boolean;
  readonly position: readonly [at: number, size: number];
}

export type Row = TaskRow | GroupRow;

export interface TreeOptions {
  /** What was opened (true) or closed (false) by hand, by key. */
  readonly opened: ReadonlyMap<string, boolean>;
  /** Leave out tasks that neither run nor have failed, and have no such task below. */
  readonly hidesIdle: boolean;
}

/** Facts about a task and everything below it. */
interface Below {
  readonly hasFailed: boolean;
  readonly isBusy: boolean;
}

export const keyOfTask = (task: WorkflowTask): string => (task.cluster === undefined ? task.uuid : `${task.cluster}/${task.uuid}`);
export const hasFailed = (task: WorkflowTask): boolean => task.state === "FAILURE" || task.state === "LOST";
const isWaiting = ({ state }: WorkflowTask): boolean => state === "PENDING" || state === "RECEIVED" || state === "REVOKED";
export const isRunning = (task: WorkflowTask): boolean =>
  !isReady(task.state) && !isWaiting(task) && !["LOST", "RETRY", "REJECTED", "CANCELLED"].includes(task.state);

/** Return the rows in sight of a tree, from the top. Linear in the number of tasks; the tree has at most 100 levels. */
export function rowsOf(roots: readonly WorkflowTask[], { opened, hidesIdle }: TreeOptions): Row[] {
  const facts = new Map<WorkflowTask, Below>();
  for (const root of roots) look(root, facts);
  const rows: Row[] = [];
  const isShown = (task: WorkflowTask): boolean => !hidesIdle || facts.get(task)!.hasFailed || facts.get(task)!.isBusy;

  const add = (siblings: readonly WorkflowTask[], depth: number, parent: string): void => {
    const shown = hidesIdle ? siblings.filter(isShown) : siblings;
    const entries = shown.length > MAX_EQUAL ? grouped(shown, facts) : shown;
    const size = entries.length;
    entries.forEach((entry, at) => {
      if (!isGroup(entry)) return addTask(entry, depth, [at + 1, size]);
      const key = `${parent}×${entry.name ?? ""}`;
      const isOpen = opened.get(key) ?? false;
      rows.push({ kind: "group", key, depth, ...entry, isOpen, position: [at + 1, size] });
      if (isOpen) entry.tasks.forEach((task, index) => addTask(task, depth + 1, [index + 1, entry.tasks.length]));
    });
  };
  const addTask = (task: WorkflowTask, depth: number, position: readonly [number, number]): void => {
    const key = keyOfTask(task);
    const hasChildren = hidesIdle ? task.children.some(isShown) : task.children.length > 0;
    const isOpen = hasChildren ? (opened.get(key) ?? true) : null;
    rows.push({ kind: "task", key, depth, task, isOpen, position });
    if (isOpen) add(task.children, depth + 1, key);
  };
  add(roots, 0, "");
  return rows;
}

interface Group {
  readonly name: string | null;
  readonly tasks: WorkflowTask[];
}

const isGroup = (entry: WorkflowTask | Group): entry is Group => "tasks" in entry;

/** Join siblings of one name where there are many; a group stands where its first task stood. */
function grouped(siblings: readonly WorkflowTask[], facts: ReadonlyMap<WorkflowTask, Below>): (WorkflowTask | Group)[] {
  const byName = new Map<string | null, WorkflowTask[]>();
  for (const task of siblings) {
    const same = byName.get(task.name);
    if (same) same.push(task);
    else byName.set(task.name, [task]);
  }
  const entries: (WorkflowTask | Group)[] = [];
  for (const task of siblings) {
    const same = byName.get(task.name)!;
    if (same.length <= MAX_EQUAL) entries.push(task);
    else if (same[0] === task) {
      const [failed, rest] = [same.filter((one) => facts.get(one)!.hasFailed), same.filter((one) => !facts.get(one)!.hasFailed)];
      entries.push(...failed.slice(0, MAX_EQUAL));
      const tasks = [...failed.slice(MAX_EQUAL), ...rest];
      if (tasks.length > 1) entries.push({ name: task.name, tasks });
      else entries.push(...tasks);
    }
  }
  return entries;
}

function look(task: WorkflowTask, facts: Map<WorkflowTask, Below>): Below {
  let failed = hasFailed(task);
  let isBusy = isRunning(task);
  for (const child of task.children) {
    const below = look(child, facts);
    failed ||= below.hasFailed;
    isBusy ||= below.isBusy;
  }
  const result = { hasFailed: failed, isBusy };
  facts.set(task, result);
  return result;
}

/** Return all tasks of a tree: a task before its children. */
export function allTasks(roots: readonly WorkflowTask[]): WorkflowTask[] {
  const all: WorkflowTask[] = [];
  const add = (task: WorkflowTask): void => {
    all.push(task);
    for (const child of task.children) add(child);
  };
  for (const root of roots) add(root);
  return all;
}

/** Return the tasks from a root down to the task with this uuid; empty if there is none. */
export function pathTo(roots: readonly WorkflowTask[], uuid: string): WorkflowTask[] {
  for (const root of roots) {
    if (root.uuid === uuid) return [root];
    const below = pathTo(root.children, uuid);
    if (below.length) return [root, ...below];
  }
  return [];
}

/** Return the keys to open so that the row of a task is in sight. */
export function keysToShow(roots: readonly WorkflowTask[], uuid: string): string[] {
  const path = pathTo(roots, uuid);
  return path.flatMap((task, at) => {
    const parent = at ? keyOfTask(path[at - 1]!) : "";
    const own = at < path.length - 1 ? [keyOfTask(task)] : [];
    return [`${parent}×${task.name ?? ""}`, ...own];
  });
}

/** Return the next failed task after the one with this uuid, in the order of the tree; the first one again at the end. */
export function nextFailed(roots: readonly WorkflowTask[], uuid: string | null): WorkflowTask | null {
  const all = allTasks(roots);
  const start = all.findIndex((task) => task.uuid === uuid) + 1;
  return [...all.slice(start), ...all.slice(0, start)].find(hasFailed) ?? null;
}
