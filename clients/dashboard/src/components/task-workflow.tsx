/** The workflow that a task is in: its parent, its siblings and its children. */
import type { Task, Workflow, WorkflowTask } from "../../../js/src/types.ts";
import { useWatch } from "../gateway.ts";
import { pathTo } from "../tree.ts";
import { count, plural } from "../text.ts";
import { useSummary } from "./in-workflow.tsx";
import { Empty, Skeleton } from "./layout.tsx";
import { TaskLink, WorkflowLink } from "./link.tsx";
import { MiniGantt } from "./mini-gantt.tsx";
import { Text } from "./text.tsx";
import { StateBadge } from "./values.tsx";

/** A workflow of more tasks is not read for one of its tasks. */
const MAX_TASKS = 1_000;
const MAX_LISTED = 12;

export function TaskWorkflow({ task }: { readonly task: Task }) {
  const summary = useSummary(task);
  const isLarge = (summary?.total ?? 0) > MAX_TASKS;
  const { root_id, cluster } = task;
  const known = useWatch<Workflow>(
    (client) => (root_id === null || !summary || isLarge ? null : client.workflow(root_id, { attempts: true, cluster })),
    `${root_id} ${cluster} ${summary !== null && !isLarge}`,
  );
  if (root_id === null) return <Empty title="It is not known to which workflow this task belongs" />;
  if (isLarge) return <Empty title={<>{plural(summary!.total, "task")}: <WorkflowLink rootId={root_id} cluster={cluster}>open the workflow</WorkflowLink></>} />;
  if (!known.value) return known.status === "error" ? <Empty title={<Text value={known.error?.message} max={300} />} /> : <Skeleton rows={4} />;
  return <Relatives task={task} workflow={known.value} />;
}

function Relatives({ task, workflow }: { readonly task: Task; readonly workflow: Workflow }) {
  const path = pathTo(workflow.tasks, task.uuid);
  const own = path[path.length - 1];
  const parent = path[path.length - 2];
  const siblings = (parent?.children ?? workflow.tasks).filter(({ uuid }) => uuid !== task.uuid);
  const children = own?.children ?? [];
  const shown = [...path, ...children.slice(0, MAX_LISTED)];
  return (
    <div class="stack">
      <MiniGantt tasks={shown} current={task.uuid} critical={workflow.critical_path} />
      <div class="relatives">
        <Relation label="Parent" tasks={parent ? [parent] : []} none="none: it is the root, or its parent is not known" />
        <Relation label="Children" tasks={children} none="none so far" />
        <Relation label="Siblings" tasks={siblings} none="none" />
      </div>
      <p><WorkflowLink rootId={workflow.root_id} cluster={task.cluster}>Open the workflow</WorkflowLink></p>
    </div>
  );
}

function Relation({ label, tasks, none }: { readonly label: string; readonly tasks: readonly WorkflowTask[]; readonly none: string }) {
  return (
    <section aria-label={label}>
      <h3>{label} {tasks.length > 1 && <span class="muted num">{count(tasks.length)}</span>}</h3>
      {!tasks.length && <p class="muted">{none}</p>}
      <ul>
        {tasks.slice(0, MAX_LISTED).map((task) => (
          <li key={task.uuid} class="inline">
            <StateBadge state={task.state} short />
            <TaskLink uuid={task.uuid} cluster={task.cluster}><Text value={task.name ?? task.uuid} max={80} /></TaskLink>
          </li>
        ))}
        {tasks.length > MAX_LISTED && <li class="muted">and {count(tasks.length - MAX_LISTED)} more</li>}
      </ul>
    </section>
  );
}
