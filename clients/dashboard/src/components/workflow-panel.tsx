/** The task of a workflow that is selected, at the side. */
import type { Task, WorkflowTask } from "../../../js/src/types.ts";
import { Panel } from "./layout.tsx";
import { TaskLink } from "./link.tsx";
import { Phases } from "./phases.tsx";
import { Failure, Lost, Values } from "./task-body.tsx";
import { SilentNote } from "./silent-note.tsx";
import { Facts, Outcome } from "./task-head.tsx";
import { Text } from "./text.tsx";

export function WorkflowPanel({ task, onClose }: { readonly task: WorkflowTask; readonly onClose: () => void }) {
  const record: Task = { ...task, children: task.children.map(({ uuid }) => uuid) };
  return (
    <Panel label="Task" onClose={onClose}>
      <div class="stack">
        <h2><TaskLink uuid={task.uuid} cluster={task.cluster}><Text value={task.name ?? task.uuid} max={120} /></TaskLink></h2>
        <Outcome task={record} />
        <SilentNote task={record} />
        <Lost task={record} />
        <Phases task={record} />
        <Failure task={record} />
        <Values task={record} />
        <Facts task={record} />
      </div>
    </Panel>
  );
}
