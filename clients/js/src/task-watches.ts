/** The watches of a task and of a workflow. */
import type { Model } from "./feed.js";
import type { Request } from "./http.js";
import { type MakeTasks, tasks } from "./models.js";
import { judgeTask, judgeWorkflow, settled, type Verdict } from "./ready.js";
import { workflow } from "./tree.js";
import type { Client, ClientOptions, Known, TaskOptions, TaskWatch, WorkflowWatch } from "./types.js";
import type { Settle } from "./watch.js";

/** Returns a watch. Equal watches have equal keys. */
type MakeWatch = (key: string, model: () => Model<unknown>, signal: AbortSignal | undefined, settle: Settle) => TaskWatch;

/**
 * Makes the watches of a client.
 *
 * @param get fetches the attempts.
 * @param refuse reports an error.
 */
export type TaskWatches = (
  options: ClientOptions,
  get: Request,
  refuse: (error: Error) => void,
  watch: MakeWatch,
) => Pick<Client, "task" | "workflow">;

export const taskWatches: TaskWatches = (options, get, refuse, watch) => {
  const tasksOf = (
    field: "uuid" | "root_id",
    id: string,
    { signal, cluster, attempts }: TaskOptions = {},
    make: MakeTasks<unknown>,
    judge: (known: Known<never>) => Verdict | undefined,
  ): TaskWatch => {
    const model = tasks(field, id, make, refuse, cluster, options.maxTasks, attempts ? get : undefined);
    const key = `${[field, !!attempts, cluster, id]}`;
    return watch(key, model, signal, (look, join, refetch) => settled(look, join, judge, refetch));
  };
  return {
    task: (uuid, given) => tasksOf("uuid", uuid, given, (_, last) => last, judgeTask(uuid, options)),
    workflow: (rootId, given) =>
      tasksOf(
        "root_id",
        rootId,
        given,
        (members) => workflow(rootId, members),
        judgeWorkflow(rootId, options, given?.quietMs),
      ) as unknown as WorkflowWatch,
  };
};
