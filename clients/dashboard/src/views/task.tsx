/** Task: everything that is known of one task, live. */
import { Actions } from "../components/actions.tsx";
import { CopyButton, copy, ErrorBox, Skeleton, Tabs, ViewFrame } from "../components/layout.tsx";
import { Attempts, Phases } from "../components/phases.tsx";
import { Failure, Lost, Values } from "../components/task-body.tsx";
import { TaskEvents } from "../components/task-events.tsx";
import { Facts, Outcome } from "../components/task-head.tsx";
import { InWorkflow } from "../components/in-workflow.tsx";
import { TaskWorkflow } from "../components/task-workflow.tsx";
import { SilentNote } from "../components/silent-note.tsx";
import { WatchIt } from "../components/watch-it.tsx";
import { Text } from "../components/text.tsx";
import { Unknown } from "../components/unknown-task.tsx";
import type { GatewayError, Task } from "../../../js/src/index.ts";
import { useKeys } from "../keys.ts";
import { base, go, goQuery } from "../navigation.ts";
import { href, type Query, valueOf, withValue } from "../route.ts";
import { access, useFetched, useWatch } from "../gateway.ts";
import { watchIt } from "../watchit.ts";
import type { View } from "./registry.ts";

const LABELS: Readonly<Record<string, string>> = { events: "Events", tries: "Tries", workflow: "Workflow", watch: "Watch it" };

const TaskView: View = ({ route: { id, query } }) => {
  const cluster = valueOf(query, "cluster") || undefined;
  const { value: task, status, error } = useWatch<Task>(
    (client) => client.task(id, { attempts: true, cluster }),
    `${id} ${cluster}`,
  );
  const inCluster: Query = cluster === undefined ? [] : [["cluster", cluster]];
  useKeys({
    workflow: () => (task?.root_id ? go({ view: "workflow", id: task.root_id, query: inCluster }) : false),
    copyId: () => void copy(id),
    copyCurl: () => void copy(watchIt({ kind: "task", id, cluster }, base.href, access.value !== "open").lines[0]!.text),
  });
  const state = task ? "ready" : status === "error" ? "error" : status === "unknown" ? "empty" : "loading";
  return (
    <ViewFrame name="task" state={state} title={<Text value={task?.name ?? "Task"} max={300} />}
      tools={<>
        <CopyButton text={new URL(href({ view: "task", id, query: inCluster }), base).href} label="Copy the link" />
        <a class="button" href={href({ view: "task", id, query: [...inCluster, ["format", "json"]] })}>Raw JSON</a>
        {task && <Actions task={task} />}
      </>}>
      {error && <ErrorBox error={error} />}
      {state === "loading" && <Skeleton rows={8} />}
      {state === "empty" && <Unknown what="task" id={id} cluster={cluster} />}
      {task && <Body task={task} query={query} />}
    </ViewFrame>
  );
};

/** Asks the gateway whether it still has the task: after its restart, and after an eviction, no event says so. */
function Gone({ task: { uuid, cluster } }: { readonly task: Task }) {
  const { error } = useFetched(`/tasks/${encodeURIComponent(uuid)}`, { cluster, fields: "state" }, 10);
  return (error as GatewayError | null)?.status === 404 && <p class="note" role="note">The gateway no longer has this task. Its last record stays.</p>;
}

function Body({ task, query }: { readonly task: Task; readonly query: Query }) {
  const chosen = valueOf(query, "tab");
  const tab = Object.hasOwn(LABELS, chosen) ? chosen : "events";
  const tabs = Object.entries(LABELS).map(([id, label]) => ({ id, label: id === "tries" && task.attempts?.[1] ? `Tries (${task.attempts.length})` : label }));
  return (
    <div class="stack">
      <div class="inline"><Outcome task={task} /><InWorkflow task={task} /></div>
      <Gone task={task} />
      <SilentNote task={task} />
      <Lost task={task} />
      <Phases task={task} />
      <Failure task={task} />
      <div class="task-columns">
        <Values task={task} />
        <section class="card" aria-label="Facts"><Facts task={task} /></section>
      </div>
      <section class="card stack">
        <Tabs label="More of this task" tabs={tabs} current={tab} onChange={(id) => goQuery(withValue(query, "tab", id === "events" ? "" : id))}>
          {tab === "events" && <TaskEvents uuid={task.uuid} cluster={task.cluster} />}
          {tab === "tries" && <Attempts task={task} />}
          {tab === "workflow" && <TaskWorkflow task={task} />}
          {tab === "watch" && <WatchIt kind="task" uuid={task.uuid} cluster={task.cluster} />}
        </Tabs>
      </section>
    </div>
  );
}

export default TaskView;
