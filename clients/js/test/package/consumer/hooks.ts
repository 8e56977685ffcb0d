/** Every hook, as a consumer uses it; what is wrong has to be an error for the compiler, too. */
import {
  type Client,
  connect,
  type Event,
  type Status,
  type Task,
  type Worker,
  type Workflow,
} from "@celery-gateway/client";
import {
  GatewayProvider,
  useEvents,
  type UseEventsOptions,
  useGateway,
  useStatus,
  useTask,
  useWorkers,
  useWorkflow,
} from "@celery-gateway/client/react";
import { createElement, type ReactElement } from "react";

export function App(props: { uuid: string | null }): ReactElement {
  const task: Task | null = useTask(props.uuid);
  const workflow: Workflow | null = useWorkflow(task?.root_id);
  const workers: readonly Worker[] | null = useWorkers();
  const status: Status = useStatus();
  const client: Client = useGateway();
  const options: UseEventsOptions = {
    limit: 10,
    onEvent: (event) => console.log(event.uuid),
    onGap: (gap) => console.log(gap.reason),
  };
  const failed: readonly Event[] = useEvents({ type: "task-failed" }, options);
  const all = useEvents();
  useEvents(null);
  useEvents([{ name: "shop.*" }, { hostname: ["a", "b"] }]);
  // @ts-expect-error: no such field
  useEvents({ nam: "shop.*" });
  // @ts-expect-error: no such option
  useEvents(null, { max: 10 });
  // @ts-expect-error: what is shown is to be read
  all.push(...failed);
  // @ts-expect-error: there may be nothing yet
  console.log(task.state, workflow?.progress, workers?.length, status === "open", client.status);
  // @ts-expect-error: a uuid is a string
  useTask(1);
  return createElement("p", null, failed.length);
}

const client = connect({ url: "/" });
export const page = createElement(GatewayProvider, { client }, createElement(App, { uuid: null }));
// @ts-expect-error: a provider has a client
createElement(GatewayProvider, {}, page);
