/** Every public function, as a consumer uses it; what is wrong has to be an error for the compiler, too. */
import {
  type Client,
  type ClientOptions,
  connect,
  type Event,
  type Filter,
  type Gap,
  GatewayError,
  login,
  logout,
  type Status,
  type Task,
  TaskError,
  type Worker,
  type Workflow,
} from "@celery-gateway/client";
import { tabs } from "@celery-gateway/client/tabs";

const options: ClientOptions = { url: "https://example.org/celery", transport: "websocket", staleMs: 30_000 };
const client: Client = connect(options);
connect({ url: new URL("https://example.org"), token: "secret", signal: new AbortController().signal });
connect({ url: "/celery", token: () => "secret" });
connect({ url: "/celery", token: async () => "secret", fetch: globalThis.fetch });
connect({ url: "/celery", credentials: "include", waitKnownMs: 1_000, lostGraceMs: Infinity, shared: tabs() });
// @ts-expect-error: `tabs()` is shared
connect({ url: "/celery", shared: true });
// @ts-expect-error: no such mode
connect({ url: "/celery", credentials: "always" });
// @ts-expect-error: no URL
connect({});
// @ts-expect-error: no such transport
connect({ url: "/", transport: "polling" });
// @ts-expect-error: a token is a string, or what gives one
connect({ url: "/", token: 1 });
// @ts-expect-error: seconds are given as milliseconds: there is no such option
connect({ url: "/", staleSeconds: 45 });

const session: Promise<void>[] = [login("/celery", "secret"), login(new URL("https://example.org"), "secret"), logout("/celery")];
// @ts-expect-error: a token is required
session.push(login("/celery"));
// @ts-expect-error: a token is a string here
session.push(login("/celery", () => "secret"));

const filter: Filter = { type: ["task-failed", "task-retried"], name: "shop.*" };
const events = client.events(filter, { since: "10m", onGap: (gap: Gap) => gap.lost?.toFixed() });
client.events();
client.events([filter, { root_id: "1" }], { lastEventId: "1" });
// @ts-expect-error: no such field
client.events({ nam: "shop.*" });
// @ts-expect-error: patterns are strings
client.events({ name: 1 });
// @ts-expect-error: no such option
client.events(filter, { snapshot: true });
const off: () => void = events.subscribe((event: Event) => {
  const state: string | null | undefined = event.state;
  const mine: unknown = event["mine"];
  // @ts-expect-error: what a sender added may be anything
  const text: string = event["mine"];
  // @ts-expect-error: events are to be read
  event.type = "task-sent";
  void [state, mine, text];
});
off();

export async function watch(): Promise<void> {
  for await (const event of events) console.log(event.type.toUpperCase());

  const task = client.task("some uuid", { signal: new AbortController().signal });
  const leave: () => void = task.subscribe((value: Task | null) => {
    // @ts-expect-error: there may be nothing yet
    console.log(value.state, task.value.state);
    console.log(task.status === "unknown", task.error?.message, task.known.value === value);
    console.log(value?.progress?.toFixed(2), value?.children.length, value?.custom?.["current"]);
  });
  leave();
  for await (const { uuid, state, runtime } of task) console.log(uuid, state, runtime ?? 0 > 1);
  try {
    const done: Task = await task.ready;
    console.log(done.result);
  } catch (error) {
    if (error instanceof TaskError) console.log(error.task.uuid, error.message);
    if (error instanceof GatewayError) console.log(error.code, error.status, error.parameter);
  }
  task.close();
  // @ts-expect-error: a task has a uuid
  client.task();
  // @ts-expect-error: a task is watched by a uuid, not by a filter
  client.task({ uuid: "some uuid" });

  const workflow = client.workflow("some root_id");
  const tree: Workflow | null = workflow.value;
  const over: Workflow = await client.workflow("some root_id", { quietMs: 90_000, cluster: "eu" }).ready;
  console.log(over.counts["FAILURE"] ?? 0);
  for (const root of tree?.tasks ?? []) console.log(root.children.map((child) => child.children.length));
  const failures: number | undefined = tree?.counts["FAILURE"];
  for await (const { progress, ready, total } of workflow) console.log(progress, ready / total, failures);

  const workers = client.workers();
  const all: readonly Worker[] | null = workers.value;
  // @ts-expect-error: a value is to be read
  all?.push(all[0]);
  for await (const now of workers) console.log(now.filter((worker) => worker.alive).length);
}

const status: Status = client.status;
// @ts-expect-error: the status is the client's
client.status = "open";
const offs: (() => void)[] = [
  client.on("status", (now) => console.log(now === "waiting", status)),
  client.on("gap", (gap) => console.log(gap.reason === "broker")),
  client.on("error", (error) => console.log(error.message)),
];
// @ts-expect-error: no such event
client.on("message", () => {});
for (const end of offs) end();
client.close();
