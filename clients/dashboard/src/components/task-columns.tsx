/** The columns of a table of tasks. */
import type { Task } from "../../../js/src/types.ts";
import { isReady, ranOf, startOf } from "../states.ts";
import { WorkerLink } from "./link.tsx";
import { TaskName } from "./silent.tsx";
import type { Column } from "./table.tsx";
import { Text } from "./text.tsx";
import { Bar, Duration, Since, StateBadge, Time } from "./values.tsx";

/** The arguments as they were called: `10485, currency='EUR'` as far as they fit. */
export function argumentsOf({ args, kwargs }: Pick<Task, "args" | "kwargs">): string {
  const positional = args === null || args === "()" ? "" : args;
  const named = kwargs === null || kwargs === "{}" ? "" : kwargs;
  return [positional, named].filter(Boolean).join(" ");
}

const COLUMNS: readonly Column<Task>[] = [
  { key: "state", label: "State", width: "7.2rem", cell: ({ state }) => <StateBadge state={state} /> },
  { key: "name", label: "Task", cell: (task) => <TaskName task={task} /> },
  { key: "args", label: "Arguments", width: "15%", from: 3, cell: (task) => <span class="mono"><Text value={argumentsOf(task)} max={120} /></span> },
  { key: "begun", label: "Sent", title: "When it was sent, otherwise received or started", width: "5.2rem", isNumber: true, from: 2, sort: "begun",
    cell: ({ sent, received, started }) => <Time value={sent ?? received ?? started} as="short" /> },
  { key: "wait", label: "Waited", title: "From sent to started, eta included", width: "5.5rem", isNumber: true, from: 3, sort: "queued_seconds", cell: ({ queued_seconds }) => <Duration value={queued_seconds} /> },
  { key: "runtime", label: "Ran", width: "5.5rem", isNumber: true, sort: "runtime",
    cell: (task) => (ranOf(task) === null && task.started !== null && !isReady(task.state) && !task.stale ? <Since value={startOf(task)} /> : <Duration value={ranOf(task)} />) },
  { key: "attempt", label: "Tries", width: "3.2rem", isNumber: true, from: 4, sort: "attempt", cell: ({ attempt }) => (attempt > 1 ? attempt : <span class="muted">{attempt || "–"}</span>) },
  { key: "progress", label: "Progress", width: "4.5rem", from: 3, sort: "progress", cell: ({ progress, state }) => (progress === null || isReady(state) ? "" : <Bar value={progress} />) },
  { key: "worker", label: "Worker", width: "6.5rem", from: 4, cell: ({ worker, cluster }) => (worker === null ? "" : <WorkerLink hostname={worker} cluster={cluster} />) },
];

const WITHOUT_PROGRESS = COLUMNS.filter(({ key }) => key !== "progress");

/** Return the columns for some tasks: that of the progress only if one of them reports it. */
export function columnsOf(tasks: readonly Task[]): readonly Column<Task>[] {
  const hasProgress = tasks.some(({ progress, state }) => progress !== null && !isReady(state));
  return hasProgress ? COLUMNS : WITHOUT_PROGRESS;
}
