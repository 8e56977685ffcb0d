/** A few tasks of a workflow over time. */
import type { Workflow, WorkflowTask } from "../../../js/src/types.ts";
import { now } from "../gateway.ts";
import { barsOf, extentOf, rectOf, scaleOf } from "../gantt.ts";
import { use } from "../store.ts";
import { visible } from "../text.ts";
import { duration } from "../time.ts";
import { useWidth } from "../width.ts";
import { HatchPattern } from "./hatch.tsx";
import { barClass } from "./phases.tsx";
import { TaskLink } from "./link.tsx";
import { SilentPart } from "./silent-note.tsx";
import { Text } from "./text.tsx";
import { StateBadge } from "./values.tsx";

export interface MiniGanttProps {
  readonly tasks: readonly WorkflowTask[];
  readonly current: string;
  readonly critical: Workflow["critical_path"];
}

export function MiniGantt({ tasks, current, critical }: MiniGanttProps) {
  const [ref, width] = useWidth(300);
  const at = use(now);
  const range = extentOf(tasks, at);
  if (!range) return null;
  const scale = scaleOf(range, width);
  const marked = new Set(critical.map(({ uuid }) => uuid));
  return (
    <ol class="mini-gantt" aria-label={`${tasks.length} tasks in ${duration(range[1] - range[0])}`}>
      {tasks.map((task, index) => (
        <li key={task.uuid} class={task.uuid === current ? "current" : undefined}>
          <span class="inline">
            <StateBadge state={task.state} short />
            <TaskLink uuid={task.uuid} cluster={task.cluster}><Text value={task.name ?? task.uuid} max={60} /></TaskLink>
            {marked.has(task.uuid) && <span title="on the critical path" aria-label="critical path">◆</span>}
          </span>
          <span {...(!index && { ref })} class="chart">
            <svg class="gantt" width={width} height={20} role="img" aria-label={visible(task.state)}>
              {!index && <HatchPattern />}
              {barsOf(task, at).map((bar, number) => {
                const rect = rectOf(scale, [bar.from, bar.to]);
                return rect && <rect key={number} class={barClass(bar)} x={rect.x} y={4} width={rect.width} height={12} />;
              })}
              <SilentPart task={task} bars={barsOf(task, at)} scale={scale} y={4} height={12} />
            </svg>
          </span>
        </li>
      ))}
    </ol>
  );
}
