/** A short table of tasks, for views that are about something else. */
import type { Task } from "../../../js/src/index.ts";
import { href } from "../route.ts";
import { isReady, ranOf, startOf } from "../states.ts";
import { exceptionText } from "../text.ts";
import { TaskLink } from "./link.tsx";
import { TaskName } from "./silent.tsx";
import { type Column, DataTable } from "./table.tsx";
import { Text } from "./text.tsx";
import { Bar, Duration, Since, StateBadge, Time } from "./values.tsx";

const COLUMNS: readonly Column<Task>[] = [
  { key: "state", label: "State", width: "7.5rem", cell: ({ state }) => <StateBadge state={state} /> },
  { key: "name", label: "Name", cell: (task) => <TaskName task={task} none="(name not known)" /> },
  { key: "uuid", label: "Task", width: "7rem", from: 2, cell: ({ uuid, cluster }) => <TaskLink uuid={uuid} cluster={cluster} /> },
  { key: "started", label: "Started", width: "7.5rem", cell: ({ started }) => <Time value={started} /> },
  { key: "runtime", label: "Runtime", width: "7rem", isNumber: true, from: 2, cell: (task) => <Runtime task={task} /> },
  { key: "about", label: "Result", width: "24%", from: 3, cell: (task) => <About task={task} /> },
];

function Runtime({ task }: { readonly task: Task }) {
  const { started, state } = task;
  const ran = ranOf(task);
  return ran === null && started !== null && !isReady(state) ? <Since value={startOf(task)} /> : <Duration value={ran} />;
}

function About({ task }: { readonly task: Task }) {
  const { exception, progress, state, result } = task;
  if (exception !== null && state !== "SUCCESS") return <Text value={exceptionText(task)} class="bad" max={120} />;
  if (progress !== null && !isReady(state)) return <Bar value={progress} />;
  return <Text value={result} class="muted" max={120} />;
}

export interface TaskRowsProps {
  readonly label: string;
  readonly tasks: readonly Task[];
}

export function TaskRows({ label, tasks }: TaskRowsProps) {
  return (
    <DataTable label={label} columns={COLUMNS} rows={tasks} rowKey={({ uuid, cluster }) => JSON.stringify([cluster ?? null, uuid])}
      href={({ uuid, cluster }) => href({ view: "task", id: uuid, query: cluster === undefined ? [] : [["cluster", cluster]] })}
      isFailure={({ state }) => state === "FAILURE"} />
  );
}
