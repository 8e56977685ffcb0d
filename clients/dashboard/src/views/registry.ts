/** The views. Each is loaded when it is shown first, and has a default export: a component with the property `route`. */
import type { FunctionComponent } from "preact";
import type { Route, ViewName } from "../route.ts";

/** `route` changes when the address does, such as its query; another `id` is another instance of the view. */
export type View = FunctionComponent<{ readonly route: Route }>;

export const VIEWS: { readonly [view in ViewName]: () => Promise<{ readonly default: View }> } = {
  overview: () => import("./overview.tsx"),
  live: () => import("./live.tsx"),
  tasks: () => import("./work-views.tsx").then(({ TasksView }) => ({ default: TasksView })),
  task: () => import("./work-views.tsx").then(({ TaskView }) => ({ default: TaskView })),
  workflows: () => import("./work-views.tsx").then(({ WorkflowsView }) => ({ default: WorkflowsView })),
  workflow: () => import("./work-views.tsx").then(({ WorkflowView }) => ({ default: WorkflowView })),
  workers: () => import("./operations-views.tsx").then(({ WorkersView }) => ({ default: WorkersView })),
  worker: () => import("./operations-views.tsx").then(({ WorkerView }) => ({ default: WorkerView })),
  queues: () => import("./operations-views.tsx").then(({ QueuesView }) => ({ default: QueuesView })),
  failures: () => import("./operations-views.tsx").then(({ FailuresView }) => ({ default: FailuresView })),
};

/** The kind of endpoints that a view reads: it has to be in the scope's `may`. */
export const KIND: { readonly [view in ViewName]: "events" | "state" | "workers" } = {
  overview: "state",
  live: "events",
  tasks: "state",
  task: "state",
  workflows: "state",
  workflow: "state",
  workers: "workers",
  worker: "workers",
  queues: "workers",
  failures: "state",
};

export interface NavItem {
  readonly view: ViewName;
  readonly label: string;
  readonly key: string;
  /** The views below it. */
  readonly also: readonly ViewName[];
}

export const NAV: readonly NavItem[] = [
  { view: "overview", label: "Overview", key: "1", also: ["queues", "failures"] },
  { view: "live", label: "Live", key: "2", also: [] },
  { view: "tasks", label: "Tasks", key: "3", also: ["task"] },
  { view: "workflows", label: "Workflows", key: "4", also: ["workflow"] },
  { view: "workers", label: "Workers", key: "5", also: ["worker"] },
];
