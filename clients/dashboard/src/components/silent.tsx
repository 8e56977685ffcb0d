/** Tasks whose worker is silent, or has shut down: they may run, or not. */
import type { Task, Worker } from "../../../js/src/types.ts";
import { away } from "../gateway.ts";
import { useComputed } from "../store.ts";
import { awayWith, lookOfStatus } from "../workers.ts";
import { TaskLink } from "./link.tsx";
import { Text } from "./text.tsx";

/** What tells whether a worker has a task. */
export type With = Pick<Task, "state" | "worker" | "cluster">;

/** Return the worker of a task, if it is silent or has shut down, and the task has not ended. */
export function useAway(task: With): Worker | undefined {
  return useComputed(() => awayWith(task, away.value), away);
}

/** `▲ worker silent`; nothing of other tasks. Where there is no room, the sign. */
export function SilentMark({ task }: { readonly task: With }) {
  const worker = useAway(task);
  if (!worker) return null;
  return (
    <span class="warn silent-mark" title={lookOfStatus(worker.status).title}>
      <span aria-hidden="true">{lookOfStatus(worker.status).shape}</span> worker {worker.status}
    </span>
  );
}

/** The name of a task as a link, and whether its worker is silent. */
export function TaskName({ task, none = task.uuid }: { readonly task: Task; readonly none?: string }) {
  return (
    <span class="task-name">
      <TaskLink uuid={task.uuid} cluster={task.cluster}><Text value={task.name ?? none} max={120} /></TaskLink> <SilentMark task={task} />
    </span>
  );
}
