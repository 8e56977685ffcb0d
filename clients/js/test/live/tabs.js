// Several tabs of one browser that share a connection (the option `shared`), over a real gateway.
import assert from "node:assert/strict";

const TABS = 7;
const POLL_MS = 50;
/** How long a condition is waited for. Only a failing test waits so long, so it is enough for a busy machine. */
const WAIT_MS = 60_000;

/** The tests; each takes `t`: transport, tabs, and commands of the lab. */
export const tabTests = [
  {
    name: `tabs: ${TABS} dashboards over HTTP/1.1 are all live, with one connection`,
    transports: ["sse"],
    async run(t) {
      const tabs = await t.open(TABS);
      const uuids = [];
      for (const [index, tab] of tabs.entries()) {
        const { uuid } = await t.command("/run", { kind: "canvas.add", args: [index, 2] });
        uuids.push(uuid);
        await watchAll(tab, `${t.name}.${index}`, uuid, t.transport);
      }
      await until("all are live", async () => (await all(tabs, state)).every(({ status }) => status === "open"));
      await until("one connection is open", async () => (await t.door()).open === 1);
      const late = await t.open(1); // a browser that has six connections to a host loads no page
      tabs.push(...late);
      await watchAll(late[0], `${t.name}.*`, uuids[0], t.transport);
      await until("the late one is live", async () => (await state(late[0])).workers > 0);
      await t.publish(tabs.map((_, index) => `${t.name}.${index}`));
      const last = tabs.length - 1;
      await until("each has its own events", async () =>
        (await all(tabs, state)).every(({ names }, index) => names.length === (index === last ? tabs.length : 1)),
      );
      for (const [index, { names, task, workers, gaps }] of (await all(tabs, state)).entries()) {
        assert.equal(task, String((index === last ? 0 : index) + 2), "the task's result");
        assert.ok(workers > 0, "the workers");
        if (index < last) assert.deepEqual(names, [`${t.name}.${index}`]);
        assert.deepEqual(gaps, []);
      }
      assert.equal((await t.door()).open, 1, "connections");
      await until("each knows the gateway's health, and its statistics", async () =>
        (await all(tabs, state)).every(({ health, statistics }) => health.version && health.heardMs < 10_000 && statistics === 3_600),
      );
      for (const tab of tabs.splice(0, 3)) await tab.close(); // the leader is among them
      await t.publish([`${t.name}.3`]);
      await until("the others go on", async () => (await state(tabs[0])).names.length === 2);
      await until("keep-alives are heard in all", async () => (await all(tabs, state)).every(({ health }) => health.heardMs < 10_000));
      await all(tabs, (tab) => tab.evaluate(() => globalThis.client.close()));
      await until("no connection is left", async () => (await t.door()).open === 0);
    },
  },
  {
    name: "tabs: the leader is closed, and the next one crashes: the others miss nothing, and get nothing twice",
    transports: ["sse"],
    async run(t) {
      const tabs = await t.open(5);
      for (const tab of tabs) await watchAll(tab, t.name, null, t.transport);
      await until("all are live", async () => (await all(tabs, state)).every(({ workers }) => workers > 0));
      const count = 900;
      const load = await t.load(t.name, count, 150);
      const heard = async () => (await state(tabs.at(-1))).numbers.length;
      await until("events come", async () => (await heard()) > 100);
      await tabs.shift().close();
      await until("the next leader goes on", async () => (await heard()) > 350);
      await crash(tabs.shift());
      await until("the next leader goes on", async () => (await heard()) > 600);
      await tabs.shift().evaluate(() => globalThis.client.close());
      await until("all is published", load.isDone);
      await until("all has come", async () => (await all(tabs, state)).every(({ numbers }) => numbers.at(-1) === count - 1));
      for (const { numbers, gaps } of await all(tabs, state)) {
        assert.deepEqual(gaps, []);
        assert.deepEqual(numbers, Array.from({ length: count }, (_, n) => n));
      }
    },
  },
  {
    name: "tabs: a frozen leader is replaced; when it thaws, it follows, and lost events are reported",
    transports: ["sse"],
    async run(t) {
      const [leader, other] = await t.open(2);
      for (const tab of [leader, other]) await watchAll(tab, `${t.name}.*`, null, t.transport);
      await until("both are live", async () => (await all([leader, other], state)).every(({ workers }) => workers > 0));
      const devtools = await leader.context().newCDPSession(leader);
      await devtools.send("Page.setWebLifecycleState", { state: "frozen" });
      const { uuid } = await t.command("/run", { kind: "canvas.add", args: [40, 2] });
      await other.evaluate((uuid) => globalThis.watchTask(uuid), uuid);
      await until("the other tab has taken over", async () => (await state(other)).task === "42");
      const locks = () => other.evaluate(async () => (await navigator.locks.query()).held.map(({ clientId }) => clientId));
      assert.equal(new Set(await locks()).size, 2, "each has its own lock");
      for (const load of [await t.load(`${t.name}.a`, 20, 100), await t.load(`${t.name}.b`, 20, 100)]) {
        await until("all is published", load.isDone);
      }
      await until("it hears all", async () => (await state(other)).numbers.length === 40);
      await devtools.send("Page.setWebLifecycleState", { state: "active" });
      await until("the first follows", async () => {
        await t.publish([`${t.name}.end`]);
        return (await all([leader, other], state)).every(({ names }) => names.at(-1) === `${t.name}.end`);
      });
      const { names, numbers, gaps } = await state(leader);
      for (const name of ["a", "b"]) {
        const heard = numbers.filter((_, index) => names[index] === `${t.name}.${name}`);
        assert.deepEqual(heard, [...new Set(heard)].sort((a, b) => a - b), "in order, each once");
        assert.ok(heard.length === 20 || gaps.length, `${name}: lost events are reported`);
      }
      assert.deepEqual((await state(other)).gaps, []);
      await until("one connection is open", async () => (await t.door()).open === 1);
    },
  },
  {
    name: "tabs: only the leader asks for tokens, again when they expire; the next leader asks for its own",
    transports: ["sse", "websocket"],
    auth: true,
    async run(t) {
      const tabs = await t.open(3);
      for (const tab of tabs) {
        await tab.evaluate(([labUrl, name]) => {
          globalThis.asked = 0;
          globalThis.token = async () => {
            globalThis.asked += 1;
            const body = JSON.stringify({ seconds: 2, any: [{ name: [name] }] });
            return (await (await fetch(`${labUrl}/tokens/sign`, { method: "POST", body })).json()).token;
          };
        }, [t.labUrl, t.name]);
        await watchAll(tab, t.name, null, t.transport);
      }
      const asked = () => all(tabs, (tab) => tab.evaluate(() => globalThis.asked));
      await until("all watches have begun", async () => {
        const probe = await t.load(t.name, 1, undefined, { is_task: true });
        await until("it is published", probe.isDone);
        return (await all(tabs, state)).every(({ numbers }) => numbers.length > 0);
      });
      const count = 2_000;
      const load = await t.load(t.name, count, 200, { is_task: true });
      await until("the leader has asked three times", async () => (await asked()).some((times) => times >= 3));
      const leader = (await asked()).findIndex((times) => times > 0);
      assert.equal((await asked()).filter((times) => times > 0).length, 1, "one tab has asked");
      await tabs.splice(leader, 1)[0].close();
      await until("the next leader has asked twice", async () => (await asked()).some((times) => times >= 2));
      assert.equal((await asked()).filter((times) => times > 0).length, 1, "one of the others has asked");
      await until("all is published", load.isDone);
      await until("all has come", async () => (await all(tabs, state)).every(({ numbers }) => numbers.at(-1) === count - 1));
      for (const { numbers, gaps } of await all(tabs, state)) {
        assert.deepEqual(numbers.slice(-count), Array.from({ length: count }, (_, n) => n)); // probes are before
        assert.deepEqual(gaps, []);
      }
    },
  },
  {
    name: "tabs: workers that a token does not allow fail in each tab, and the rest goes on",
    transports: ["sse", "websocket"],
    auth: true,
    async run(t) {
      const tabs = await t.open(2);
      const body = { seconds: 600, any: [{ name: [`${t.name}*`] }], may: ["events", "state"] };
      const { token } = await t.command("/tokens/sign", body);
      for (const tab of tabs) {
        await tab.evaluate((token) => (globalThis.token = token), token);
        await watchAll(tab, t.name, null, t.transport);
      }
      await until("the workers are refused", async () => (await all(tabs, state)).every(({ refused }) => refused[0] === "workers"));
      await until("the rest goes on", async () => {
        const probe = await t.load(t.name, 1, undefined, { is_task: true });
        await until("it is published", probe.isDone);
        return (await all(tabs, state)).every(({ numbers, statistics }) => numbers.length > 0 && statistics);
      });
      for (const { refused, statistics } of await all(tabs, state)) assert.deepEqual([refused, statistics], [["workers", undefined], 3_600]);
    },
  },
  {
    name: "tabs: another name is another connection; too many watches are refused in their tab",
    transports: ["websocket"],
    async run(t) {
      const tabs = await t.open(2);
      for (const [index, tab] of tabs.entries()) await watchAll(tab, t.name, null, t.transport, `user ${index}`);
      await until("both are live", async () => (await all(tabs, state)).every(({ workers }) => workers > 0));
      assert.equal((await t.door()).open, 2, "connections");
      const codes = await tabs[0].evaluate(async () => {
        const filters = (n) => ["!x", "!y"].map((other) => ({ name: [`many.${n}`, other] }));
        const endings = Array.from({ length: 60 }, (_, n) => globalThis.client.events(filters(n))[Symbol.asyncIterator]().next());
        const refused = endings.map((ending) => ending.then(() => null, (error) => error.code));
        const timeout = new Promise((resolve) => setTimeout(() => resolve("open"), 2_000));
        return Promise.all(refused.map((one) => Promise.race([one, timeout])));
      });
      const refused = codes.filter((code) => code === "too-many-watches").length;
      assert.ok(refused >= 10 && refused <= 12, `${refused} are refused`);
      assert.equal(codes.filter((code) => code === "open").length, 60 - refused);
      assert.equal((await t.door()).open, 2, "connections");
      const load = await t.load(t.name, 5, 100);
      await until("all is published", load.isDone);
      await until("both go on", async () => (await all(tabs, state)).every(({ numbers }) => numbers.length === 5));
    },
  },
];

/** In a tab: watch events, a task and the workers, and keep what comes. */
function watchAll(tab, name, uuid, transport, user) {
  return tab.evaluate(
    ([name, uuid, transport, user]) => {
      const { connect, tabs } = globalThis.library;
      const client = connect({ url: "/celery", transport, shared: tabs(user), token: globalThis.token });
      const kept = { names: [], numbers: [], gaps: [] };
      client.events({ name, type: "task-tick" }, { onGap: (gap) => kept.gaps.push(gap) }).subscribe((event) => {
        kept.names.push(event.name);
        kept.numbers.push(event.n);
      });
      const workers = client.workers();
      workers.subscribe(() => undefined);
      const statistics = client.statistics();
      statistics.subscribe(() => undefined);
      const watchTask = (uuid) => (kept.task = client.task(uuid)).subscribe(() => undefined);
      if (uuid) watchTask(uuid);
      const state = () => ({ ...kept, task: kept.task?.value?.result, workers: workers.value?.length ?? 0, status: client.status,
        ...{ statistics: statistics.value?.window, health: client.health, refused: [workers, statistics].map(({ error }) => error?.parameter) } });
      Object.assign(globalThis, { client, state, watchTask });
    },
    [name, uuid, transport, user],
  );
}

function state(tab) {
  return tab.evaluate(() => globalThis.state());
}

function all(tabs, call) {
  return Promise.all(tabs.map(call));
}

async function crash(tab) {
  const devtools = await tab.context().newCDPSession(tab);
  const crashed = new Promise((resolve) => tab.on("crash", resolve));
  devtools.send("Page.crash").catch(() => undefined);
  await crashed;
}

async function until(what, condition) {
  const deadline = performance.now() + WAIT_MS;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${WAIT_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
