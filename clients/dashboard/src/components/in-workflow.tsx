/** The workflow that a task is in, in one line. */
import type { Task, WorkflowSummary } from "../../../js/src/types.ts";
import { useWatch } from "../gateway.ts";
import { literal } from "../route.ts";
import { count } from "../text.ts";
import { WorkflowLink } from "./link.tsx";
import { Text } from "./text.tsx";
import { Bar } from "./values.tsx";

/** `in workflow shop.checkout (4 of 6)`; nothing for a task of its own. */
export function InWorkflow({ task }: { readonly task: Task }) {
  const summary = useSummary(task);
  if (task.root_id === null || (task.root_id === task.uuid && (summary?.total ?? 1) < 2)) return null;
  return (
    <span class="inline">
      {task.root_id === task.uuid ? "the root of" : "in"} workflow{" "}
      <WorkflowLink rootId={task.root_id} cluster={task.cluster}>{summary?.name == null ? undefined : <Text value={summary.name} max={80} />}</WorkflowLink>
      {summary && <><span class="num">{count(summary.ready)} of {count(summary.total)}</span> <Bar value={summary.progress} label={`${summary.ready} of ${summary.total} ready`} /></>}
    </span>
  );
}

/** Return the numbers of a task's workflow; null while they are not known. */
export function useSummary({ root_id, cluster }: Task): WorkflowSummary | null {
  const known = useWatch(
    (client) => (root_id === null ? null : client.workflows({ root_id: literal(root_id), ...(cluster !== undefined && { cluster: literal(cluster) }) }, { limit: 1, intervalMs: 5_000 })),
    `${root_id} ${cluster}`,
  );
  return known.value?.workflows[0] ?? null;
}
