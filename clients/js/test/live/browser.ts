/** What only a browser has: pages that sleep or are busy, its own EventSource, URLs relative to the page. */
import type { Event } from "../../dist/index.js";
import { record } from "./events.js";
import type { Test } from "./list.js";
import { sameTask, sameWorkflow } from "./state.js";
import { numbers, pause, type Told, type Trial, unique } from "./trial.js";

/** A page that is stopped in the midst of many events is right when it goes on. */
async function stopped(t: Trial, stop: () => Promise<void>): Promise<void> {
  const { client, door } = await t.enter();
  const name = unique("tick");
  const told: Told[] = [];
  client.events({ name }, { onGap: (gap) => told.push(gap) }).subscribe((event) => told.push(event));
  await t.open(client);
  const count = 4_000; // of four such tests at a time, half of what the lab's gateway remembers
  const load = await t.load(name, count, { per_second: 2_000, batch: 20, padding: 200 });
  const flows = [await t.run("trees.fan", 8), await t.run("chain", 1, 2, 3)];
  const watches = flows.map(({ root_id }) => client.workflow(root_id));
  for (const watch of watches) watch.subscribe(() => undefined);
  const { uuid } = await t.run("ends.retried", 0);
  const task = client.task(uuid);
  task.subscribe(() => undefined);
  await t.until("events come", () => told.length > 200);
  await stop();
  await load.done();
  const howFar = (): string => {
    const gaps = told.filter((item) => item["type"] === "gateway-gap");
    return `the last is told: ${told.length} were, up to ${JSON.stringify(told.at(-1))}, ${client.status}, gaps ${JSON.stringify(gaps)}`;
  };
  await t.until(howFar, () => told.at(-1)?.["n"] === count - 1);
  t.equal(numbers(told).length, count, "all are told");
  await task.ready;
  await sameTask(t, door, task, uuid);
  for (const [index, watch] of watches.entries()) await sameWorkflow(t, door, watch, flows[index]!.root_id);
}

export const browser: Test[] = [
  {
    name: "a page whose only thread is busy for seconds",
    runs: ["chromium sse", "chromium websocket"],
    isLong: true,
    page: "lab",
    run: (t) =>
      stopped(t, async () => {
        for (let block = 0; block < 3; block += 1) {
          const end = performance.now() + 1_000;
          while (performance.now() < end);
          await pause(0);
        }
      }),
  },
  {
    name: "a page that the browser has frozen",
    runs: ["chromium sse", "chromium websocket"],
    isLong: true,
    page: "lab",
    run: (t) => stopped(t, () => t.surroundings.freeze!(3_000)),
  },
  {
    name: "the browser's own EventSource, cut and resumed",
    runs: ["chromium sse"],
    isLong: true,
    async run(t) {
      const door = await t.door();
      const name = unique("tick");
      const source = new EventSource(`${door.url}/events?name=${name},nobody.*&type=task-tick`);
      const told: Event[] = [];
      const opened: string[] = [];
      source.onmessage = (message) => told.push(JSON.parse(message.data));
      source.addEventListener("gateway-open", (message) => opened.push(JSON.parse(message.data).resume));
      source.addEventListener("gateway-gap", (message) => opened.push(message.data));
      try {
        await t.until("it is open", () => opened.length > 0);
        const load = await t.load(name, 1_000, { per_second: 125 });
        for (let cut = 1; cut <= 3; cut += 1) {
          await pause(Math.random() * 500);
          // An EventSource comes back after a connection that broke, too, but tells its user an error.
          await (cut === 2 ? door.hangUp() : door.cut());
          await t.until("it has come back", () => opened.length > cut);
        }
        await load.done();
        await t.until("the last is told", () => told.at(-1)?.["n"] === 999);
        t.equal(numbers(told).length, 1_000, "all are told");
        t.equal(opened, ["live", "resumed", "resumed", "resumed"], "how it was opened");
      } finally {
        source.close();
      }
    },
  },
  {
    name: "a URL relative to the page, of a gateway under a sub-path",
    runs: ["chromium sse", "chromium websocket"],
    page: "door",
    async run(t) {
      for (const url of ["/celery", "../celery/"]) {
        const client = t.connect({ url });
        const name = unique("tick");
        const told = record(client.events({ name }));
        await t.open(client);
        await (await t.load(name, 3)).done();
        await t.until("all is told", () => told.length === 3);
        const { uuid } = await t.run("canvas.add", 40, 2);
        t.equal((await client.task(uuid).ready).result, "42", "a task");
        client.close();
      }
    },
  },
];
