/** Lists, numbers and health: what a client shows is what the gateway says, also after a connection was lost. */
import type { Statistics } from "../../dist/index.js";
import { comparable } from "./state.js";
import type { Test } from "./list.js";
import { type Door, type Trial, unique } from "./trial.js";

const EVENTS = ["received", "started", "succeeded", "failed", "retried"] as const;
type Word = (typeof EVENTS)[number];

/** Publishes events of tasks with a name of their own: each is the number of a task and what happens to it. */
function publisher(t: Trial, name: string) {
  let clock = 0;
  const begunAt = Date.now() / 1000;
  return async (...steps: [task: number, word: Word, fields?: object][]): Promise<void> => {
    const bodies = steps.map(([task, word, fields]) => {
      clock += 1;
      const about = word === "received" ? { name, root_id: uuidOf(name, task), parent_id: null, args: `(${task},)`, kwargs: "{}" } : {};
      const end = word === "succeeded" ? { result: "None", runtime: task } : word === "failed" ? { exception: "E()", traceback: "" } : {};
      // The list is sorted by these times, and the gateway's by arrival.
      const timestamp = begunAt + clock / 1000;
      return { ...about, ...end, ...{ type: `task-${word}`, uuid: uuidOf(name, task), hostname: "list@host", pid: 1, utcoffset: 0, retries: 0 }, clock, timestamp, ...fields };
    });
    await t.command("/publish", { bodies });
  };
}
const uuidOf = (name: string, task: number): string => `${name}.${task}`;

async function sameList(t: Trial, door: Door, value: () => readonly any[] | undefined, query: string): Promise<void> {
  await t.same(
    `the list ${query}`,
    () => value()?.map(comparable),
    async () => (await door.get(`/tasks?${query}`)).tasks.map(comparable),
  );
}

export const lists: Test[] = [
  {
    name: "list: a page, then live; tasks that match no more leave; the next page",
    async run(t) {
      const { client, door } = await t.enter();
      const name = unique("list");
      const publish = publisher(t, name);
      await publish(...Array.from({ length: 8 }, (_, task): [number, Word] => [task, "received"]));
      await t.until("the gateway has them", async () => (await door.get(`/tasks?name=${name}`)).tasks.length === 8);
      const all = client.tasks({ name }, { limit: 4 });
      const waiting = client.tasks({ name, state: "RECEIVED" }, { limit: 4 });
      const long = client.tasks({ name }, { where: { runtime: ">=3" } });
      const sought = client.tasks({}, { q: `${name}.1`.toUpperCase() });
      const one = client.tasks({}, { q: `${name}.1` });
      for (const watch of [all, waiting, long, sought, one]) watch.subscribe(() => undefined);
      await t.until("all are known", () => [all, waiting, long, sought, one].every((watch) => watch.value));
      t.equal([all.value!.tasks.length, all.value!.more, long.value!.tasks.length, sought.value!.tasks.length], [4, true, 0, 1], "the pages");
      await publish([8, "received"], [7, "started"], [5, "started"], [9, "received"], [10, "received"], [7, "succeeded"], [2, "succeeded"]);
      await t.until("the events have come", () => all.value!.arrived === 3 && long.value!.tasks.length === 1);
      await sameList(t, door, () => all.value?.tasks, `name=${name}&limit=4`);
      await sameList(t, door, () => waiting.value?.tasks, `name=${name}&state=RECEIVED&limit=4`);
      await sameList(t, door, () => long.value?.tasks, `name=${name}&runtime>=3`);
      await sameList(t, door, () => sought.value?.tasks, `q=${name}.1`.toUpperCase().replace("Q", "q"));
      await sameList(t, door, () => one.value?.tasks, `q=${name}.1`);
      t.equal([sought.value!.tasks.length, one.value!.tasks.length], [2, 1], "an id finds its task only");
      await all.more();
      await sameList(t, door, () => all.value?.tasks, `name=${name}&limit=8`);
      await all.more();
      await sameList(t, door, () => all.value?.tasks, `name=${name}`);
      t.equal(all.value!.more, false, "there are no more");
    },
  },
  {
    name: "list: after a lost connection, and in another order",
    runs: ["node sse", "chromium websocket"],
    async run(t) {
      const { client, door } = await t.enter();
      const name = unique("list");
      const publish = publisher(t, name);
      await publish([1, "received"], [2, "received"], [1, "started"], [1, "succeeded"]);
      const newest = client.tasks({ name });
      const longest = client.tasks({ name }, { sort: "-runtime" });
      for (const watch of [newest, longest]) watch.subscribe(() => undefined);
      await t.until("both are there", () => newest.value?.tasks.length === 2 && longest.value?.tasks.length === 2);
      await door.cut();
      await publish([2, "started"], [2, "succeeded"], [3, "received"]);
      await door.resume();
      await t.until("it has come", () => newest.value!.tasks.length === 3);
      await sameList(t, door, () => newest.value?.tasks, `name=${name}`);
      await sameList(t, door, () => longest.value?.tasks, `name=${name}&sort=-runtime`);
    },
  },
  {
    name: "lists that are fetched: workflows, counts, failures; attempts of a task",
    runs: ["node websocket", "chromium sse"],
    async run(t) {
      const { client, door } = await t.enter();
      const name = unique("list");
      const publish = publisher(t, name);
      const workflows = client.workflows({ name }, { intervalMs: 500 });
      const counts = client.counts({ name }, ["state", "name"], { intervalMs: 500 });
      const failures = client.failures({ name, intervalMs: 500 });
      const task = client.task(uuidOf(name, 1), { attempts: true });
      for (const watch of [workflows, counts, failures, task]) watch.subscribe(() => undefined);
      await publish([1, "received"], [1, "started"], [1, "retried", { exception: "Late()" }], [2, "received"], [2, "started"], [2, "failed"]);
      await publish([1, "received", { retries: 1 }], [1, "started"]);
      await t.until("a second attempt", () => task.value?.attempts?.length === 2);
      t.equal(
        task.value!.attempts!.map(({ state, retries, exception }) => [state, retries, exception]),
        [["RETRY", 0, "Late()"], ["STARTED", 1, null]],
        "the attempts",
      );
      await t.until("the failure is there", () => failures.value?.length);
      t.equal(failures.value!.map(({ count, names, uuid }) => [count, names, uuid]), [[1, { [name]: 1 }, uuidOf(name, 2)]], "the failures");
      await t.same("counts", () => counts.value, async () => {
        const { id, ...answer } = await door.get(`/tasks/counts?name=${name}&by=state,name`);
        return answer;
      });
      await t.same("workflows", () => workflows.value?.workflows, async () => (await door.get(`/workflows?name=${name}`)).workflows);
      t.equal(workflows.value!.workflows.map(({ root_id }) => root_id), [2, 1].map((task) => uuidOf(name, task)), "the newest first");
    },
  },
  {
    name: "statistics: over the stream, of another window fetched, both as the gateway says",
    runs: ["node websocket", "chromium sse"],
    async run(t) {
      const { client, door } = await t.enter();
      const name = unique("list");
      const publish = publisher(t, name);
      const watches = (["1h", "5m"] as const).map((window) => client.statistics({ window, intervalMs: 1_000 }));
      for (const watch of watches) watch.subscribe(() => undefined);
      await t.until("both are there", () => watches.every((watch) => watch.value));
      await publish([1, "received"], [1, "started"], [1, "succeeded"], [2, "received"], [2, "started"]);
      const of = (value: Statistics | null) => {
        const { buckets, ...item } = value?.names.find((item) => item.name === name) ?? {};
        return item;
      };
      for (const [index, window] of (["1h", "5m"] as const).entries()) {
        await t.same(`statistics of ${window}`, () => of(watches[index]!.value), async () => of(await door.get(`/statistics?name=${name}&window=${window}`)));
        const { running, succeeded } = of(watches[index]!.value) as any;
        t.equal([watches[index]!.value!.window, running, succeeded], [index ? 300 : 3_600, 1, 1], window);
      }
    },
  },
  {
    name: "health: the gateway of itself, and how long nothing was heard",
    runs: ["node sse", "chromium websocket"],
    async run(t) {
      const { client, door } = await t.enter({ staleMs: 6_000 });
      const told: any[] = [];
      client.on("health", (health) => told.push(health));
      client.events({ type: unique("never") }).subscribe(() => undefined);
      await t.until("it is known", () => client.health.version);
      const { status, sources, control, actions, started, heardMs } = client.health;
      t.equal([status, sources.map(({ consuming }) => consuming), control, actions], ["open", [true], false, []], "the health");
      t.ok(started! < Date.now() / 1000 && heardMs! < 5_000, `started ${started}, heard ${heardMs} ms ago`);
      await door.stall();
      await t.until("nothing is heard", () => told.at(-1).heardMs > 4_000);
      await t.until("it reconnects", () => client.status !== "open");
      await door.resume();
      await t.until("it is heard again", () => client.status === "open" && told.at(-1).heardMs < 3_000);
    },
  },
  {
    name: "events at a limited rate: the rest is skipped and reported",
    runs: ["node sse", "chromium websocket"],
    async run(t) {
      const { client } = await t.enter();
      const name = unique("list");
      let count = 0;
      let skipped = 0;
      client.events({ name, type: "task-tick" }, { maxRate: 20, onSkipped: (message) => (skipped += message.count) }).subscribe(() => count++);
      await t.open(client);
      const load = await t.load(name, 600, { per_second: 200 });
      await load.done();
      await t.until(() => `all are counted: ${count} + ${skipped}`, () => count + skipped === 600);
      t.ok(count < 300 && skipped > 0, `${count} have come, ${skipped} were skipped`);
    },
  },
];
