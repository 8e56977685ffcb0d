/** Tasks, workflows and workers: at the end, what a client has made of events is what the gateway says. */
import { type GatewayError, TaskError, type Task, type Workflow } from "../../dist/index.js";
import type { Test } from "./list.js";
import { type Door, pause, type Trial, unique } from "./trial.js";

/** The fields of `GET /tasks/{uuid}` that no record of the client has. */
const NOT_FOLLOWED = ["attempts"];

/** A task, or one of a workflow, as JSON without the fields that a client does not follow. */
export function comparable(task: any): any {
  if (task === null) return null;
  const { children, ...rest } = task;
  for (const field of NOT_FOLLOWED) delete rest[field];
  const isTree = Array.isArray(children) && children.every((child) => typeof child === "object");
  return isTree ? { ...rest, children: byUuid(children) } : { ...rest };
}

/** Siblings run at once, and who is heard of first may be told by an event that waits for its name. */
function byUuid(tasks: readonly any[]): any[] {
  return tasks.map(comparable).sort((a, b) => (a.uuid < b.uuid ? -1 : 1));
}

/** Waits until a watched task is what the gateway says. */
export async function sameTask(t: Trial, door: Door, watch: { value: Task | null }, uuid: string): Promise<void> {
  await t.same(
    `task ${uuid}`,
    () => comparable(watch.value),
    async () => comparable(await door.get(`/tasks/${uuid}`)),
  );
}

/** Waits until a watched workflow is what the gateway says. */
export async function sameWorkflow(
  t: Trial,
  door: Door,
  watch: { value: Workflow | null },
  rootId: string,
): Promise<void> {
  await t.same(`workflow ${rootId}`, () => tree(watch.value), async () => tree(await door.get(`/workflows/${rootId}`)));
}

function tree(workflow: any): any {
  if (workflow === null) return null;
  const { id, tasks, ...rest } = workflow;
  return { ...rest, tasks: byUuid(tasks) };
}

/** A started task, watched. */
async function started(t: Trial, name: string, ...args: unknown[]) {
  const { client, door } = await t.enter();
  const { uuid } = await t.run(name, ...args);
  const watch = client.task(uuid);
  const values: Task[] = [];
  watch.subscribe(() => values.push(watch.value!));
  return { client, door, uuid, watch, values };
}

const ENDS: [task: string, args: unknown[], state: string][] = [
  ["canvas.add", [1, 2], "SUCCESS"],
  ["canvas.progress", [5], "SUCCESS"],
  ["canvas.fail", [], "FAILURE"],
  ["ends.retried", [], "SUCCESS"],
  ["walks.flaky", [], "FAILURE"],
  ["ends.requeued", [], "SUCCESS"],
  ["ends.replaced", [1, 2], "SUCCESS"],
  ["ends.lost_once", [], "SUCCESS"],
];

export const state: Test[] = [
  ...ENDS.map(
    ([name, args, end]): Test => ({
      name: `task: ${name} ends in ${end}, as the gateway says`,
      async run(t) {
        const { watch, door, uuid } = await started(t, name, ...args);
        const outcome = await watch.ready.then(
          (task) => ({ task, error: null }),
          (error) => ({ task: error.task, error }),
        );
        t.equal(outcome.task?.state, end, "the state at the end");
        t.equal(outcome.error instanceof TaskError, end !== "SUCCESS", "ready is rejected with a TaskError, or not");
        if (outcome.error) t.ok(outcome.error.message.includes("rror"), `it says which: ${outcome.error.message}`);
        await sameTask(t, door, watch, uuid);
      },
    }),
  ),
  {
    name: "task: one that is revoked rejects",
    async run(t) {
      const { watch, door, uuid, values } = await started(t, "canvas.forever");
      await t.until("it runs", () => watch.value?.state === "STARTED");
      const ready = watch.ready;
      await t.command("/revoke", { uuid });
      const error = await t.rejects("ready", ready);
      t.ok(error instanceof TaskError, `a TaskError, not ${error}`);
      t.equal(error.task.state, "REVOKED", "the state");
      await sameTask(t, door, watch, uuid);
      const records = values.filter((value) => value !== null); // null: its first event was not there yet
      t.ok(new Set(records).size === records.length, "each value is an object of its own");
    },
  },
  {
    name: "values: iterators and subscribers receive them and nothing else, subscribers also at once",
    async run(t) {
      const { client } = await t.enter();
      const uuid = unique("values");
      const told: Record<string, any[]> = { task: [], workflow: [] };
      const given: Record<string, any[]> = { task: [], workflow: [] };
      for (const [kind, watch] of [["task", client.task(uuid)], ["workflow", client.workflow(uuid)]] as const) {
        watch.subscribe((...more: unknown[]) => told[kind]!.push(...more));
        t.equal(told[kind], [null], "what a subscriber is told at once");
        void (async () => {
          for await (const value of watch) given[kind]!.push(value);
        })();
      }
      const workers = client.workers();
      workers.subscribe(() => undefined);
      await t.until("they are watched", () => workers.value);
      // Of several events in one turn an iterator yields the last value, so each event waits for the values of the one before.
      const before = { task: 0, workflow: 0 };
      await publishWalk(t, uuid, async () => {
        for (const kind of ["task", "workflow"] as const) {
          await t.until(`a ${kind} has changed`, () => given[kind]!.length > before[kind]);
          before[kind] = given[kind]!.length;
        }
      });
      await t.until("its end is told", () => given["workflow"]!.at(-1)?.ready === 1 && given["task"]!.at(-1)?.result);
      for (const kind of ["task", "workflow"]) {
        t.ok(given[kind]!.every((value) => told[kind]!.includes(value)), `${kind}: subscribers were told what iterators were`);
        t.equal(told[kind]!.filter((value) => value === null), [null, null], `${kind}: at once, and when it was unknown`);
      }
      for (const task of given["task"]!) t.equal([task.uuid, typeof task.attempt], [uuid, "number"], "a task's record");
      for (const { root_id, tasks } of given["workflow"]!) t.equal([root_id, tasks.length], [uuid, 1], "a workflow");
    },
  },
  {
    name: "task: one watched before it is sent, and one that ended long before",
    async run(t) {
      const { client, door } = await t.enter();
      const first = await t.run("canvas.add", 20, 22);
      await t.until("it has ended", async () => (await tasks(door, first.root_id))[0]?.state === "SUCCESS");
      const watch = client.task(first.uuid);
      t.equal(watch.value, null, "nothing is known before it is watched");
      t.equal((await watch.ready).result, "42", "its result");
      await sameTask(t, door, watch, first.uuid);
      const values: (Task | null)[] = [];
      for await (const value of client.task(first.uuid)) {
        values.push(value);
        break;
      }
      t.equal(values[0]?.state, "SUCCESS", "the first value of an iterator");

      const uuid = unique("later");
      const later = client.task(uuid);
      const ready = later.ready;
      const workers = client.workers();
      workers.subscribe(() => undefined);
      await t.until("it is watched", () => workers.value);
      await publishWalk(t, uuid);
      t.equal((await ready).state, "SUCCESS", "one that comes after");
      await sameTask(t, door, later, uuid);
    },
  },
  {
    name: "task: retries that overtake the attempt before them",
    async run(t) {
      const { client, door } = await t.enter();
      const workers = client.workers();
      workers.subscribe(() => undefined);
      const uuid = unique("overtaken");
      const watch = client.task(uuid);
      watch.subscribe(() => undefined);
      await t.until("it is watched", () => workers.value);
      const now = Date.now() / 1000;
      const call = { name: "walk", root_id: uuid, parent_id: null, args: "()", kwargs: "{}", eta: null, expires: null };
      // A worker's child sends the retry by itself, and may be heard before what its parent says in batches.
      const told: [type: string, at: number, retries?: number][] = [
        ["sent", 0, 0],
        ["received", 1, 0],
        ["sent", 3, 1],
        ["started", 2],
        ["retried", 4],
        ["received", 5, 1],
        ["sent", 8, 2],
        ["started", 6],
        ["retried", 9],
        ["received", 10, 2],
        ["started", 11],
        ["succeeded", 12],
      ];
      const watches = [watch];
      const heard: unknown[] = [];
      client.events({ uuid }).subscribe((event) => heard.push(event));
      await t.until("the events are watched", async () => {
        await t.command("/publish", { bodies: [{ type: "worker-probe", uuid, timestamp: now }] });
        return heard.length;
      });
      heard.length = 0;
      for (const [index, [type, at, retries]] of told.entries()) {
        const hostname = type === "sent" ? "gen7@host" : "walk@host";
        const event = { uuid, hostname, pid: 1, utcoffset: 0, clock: index, type: `task-${type}` };
        const body = { ...event, timestamp: now + at / 1000, ...(retries !== undefined && { ...call, retries }) };
        await t.command("/publish", { bodies: [body] });
        await t.until("it is heard", () => heard.some((event: any) => event.clock === index));
        if (type === "sent" && retries === 1) {
          watches.push(t.connect({ url: door.url }).task(uuid)); // this one sees it in a snapshot first
          watches[1]!.subscribe(() => undefined);
        }
        for (const it of watches) await sameTask(t, door, it, uuid);
      }
      t.equal([watch.value!.attempt, watch.value!.retries], [3, 2], "attempt and retries");
    },
  },
  {
    name: "ready: an unknown task or workflow rejects after waitKnownMs, once the gateway has said so again",
    async run(t) {
      const { client, door } = await t.enter({ waitKnownMs: 2_000 });
      const uuid = unique("unknown");
      const [task, workflow] = [client.task(uuid), client.workflow(uuid)];
      t.equal([task.status, task.value], ["loading", null], "before the answer");
      const iterated: unknown[] = [];
      task[Symbol.asyncIterator]().next().then((next) => iterated.push(next), () => undefined);
      const begun = performance.now();
      const settled = [t.rejects("task", task.ready), t.rejects("workflow", workflow.ready)];
      await t.until("it is unknown", () => task.status === "unknown" && workflow.status === "unknown");
      await door.cut(); // an answer from before does not count
      const errors = await Promise.all(settled);
      t.equal(errors.map((error) => error.code), ["task-unknown", "workflow-unknown"], "the codes");
      t.ok(errors.every((error) => error.message.includes(uuid)), `they name the id: ${errors}`);
      const ms = performance.now() - begun;
      t.ok(ms > 2_000, `it waits, not only ${ms} ms`);
      t.equal([task.value, task.status, task.error, iterated], [null, "unknown", null, []], "the watch goes on");
      const again = (waitKnownMs: number) => t.connect({ url: door.url, waitKnownMs }).task(uuid);
      const [late, patient] = [again(30_000), again(Infinity)];
      const both = Promise.all([late.ready, patient.ready]);
      await t.until("they are watched", () => late.status === "unknown" && patient.status === "unknown");
      await publishWalk(t, uuid);
      t.equal((await both).map((task) => task.state), ["SUCCESS", "SUCCESS"], "one that comes in time");
      t.equal([task.status, task.value?.state], ["known", "SUCCESS"], "the first watch");
    },
  },
  {
    name: "ready: a lost task and its workflow reject after lostGraceMs; one that is found again does not",
    async run(t) {
      const { client } = await t.enter({ lostGraceMs: 3_000, waitKnownMs: 30_000 });
      const [uuid, other] = [unique("lost"), unique("found")];
      const hostname = `${unique("brief")}@host`;
      const watches = [client.task(uuid), client.workflow(uuid), client.task(other)] as const;
      const [lost, lostFlow] = [t.rejects("task", watches[0].ready), t.rejects("workflow", watches[1].ready)];
      const found = watches[2].ready;
      await t.until("they are watched", () => watches.every(({ status }) => status === "unknown"));
      const now = Date.now() / 1000;
      const event = { hostname, pid: 1, utcoffset: 0 };
      const load = { freq: 2, active: 0, loadavg: [0, 0, 0], sw_ident: "py-celery", sw_ver: "5.7.0", sw_sys: "Linux" };
      const bodies = [{ ...event, ...load, type: "worker-online", clock: 10, processed: 7, timestamp: now }];
      for (const id of [uuid, other]) bodies.push(...begun(event, id, now));
      // The same process number, and it counts from the beginning: another process.
      bodies.push({ ...event, ...load, type: "worker-online", clock: 1, processed: 0, timestamp: now + 1 });
      for (const body of bodies) await t.command("/publish", { bodies: [body] });
      await t.until("they are lost", () => watches[0].value?.stale && watches[2].value?.stale);
      t.equal([watches[0].status, watches[0].value!.state], ["known", "LOST"], "its status and state");
      for (const body of begun({ ...event, pid: 2 }, other, now + 2)) await t.command("/publish", { bodies: [body] });
      t.equal([(await lost).code, (await lostFlow).code], ["task-lost", "workflow-lost"], "the codes");
      t.equal(watches[2].value!.state, "STARTED", "the one that was found");
      const done = { ...event, pid: 2, uuid: other, type: "task-succeeded", clock: 9, timestamp: now + 3, result: "1", runtime: 1 };
      await t.command("/publish", { bodies: [done] });
      t.equal((await found).progress, 1, "its progress, though it never reported one");
      const offline = { ...event, type: "worker-offline", clock: 20, timestamp: now + 4 };
      await t.command("/publish", { bodies: [offline] }); // other tests look at all workers that are alive
    },
  },
  {
    name: "ready: a workflow resolves when all known tasks have ended and it is quiet",
    async run(t) {
      const { client, door } = await t.enter();
      const { root_id } = await t.run("chain", 3, 4, 5);
      const failing = await t.run("canvas.fail");
      const [chain, failed] = [client.workflow(root_id, { quietMs: 1_000 }), client.workflow(failing.root_id, { quietMs: 500 })];
      const refused = client.workflow((await t.run("chain", 1, 2)).uuid).ready;
      const flow = await chain.ready;
      t.equal([flow.total, flow.ready, flow.counts], [4, 4, { SUCCESS: 4 }], "the chain");
      await sameWorkflow(t, door, { value: flow }, root_id);
      t.equal((await failed.ready).counts, { FAILURE: 1 }, "one that fails resolves, too");
      t.equal((await t.rejects("no root", refused)).code, "not-a-root", "an id that is no root");
      t.ok(chain.ready === chain.ready, "it is one promise");
      const closed = client.workflow(unique("never"));
      const ready = closed.ready;
      closed.close();
      t.equal((await t.rejects("closed", ready)).name, "AbortError", "of a closed watch");
    },
  },
  {
    name: "more watches than fit into a request take more connections; the rest is refused, not everything streamed",
    runs: ["node sse", "chromium websocket"],
    async run(t) {
      const { client, door } = await t.enter();
      const errors: Error[] = [];
      client.on("error", (error) => errors.push(error));
      const prefix = unique("many");
      // Each has two filters that cannot be merged with others, since they exclude: 50 fit into a request.
      const filters = (n: number) => ["!x", "!y"].map((other) => ({ name: [`${prefix}.${n}`, other] }));
      const told: number[] = Array.from({ length: 210 }, () => 0);
      const others: string[] = [];
      const endings: Promise<unknown>[] = [];
      const watch = async (n: number) => {
        for await (const event of client.events(filters(n))) {
          if (event.name === `${prefix}.${n}`) told[n]!++;
          else others.push(`${event.name}`);
        }
      };
      for (let n = 0; n < 210; n++) endings.push(watch(n).catch((error) => error));
      await t.until("the rest is refused", () => errors.length >= 10);
      t.equal(errors.map((error: any) => error.code), errors.map(() => "too-many-watches"), "the codes");
      t.equal([errors.length, client.status === "closed"], [10, false], "how many, and the client goes on");
      const refused = await Promise.all(endings.slice(200));
      t.ok(refused.every((error: any) => error.code === "too-many-watches"), "their iterators throw");
      const tick = { type: "task-tick", uuid: prefix, hostname: "tick@host" };
      await t.until("all others are received", async () => {
        const bodies = told.map((_, n) => ({ ...tick, name: `${prefix}.${n}`, timestamp: Date.now() / 1000 }));
        await t.command("/publish", { bodies });
        await pause(200);
        return told.slice(0, 200).every((count) => count > 0);
      });
      t.equal([told.slice(200).filter(Boolean), others], [[], []], "and only of their own");
      t.ok((await door.state()).open <= 5, "four connections and perhaps a preflight's");
    },
  },
  {
    name: "workflow: a chain, a group and a chord end as the gateway says",
    async run(t) {
      const { client, door } = await t.enter();
      const workflows: [string, unknown[], number][] = [
        ["chain", [3, 4, 5], 4],
        ["trees.fan", [12], 13],
        ["trees.gather", [6], 9],
      ];
      await Promise.all(
        workflows.map(async ([kind, args, total]) => {
          const { root_id } = await t.run(kind, ...args);
          const watch = client.workflow(root_id);
          const values: Workflow[] = [];
          watch.subscribe(() => watch.value && values.push(watch.value));
          await t.until(`${kind} is ready`, () => watch.value?.ready === total);
          await sameWorkflow(t, door, watch, root_id);
          t.equal([watch.value!.total, watch.value!.progress], [total, 1], `${kind}: total and progress`);
          for (const [index, value] of values.entries()) {
            const before = values[index - 1];
            const grows = !before || (before.ready <= value.ready && before.total <= value.total);
            t.ok(grows, `${kind}: ready and total only grow`);
            const least = value.ready / value.total;
            t.ok(value.progress >= least - 1e-9 && value.progress <= 1, `${kind}: progress ${value.progress}`);
            const counted = Object.values(value.counts).reduce((sum, count) => sum + count, 0);
            t.equal(counted, value.total, `${kind}: the counts`);
          }
        }),
      );
    },
  },
  {
    name: "workflow: an id that is no root is refused once, whether its task is known before or comes later",
    async run(t) {
      const { client, door } = await t.enter();
      const { uuid, root_id } = await t.run("chain", 1, 2, 3);
      const later = unique("child");
      const errors: Error[] = [];
      client.on("error", (error) => errors.push(error));
      const watches = [client.workflow(uuid), client.workflow(later), client.workflow(root_id)];
      for (const watch of watches) watch.subscribe(() => undefined);
      await t.until("the root's workflow is known", () => watches[2]!.value?.ready);
      const now = Date.now() / 1000;
      const call = { name: "walk", root_id, parent_id: root_id, args: "()", kwargs: "{}", retries: 0 };
      const received = { type: "task-received", uuid: later, hostname: "walk@host", pid: 1, timestamp: now };
      for (const _ of [1, 2]) await t.command("/publish", { bodies: [{ ...received, ...call }] });
      await t.until("both are refused", () => errors.length >= 2);
      const refused = (id: string) => `the task ${id} belongs to the root ${root_id}`;
      t.equal(errors.map((error) => error.message).sort(), [uuid, later].map(refused).sort(), "what is refused");
      t.equal((errors[0] as GatewayError).code, "not-a-root", "the code");
      t.equal([watches[0]!.value, watches[1]!.value, client.status], [null, null, "open"], "the watches stay open");
      await sameWorkflow(t, door, watches[2]!, root_id);
    },
  },
  {
    name: "workflow: one that is watched when all is over, and by many",
    async run(t) {
      const { client, door } = await t.enter();
      const { root_id } = await t.run("trees.gather", 4);
      await t.until("it is over", async () => {
        const members = await tasks(door, root_id);
        return members.length === 7 && members.every((task) => task.state === "SUCCESS");
      });
      const watches = Array.from({ length: 5 }, () => client.workflow(root_id));
      for (const watch of watches) watch.subscribe(() => undefined);
      await t.until("a value", () => watches.every((watch) => watch.value));
      for (const watch of watches) await sameWorkflow(t, door, watch, root_id);
      t.ok(new Set(watches.map((watch) => watch.value)).size === 1, "equal watches share one value");
    },
  },
  {
    name: "workers: one that is killed is alive no more",
    runs: ["node sse", "chromium websocket"],
    isLong: true,
    async run(t) {
      const { client, door } = await t.enter();
      const { hostname } = await t.command<{ hostname: string }>("/workers/start");
      const watch = client.workers();
      watch.subscribe(() => undefined);
      const alive = () => watch.value?.find((worker) => worker.hostname === hostname)?.alive;
      await t.until("it is alive", () => alive() === true);
      const names = (list: readonly { hostname: string }[]) => list.map((worker) => worker.hostname);
      await t.same(
        "the workers",
        () => names(watch.value!),
        async () => names((await door.get("/workers")).workers),
      );
      await t.command("/workers/kill", { hostname });
      t.equal(alive(), true, "nobody knows yet");
      await t.until("it is not alive", () => alive() === false);
      await t.same("alive", alive, async () => {
        const { workers } = await door.get("/workers");
        return workers.find((worker: any) => worker.hostname === hostname).alive;
      });
    },
  },
  {
    name: "workers: as the gateway says, and gone with a goodbye",
    async run(t) {
      const { client, door } = await t.enter();
      const watch = client.workers();
      watch.subscribe(() => undefined);
      await t.until("a value", () => watch.value?.length);
      const hostname = `${unique("brief")}@host`;
      const said = { hostname, pid: 7, utcoffset: 0, sw_ident: "py-celery", sw_ver: "5.7.0", sw_sys: "Linux" };
      const load = { freq: 2, active: 0, processed: 3, loadavg: [0.5, 0.25, 0] };
      let clock = 0;
      const publish = async (type: string, fields: object = load) => {
        clock += 1;
        const body = { ...said, ...fields, type, clock, timestamp: Date.now() / 1000 };
        await t.command("/publish", { bodies: [body] });
      };
      /** Of the same hostname; `since` is of this client's clock. */
      const of = (workers: readonly any[]) => {
        const { since, ...rest } = workers.find((worker) => worker.hostname === hostname) ?? {};
        return [rest, Math.abs(since - Date.now() / 1000) < 30];
      };
      const known = () => of(watch.value ?? []);
      const theirs = async () => of((await door.get("/workers")).workers);
      await publish("worker-online");
      await publish("worker-heartbeat");
      await t.until("it is alive", () => known()[0].alive);
      await t.same("the worker", known, theirs);
      await publish("worker-mine", { ...load, active: 9, freq: 900 });
      const call = { uuid: unique("running"), name: "walk", args: "()", kwargs: "{}", retries: 0 };
      await publish("task-received", call);
      await publish("task-started", { uuid: call.uuid });
      await publish("worker-offline", { ...load, active: 1 });
      await t.until("it is stopping", () => known()[0].status === "stopping");
      await t.same("the worker that is stopping", known, theirs);
      await publish("task-succeeded", { uuid: call.uuid, result: "1", runtime: 1 });
      await publish("worker-offline");
      await t.until("it is offline", () => known()[0].alive === false);
      await t.same("the worker that is offline", known, theirs);
    },
  },
  {
    name: "a watch ends some time after the last subscriber, and begins again",
    async run(t) {
      const { client, door } = await t.enter();
      const { uuid } = await t.run("canvas.add", 1, 2);
      const watch = client.task(uuid);
      t.equal(client.status, "idle", "nobody has subscribed");
      const leave = watch.subscribe(() => undefined);
      await t.until("a value", () => watch.value);
      leave();
      await t.until("no connection is left", async () => (await door.state()).open === 0);
      t.equal(client.status, "idle", "nobody watches");
      watch.subscribe(() => undefined);
      await t.until("there is a connection", async () => (await door.state()).open > 0);
      await sameTask(t, door, watch, uuid);
    },
  },
];

async function tasks(door: Door, rootId: string): Promise<Task[]> {
  return (await door.get(`/tasks?root_id=${rootId}`)).tasks;
}

/** The events of a task that a worker has begun. */
function begun(event: object, uuid: string, at: number): any[] {
  const call = { name: "walk", root_id: uuid, parent_id: null, args: "()", kwargs: "{}", retries: 0, eta: null, expires: null };
  return [
    { ...event, ...call, uuid, type: "task-received", clock: 11, timestamp: at + 0.1 },
    { ...event, uuid, type: "task-started", clock: 12, timestamp: at + 0.2 },
  ];
}

/** Publish the events of a task that succeeds. `told` is awaited after each. */
async function publishWalk(t: Trial, uuid: string, told = () => pause(10)): Promise<void> {
  const now = Date.now() / 1000;
  const event = { uuid, hostname: "walk@host", pid: 1, utcoffset: 0 };
  const about = { name: "walk", root_id: uuid, parent_id: null, args: "()", kwargs: "{}" };
  const bodies = [
    { ...event, ...about, type: "task-received", clock: 1, timestamp: now, retries: 0, eta: null, expires: null },
    { ...event, type: "task-started", clock: 2, timestamp: now + 0.001 },
    { ...event, type: "task-progress", clock: 3, timestamp: now + 0.002, current: 1, total: 4 },
    { ...event, type: "task-succeeded", clock: 4, timestamp: now + 0.003, result: "None", runtime: 0.002 },
  ];
  for (const body of bodies) {
    await t.command("/publish", { bodies: [body] });
    await told();
  }
}
