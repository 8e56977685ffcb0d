/** Networks, gateways and brokers that fail: nothing is missed where nothing was lost, and all else is told. */
import type { Client, Gap } from "../../dist/index.js";
import { record } from "./events.js";
import type { Test } from "./list.js";
import { sameTask, sameWorkflow } from "./state.js";
import { type Door, numbers, pause, type Told, type Trial, unique } from "./trial.js";

const CUTS = 22;
/** The lab's gateway's. */
const KEEPALIVE_MS = 2_000;
/** More than that, and than a busy machine takes to bring one. */
const STALE_MS = 6_000;

/** A client's events and gaps of one name, in one list. */
function listen(client: Client, name: string): Told[] {
  const told: Told[] = [];
  client.events({ name }, { onGap: (gap) => told.push(gap) }).subscribe((event) => told.push(event));
  return told;
}

/** Waits until the event with this number is told. */
async function heard(t: Trial, told: readonly Told[], last: number): Promise<void> {
  await t.until(`event ${last} is told (last: ${JSON.stringify(told.at(-1))})`, () => told.at(-1)?.["n"] === last);
}

/** Publishes numbered events until one is told: from then on, and not before, a watch misses none. */
async function reached(t: Trial, client: Client): Promise<void> {
  const name = unique("probe");
  const told = record(client.events({ name }));
  await t.until("the watch has begun", async () => {
    await (await t.load(name, 1)).done();
    return told.length > 0;
  });
}

async function rightAtTheEnd(t: Trial, client: Client, door: Door): Promise<void> {
  const [task, flow] = [await t.run("canvas.add", 2, 3), await t.run("trees.fan", 3)];
  const [watch, workflow] = [client.task(task.uuid), client.workflow(flow.root_id)];
  workflow.subscribe(() => undefined);
  t.equal((await watch.ready).result, "5", "a task that runs after it");
  await t.until("the workflow is ready", () => workflow.value?.ready === 4);
  await sameTask(t, door, watch, task.uuid);
  await sameWorkflow(t, door, workflow, flow.root_id);
}

export const outages: Test[] = [
  {
    name: `a connection cut ${CUTS} times under load: each event once, in order, and no gap`,
    isLong: true,
    async run(t) {
      const { client, door } = await t.enter();
      const name = unique("tick");
      const gaps: Gap[] = [];
      client.on("gap", (gap) => gaps.push(gap));
      const told = listen(client, name);
      const all = listen(client, `${name.slice(0, -1)}?`);
      await reached(t, client);
      const load = await t.load(name, 1_000_000, { per_second: 200 });
      for (let cut = 0; cut < CUTS; cut += 1) {
        const { connects } = await door.state();
        await t.until("it is connected", async () => (await door.state()).open > 0);
        await pause(Math.random() * 250);
        await (cut % 3 === 2 ? door.hangUp() : door.cut());
        await t.until("it has come back", async () => (await door.state()).connects > connects);
        // Each cut before the first event doubles the pause, and a busy page may need longer than until the next cut.
        const before = told.length;
        if (cut % 2) await t.until("events come again", () => told.length > before);
      }
      const count = await load.stop();
      await heard(t, told, count - 1);
      await heard(t, all, count - 1);
      t.equal(gaps, [], "no gap");
      t.equal(numbers(told).length, count, "all are told");
      t.equal(numbers(all).length, count, "all are told to the other");
    },
  },
  {
    name: "watches that come while the connection is cut",
    isLong: true,
    async run(t) {
      const { client, door } = await t.enter();
      const name = unique("tick");
      const told = listen(client, name);
      await reached(t, client);
      const count = 600;
      const load = await t.load(name, count, { per_second: 150 });
      const later: { begun: number; told: Told[] }[] = [];
      const watches = [];
      while (!(await load.state()).done) {
        later.push({ begun: told.length, told: listen(client, name) });
        const { uuid } = await t.run("canvas.add", later.length, 0);
        watches.push({ uuid, watch: client.task(uuid) });
        watches.at(-1)!.watch.subscribe(() => undefined);
        await pause(Math.random() * 100);
        await door.cut();
        await t.until("it is connected", () => client.status === "open");
      }
      await heard(t, told, count - 1);
      t.equal(numbers(told).length, count, "the first is told of all");
      for (const it of later) {
        const found = numbers(it.told);
        if (found.length === 0) continue; // it began behind the last
        t.ok(found[0]! >= it.begun, `watched when ${it.begun} were told, it begins with ${found[0]}`);
        t.equal(found.at(-1), count - 1, "and is told of all that follow");
      }
      for (const { uuid, watch } of watches) {
        await watch.ready;
        await sameTask(t, door, watch, uuid);
      }
    },
  },
  {
    name: "a network that stalls is left after staleMs, and nothing is missed",
    isLong: true,
    async run(t) {
      const { client, door } = await t.enter({ staleMs: STALE_MS });
      const name = unique("tick");
      const told = listen(client, name);
      await reached(t, client);
      const load = await t.load(name, 800, { per_second: 100 });
      await t.until("events come", () => told.length > 20);
      await door.stall();
      await t.until("it is taken for dead", () => client.status !== "open");
      await door.resume();
      await load.done();
      await heard(t, told, 799);
      t.equal(numbers(told).length, 800, "all are told");
      t.ok(!told.some((item) => item["type"] === "gateway-gap"), "no gap");
    },
  },
  {
    name: "a quiet stream is not taken for dead",
    async run(t) {
      const { client, door } = await t.enter({ staleMs: STALE_MS });
      const told = listen(client, unique("nobody"));
      await t.open(client);
      const seen: string[] = [];
      client.on("status", (status) => seen.push(status));
      const { connects } = await door.state(); // a browser may have one for the preflight, too
      await pause(STALE_MS + 1_000);
      t.equal([seen, told], [[], []], "nothing happens");
      t.equal((await door.state()).connects, connects, "connections");
    },
  },
  {
    name: "a stream that brings nothing keeps its place by its keep-alives",
    runs: ["node sse", "node websocket"],
    isAlone: true,
    async run(t) {
      const { client, door } = await t.enter();
      const name = unique("tick");
      const told = listen(client, name);
      await t.open(client);
      // More than the lab's gateway remembers. (What is published at a time is less than that.)
      for (let part = 0; part < 2; part += 1) {
        await (await t.load(unique("other"), 900, { per_second: 900, padding: 20_000 })).done();
        await pause(1.5 * KEEPALIVE_MS);
      }
      const { connects } = await door.state();
      await door.cut();
      await t.until("it has come back", async () => (await door.state()).connects > connects && client.status === "open");
      await reached(t, client);
      t.equal(told, [], "no gap");
      await (await t.load(name, 3)).done();
      await heard(t, told, 2);
    },
  },
  {
    name: "nobody listens at the gateway's port for a while",
    async run(t) {
      const { client, door } = await t.enter();
      const name = unique("tick");
      const told = listen(client, name);
      await reached(t, client);
      const load = await t.load(name, 200, { per_second: 200 });
      await t.until("events come", () => told.length > 20);
      await door.refuse();
      await t.until("it waits", () => client.status !== "open");
      await load.done();
      await door.resume();
      await heard(t, told, 199);
      t.equal(numbers(told).length, 200, "all are told");
    },
  },
  ...([false, true] as const).map(
    (kill): Test => ({
      name: `a gateway ${kill ? "killed" : "restarted"} under load: the reset is a gap, and then all is right`,
      runs: kill ? ["node websocket", "chromium sse"] : undefined,
      isAlone: true,
      async run(t) {
        const { client, door } = await t.enter();
        const name = unique("tick");
        const gaps: Gap[] = [];
        client.on("gap", (gap) => gaps.push(gap));
        const told = listen(client, name);
        const before = await t.run("canvas.add", 1, 1);
        const old = client.task(before.uuid);
        const workers = client.workers();
        workers.subscribe(() => undefined);
        const known = await old.ready;
        old.subscribe(() => undefined);
        await t.until("the workers are known", () => workers.value?.some((worker) => worker.alive));
        const load = await t.load(name, 100_000, { per_second: 250, batch: 2 });
        await t.until("events come", () => told.length > 20);
        await t.command("/gateway/restart", { kill });
        await t.until("a gap is told", () => gaps.length > 0);
        const gapAt = told.findIndex((item) => item["type"] === "gateway-gap");
        t.ok(gapAt > 0, "also to the watch");
        await t.until("it goes on", () => told.length > gapAt + 100);
        const sent = await load.stop();
        await heard(t, told, sent - 1);
        numbers(told);
        t.equal(old.value, known, "what the gateway has forgotten stays");
        await rightAtTheEnd(t, client, door);
        const hostnames = (list: readonly any[]) => list.filter((it) => it.alive).map((it) => it.hostname);
        await t.same(
          "who is alive",
          () => hostnames(workers.value ?? []),
          // A worker that ended while the gateway was away stays until it is silent.
          async () => hostnames((await door.get("/workers")).workers),
        );
      },
    }),
  ),
  ...(["cut", "restart"] as const).map(
    (verb): Test => ({
      name: `a broker's ${verb}: the gap says so, and then all is right`,
      runs: verb === "restart" ? ["node sse", "chromium websocket"] : undefined,
      isAlone: true,
      async run(t) {
        const { client, door } = await t.enter();
        const gaps: Gap[] = [];
        const consuming: boolean[] = [];
        client.on("gap", (gap) => gaps.push(gap));
        client.on("source", (sources) => consuming.push(...sources.map((source) => source.consuming)));
        const stream = unique("tick");
        const told = listen(client, stream);
        const { uuid } = await t.run("canvas.forever");
        const running = client.task(uuid);
        const flow = await t.run("trees.fan", 5);
        const workflow = client.workflow(flow.root_id);
        running.subscribe(() => undefined);
        workflow.subscribe(() => undefined);
        await t.until("it runs", () => running.value?.state === "STARTED");
        await t.command(`/broker/${verb}`);
        await t.until("the gap is told", () => gaps.some((gap) => gap.reason === "broker"));
        await t.until("to the watch, too", () => told.some((item) => item["reason"] === "broker"));
        await t.until("the gateway is back", async () => (await fetch(`${door.url}/readyz`)).ok);
        await t.until("the client is told", () => consuming.includes(false) && consuming.at(-1));
        await t.command("/revoke", { uuid });
        await t.until("it is revoked", async () => (await door.get(`/tasks/${uuid}`)).state === "REVOKED");
        await sameTask(t, door, running, uuid);
        await sameWorkflow(t, door, workflow, flow.root_id);
        await rightAtTheEnd(t, client, door);
      },
    }),
  ),
];
