// The list of tasks: pages, then the records of events, in any order of arrival.
import assert from "node:assert/strict";
import { test } from "node:test";
import { taskList } from "../../dist/list.js";

const nothing = () => {};
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** A sequence of random numbers below n. */
function random(seed) {
  return (n) => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return (seed >>> 8) % n;
  };
}

/** A gateway: its tasks in the order in which they became known, and the requests that it has not answered yet. */
function gateway() {
  const tasks = new Map();
  const requests = [];
  let time = 0;
  const self = {
    tasks,
    requests,
    asked: [],
    /** Change a task, or add one; returns what comes over the stream. */
    change(uuid, fields) {
      const before = tasks.get(uuid) ?? { uuid, name: "n", sent: ++time, state: "PENDING", stale: false };
      tasks.set(uuid, { ...before, ...fields, version: ++time });
      return [{ type: "task-x", uuid }, tasks.get(uuid)];
    },
    matching: (state) => [...tasks.values()].reverse().filter((task) => !state || task.state === state),
    get: (path, params) =>
      new Promise((resolve, reject) => {
        self.asked.push(params);
        requests.push({
          fail: (error) => reject(error),
          // The page is made when it is answered; it arrives when `deliver` is called.
          answer() {
            const all = self.matching(params.state?.[0]);
            const from = params.cursor ? all.findIndex(({ sent }) => sent < +params.cursor) : 0;
            const page = from < 0 ? [] : all.slice(from, from + params.limit);
            const last = page.at(-1);
            const cursor = last && all.at(-1) !== last ? `${last.sent}` : null;
            return () => resolve({ tasks: page, cursor });
          },
        });
      }),
  };
  return self;
}

/** A model that has begun, with what it calls. */
function begin(made, filter, options, now) {
  const calls = { answered: 0, failed: [] };
  const model = taskList(made.get, filter, options, now)();
  const end = model.start({ changed: nothing, answered: () => calls.answered++, fail: (error) => calls.failed.push(error) });
  model.begun();
  return { model, calls, end };
}
const requested = async (made, count = 1) => {
  while (made.requests.length < count) await new Promise((resolve) => setTimeout(resolve, 2));
};
const answer = async (made) => {
  await requested(made);
  made.requests.shift().answer()();
  await turn();
};
const uuids = (model) => model.make().tasks.map(({ uuid }) => uuid);

test("nothing is known before the page; then the newest tasks are", async () => {
  const made = gateway();
  for (const uuid of "abcde") made.change(uuid, {});
  const { model, calls, end } = begin(made, {}, { limit: 3 });
  assert.equal(model.make(), null);
  await answer(made);
  assert.deepEqual([uuids(model), model.make().more, calls.answered], [["e", "d", "c"], true, 1]);
  assert.equal(made.asked[0].limit, 3);
  end();
});

test("a new task comes in at the top, up to the limit; rows change in place; a row of a later page stays there", async () => {
  const made = gateway();
  for (const uuid of "abcde") made.change(uuid, {});
  const { model, end } = begin(made, {}, { limit: 3 });
  await answer(made);
  assert.equal(model.event(...made.change("a", { state: "STARTED" })), false, "it is on the next page");
  assert.equal(model.event(...made.change("d", { state: "STARTED" })), true);
  model.event(...made.change("f", {}));
  const { tasks, more, arrived } = model.make();
  assert.deepEqual(tasks.map(({ uuid, state }) => [uuid, state]), [["f", "PENDING"], ["e", "PENDING"], ["d", "STARTED"]]);
  assert.deepEqual([more, arrived], [true, 1]);
  assert.notEqual(model.make().tasks, tasks, "each value is an object of its own");
  end();
});

test("a task that matches no more leaves, and those behind it move up", async () => {
  const made = gateway();
  for (const uuid of "abc") made.change(uuid, { state: "STARTED" });
  const { model, end } = begin(made, { state: "STARTED" }, { limit: 2 });
  await answer(made);
  assert.deepEqual(model.filters, [{ type: ["!worker-*"] }], "of a task that has ended the event has another state");
  model.event(...made.change("d", { state: "STARTED" }));
  assert.deepEqual(uuids(model), ["d", "c"]);
  model.event(...made.change("d", { state: "SUCCESS" }));
  assert.deepEqual(uuids(model), ["c", "b"]);
  model.event(...made.change("c", { state: "FAILURE" }));
  assert.deepEqual([uuids(model), model.make().more], [["b"], true]);
  await answer(made); // the place is filled by the next page
  assert.deepEqual([uuids(model), model.make().more], [["b", "a"], false]);
  end();
});

test("the next page; and from the top once more if the list was cut", async () => {
  const made = gateway();
  for (let n = 0; n < 20; n++) made.change(`${n}`, {});
  const { model, end } = begin(made, {}, { limit: 5 });
  await answer(made);
  const more = model.more();
  await answer(made);
  await more;
  assert.deepEqual([uuids(model).length, made.asked[1].cursor, made.asked[1].limit], [10, "31", 5]);
  for (let n = 20; n < 60; n++) model.event(...made.change(`${n}`, {}));
  assert.deepEqual(uuids(model), made.matching().slice(0, 10).map(({ uuid }) => uuid));
  const again = model.more();
  await requested(made).then(() => answer(made));
  await again;
  assert.deepEqual([uuids(model), made.asked[2].cursor], [made.matching().slice(0, 15).map(({ uuid }) => uuid), undefined]);
  end();
});

test("a gap fetches the list again; a cursor that has expired, too", async () => {
  const made = gateway();
  for (const uuid of "abcd") made.change(uuid, {});
  const { model, end } = begin(made, {}, { limit: 2 });
  await answer(made);
  made.change("e", {}); // lost
  model.gap({});
  await answer(made);
  assert.deepEqual(uuids(model), ["e", "d"]);
  const more = model.more();
  await requested(made);
  made.requests.shift().fail(Object.assign(new Error(), { status: 400, code: "cursor-expired" }));
  await turn();
  await answer(made);
  await more;
  assert.deepEqual(uuids(model), ["e", "d", "c", "b"]);
  end();
});

test("a refusal ends it; another failure is tried again", async () => {
  const made = gateway();
  made.change("a", {});
  const { model, calls, end } = begin(made, {}, {});
  await requested(made);
  made.requests.shift().fail(Object.assign(new Error(), { status: 503 }));
  await answer(made);
  assert.deepEqual([uuids(model), calls.failed], [["a"], []]);
  model.gap({});
  await requested(made);
  const refused = Object.assign(new Error(), { status: 403 });
  made.requests.shift().fail(refused);
  await turn();
  assert.deepEqual(calls.failed, [refused]);
  end();
});

test("a task that the gateway has evicted changes by its event; one that is not in the list is not known", async () => {
  const made = gateway();
  made.change("a", { state: "STARTED" });
  const { model, end } = begin(made, {}, {});
  await answer(made);
  const event = { type: "task-succeeded", state: "SUCCESS", timestamp: 9, hostname: "w@h" };
  assert.equal(model.event({ ...event, uuid: "a" }, null), true);
  assert.equal(model.event({ ...event, uuid: "x" }, null), false);
  assert.equal(model.event({ type: "shop-opened" }, undefined), false);
  assert.deepEqual(model.make().tasks.map(({ uuid, state }) => [uuid, state]), [["a", "SUCCESS"]]);
  end();
});

test("a request by an id finds this task only, and stays with it", async () => {
  const made = gateway();
  made.change("a", {});
  const { model, end } = begin(made, {}, { q: "a" });
  await answer(made);
  assert.equal(model.event(...made.change("abc", {})), false);
  assert.deepEqual(uuids(model), ["a"]);
  end();
});

test("another order: rows change in place, and the page is fetched again", async () => {
  const made = gateway();
  for (const uuid of "ab") made.change(uuid, {});
  const { model, end } = begin(made, {}, { sort: "-runtime" });
  await answer(made);
  assert.equal(model.event(...made.change("a", { runtime: 5 })), true);
  assert.equal(model.event(...made.change("c", {})), false);
  assert.deepEqual([uuids(model), made.asked[0].sort], [["b", "a"], "-runtime"]);
  end();
});

test("ages count from the given clock, which goes on; the page is fetched again, since tasks become too old", async () => {
  const made = gateway();
  let seconds = 100;
  made.change("old", { sent: 95 });
  const { model, end } = begin(made, {}, { since: "10s" }, () => seconds);
  await answer(made);
  assert.equal(model.event(...made.change("new", { sent: 99 })), true);
  assert.equal(model.event(...made.change("past", { sent: 89 })), false);
  assert.deepEqual(uuids(model), ["new", "old"]);
  seconds = 106;
  made.change("old", { sent: 95 });
  model.event(...made.change("old", {}));
  assert.deepEqual(uuids(model), ["new"]);

  seconds = 110;
  made.tasks.delete("old"); // the gateway's page has neither
  made.tasks.delete("past");
  made.tasks.delete("new");
  await answer(made);
  assert.deepEqual(uuids(model), []);
  end();
});

test("without an age nothing is fetched again", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  for (const options of [{}, { since: "2026-11-21T08:31:00Z" }, { before: "2026-11-21T08:31:00Z", sort: "oldest" }]) {
    const made = gateway();
    made.change("a", {});
    const { end } = begin(made, {}, options);
    context.mock.timers.tick(0);
    while (!made.requests.length) await turn();
    made.requests.shift().answer()();
    await turn();
    context.mock.timers.tick(60_000);
    await turn();
    assert.equal(made.requests.length, 0);
    end();
  }
});

test("random: the list is always the first of the gateway's, with the latest records, however pages and events mix", async () => {
  for (let seed = 1; seed <= 60; seed++) {
    const next = random(seed);
    const made = gateway();
    const state = next(2) ? "STARTED" : undefined;
    const limit = 1 + next(6);
    for (let n = next(15); n > 0; n--) made.change(`old${n}`, { state: next(2) ? "STARTED" : "SUCCESS" });
    const { model, end } = begin(made, state ? { state } : {}, { limit });
    await requested(made);
    const stream = []; // events on their way, in order
    const pages = [];
    const more = [];
    for (let step = 0; step < 120; step++) {
      switch (next(7)) {
        case 0:
        case 1:
          stream.push(made.change(`new${step}`, { state: next(2) ? "STARTED" : "PENDING" }));
          break;
        case 2:
        case 3: {
          const known = [...made.tasks.keys()];
          if (known.length) stream.push(made.change(known[next(known.length)], { state: ["STARTED", "SUCCESS"][next(2)] }));
          break;
        }
        case 4: // an event arrives, with the record of now
          for (let n = next(4); n > 0 && stream.length; n--) {
            const [event] = stream.shift();
            model.event(event, made.tasks.get(event.uuid));
          }
          break;
        case 5:
          if (made.requests.length) pages.push(made.requests.shift().answer());
          else if (pages.length) pages.shift()();
          else if (next(3) === 0) more.push(model.more());
          await turn();
          break;
        default:
          model.make();
      }
    }
    while (made.requests.length || pages.length) {
      if (made.requests.length) pages.push(made.requests.shift().answer());
      pages.shift()?.();
      await turn();
      await turn();
    }
    for (const [event] of stream) model.event(event, made.tasks.get(event.uuid));
    await Promise.all(more);
    const { tasks, more: isMore } = model.make();
    const truth = made.matching(state);
    const strip = ({ children, ...task }) => task;
    assert.deepEqual(tasks.map(strip), truth.slice(0, tasks.length), `seed ${seed}`);
    if (!isMore) assert.equal(tasks.length, truth.length, `seed ${seed}: all`);
    assert.ok(tasks.length <= limit * (1 + more.length), `seed ${seed}: the limit`);
    end();
  }
});

test("a high rate is cheap: 50,000 events of 10,000 tasks, a value after each 25", async () => {
  const made = gateway();
  for (let n = 0; n < 500; n++) made.change(`old${n}`, {});
  const { model, end } = begin(made, { state: ["PENDING", "STARTED"] }, { limit: 200 });
  await answer(made);
  const begunAt = performance.now();
  for (let n = 0; n < 50_000; n++) {
    const uuid = `t${Math.floor(n / 5)}`;
    model.event({ type: "task-x", uuid }, { uuid, sent: 1_000 + n, state: ["PENDING", "STARTED", "STARTED", "STARTED", "SUCCESS"][n % 5], stale: false });
    if (n % 25 === 0) model.make();
  }
  const ms = performance.now() - begunAt;
  assert.ok(ms < 5_000, `${ms} ms`); // 500 events/s would leave it 100 s
  end();
});
