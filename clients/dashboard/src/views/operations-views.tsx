/** The views of workers, queues and failures. They share most of their parts, so they are loaded as one file. */
export { default as FailuresView } from "./failures.tsx";
export { default as QueuesView } from "./queues.tsx";
export { default as WorkerView } from "./worker.tsx";
export { default as WorkersView } from "./workers.tsx";
