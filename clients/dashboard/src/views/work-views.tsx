/** The views of tasks and workflows. They share most of their parts, so they are loaded as one file. */
import { taskWatches } from "../../../js/src/task-watches.ts";
import { provide } from "../gateway.ts";

export { default as TaskView } from "./task.tsx";
export { default as TasksView } from "./tasks.tsx";
export { default as WorkflowView } from "./workflow.tsx";
export { default as WorkflowsView } from "./workflows.tsx";

provide(taskWatches);
