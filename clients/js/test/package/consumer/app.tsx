/** The example of the README, and what users write, as TSX with strict types. */
import { connect, type Known, type Task, type Workflow } from "@celery-gateway/client";
import {
  GatewayProvider,
  useEvents,
  useGateway,
  useStatus,
  useTask,
  useWatch,
  useWorkers,
  useWorkflow,
} from "@celery-gateway/client/react";
import { tabs } from "@celery-gateway/client/tabs";
import { type ReactElement, StrictMode } from "react";

const client = connect({ url: "/celery", shared: tabs("user"), credentials: "include", waitKnownMs: Infinity });

function Bar({ uuid }: { uuid: string | undefined }) {
  const task = useTask(uuid);
  return task && <progress value={task.progress ?? 0} title={task.state} />;
}

function Tasks({ tasks }: { tasks: Workflow["tasks"] }) {
  return (
    <ul>
      {tasks.map((task) => (
        <li key={task.uuid} title={task.state} className={task.state.toLowerCase()}>
          {task.name} {task.state} {task.runtime}
          {task.children.length > 0 && <Tasks tasks={task.children} />}
        </li>
      ))}
    </ul>
  );
}

function Flow(props: { rootId: string | null }): ReactElement {
  const workflow = useWorkflow(props.rootId);
  if (workflow === null) return <p>Nothing is known of {props.rootId}.</p>;
  return (
    <section aria-label={workflow.root_id}>
      <progress value={workflow.progress} /> {workflow.ready} of {workflow.total}
      <Tasks tasks={workflow.tasks} />
    </section>
  );
}

function Why({ uuid }: { uuid: string }) {
  const known: Known<Task> = useWatch(useGateway().task(uuid));
  const { value, status, error } = known;
  useWatch(null);
  if (error) return <p role="alert">{error.message}</p>;
  // @ts-expect-error: there may be no value
  const state = value.state;
  // @ts-expect-error: no such status
  if (status === "pending") return state;
  return <p>{value ? value.state : status}</p>;
}

function Failures() {
  const failures = useEvents({ type: "task-failed" }, { limit: 10 });
  const workers = useWorkers() ?? [];
  return (
    <ol title={useStatus()}>
      {failures.map(({ id, name, uuid, truncated }) => (
        <li key={id} id={uuid}>
          {name} {truncated?.join()}
        </li>
      ))}
      {workers.map(({ hostname, status }) => (
        <li key={hostname} data-status={status} />
      ))}
    </ol>
  );
}

export const app = (
  <StrictMode>
    <GatewayProvider client={client}>
      <Bar uuid="1" />
      <Flow rootId={null} />
      <Why uuid="1" />
      <Failures />
    </GatewayProvider>
    <GatewayProvider client={client} />
  </StrictMode>
);
// @ts-expect-error: a provider has a client
export const wrong = <GatewayProvider />;
