// What is fetched again and again: lists of workflows, queues, failures, counts; and attempts after a change.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { attempts } from "../../dist/attempts.js";
import { poll, polled } from "../../dist/poll.js";
import { workflowList } from "../../dist/workflows.js";

const until = async (condition, what) => {
  for (const end = performance.now() + 10_000; !condition(); ) {
    assert.ok(performance.now() < end, what);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};
const refused = (status) => Object.assign(new Error(`${status}`), { status });
const live = () => {
  const calls = { answered: 0, failed: [] };
  return { calls, changed() {}, answered: () => calls.answered++, fail: (error) => calls.failed.push(error) };
};
afterEach(() => delete globalThis.document);

test("it is fetched until it is ended, also after failures", async () => {
  let count = 0;
  const results = [refused(503), new TypeError("network"), null, null];
  const end = poll(async () => {
    const result = results[count++];
    if (result) throw result;
  }, 10, live());
  await until(() => count >= 4);
  end();
  const at = count;
  await new Promise((resolve) => setTimeout(resolve, 60));
  assert.equal(count, at);
});

test("a refusal that a retry cannot change ends it", async () => {
  let count = 0;
  const told = live();
  const end = poll(async () => {
    count++;
    throw refused(403);
  }, 10, told);
  await until(() => told.calls.failed.length);
  await new Promise((resolve) => setTimeout(resolve, 60));
  assert.deepEqual([count, told.calls.failed[0].status], [1, 403]);
  end();
});

test("a page that is not visible does not fetch", async () => {
  const page = Object.assign(new EventTarget(), { hidden: true });
  globalThis.document = page;
  let count = 0;
  const end = poll(async () => void count++, 10, live());
  await new Promise((resolve) => setTimeout(resolve, 60));
  assert.equal(count, 0);
  page.hidden = false;
  page.dispatchEvent(new Event("visibilitychange"));
  await until(() => count > 1);
  end();
});

test("the signal of a request is aborted at the end, and its answer is dropped", async () => {
  let signal;
  const told = live();
  const model = polled((given) => new Promise((_, reject) => {
    signal = given;
    given.onabort = () => reject(given.reason);
  }))();
  const end = model.start(told);
  await until(() => signal);
  end();
  assert.deepEqual([signal.aborted, model.make()], [true, null]);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(told.calls, { answered: 0, failed: [] });
});

test("a list of workflows has as many pages as are wanted", async () => {
  const all = Array.from({ length: 25 }, (_, n) => ({ root_id: `${n}` }));
  const asked = [];
  const get = async (path, { cursor = "0", limit, ...params }) => {
    asked.push([path, cursor, limit, params]);
    const to = Math.min(+cursor + Math.min(limit, 8), all.length);
    return { workflows: all.slice(+cursor, to), cursor: to < all.length ? `${to}` : null, id: "e-1" };
  };
  const told = live();
  const model = workflowList(get, { name: "shop.*" }, { state: "running", limit: 10, intervalMs: 60_000, where: { total: ">=2" } })();
  const end = model.start(told);
  await until(() => told.calls.answered);
  assert.deepEqual([model.make().workflows.length, model.make().more], [10, true]);
  assert.deepEqual(asked[0], ["/workflows", "0", 10, { name: ["shop.*"], state: ["running"], "total>=2": "" }]);
  await model.more();
  assert.deepEqual([model.make().workflows, model.make().more], [all.slice(0, 20), true]);
  await model.more();
  assert.deepEqual([model.make().workflows, model.make().more], [all, false]);
  end();
});

test("attempts of a task: after each change of its state or attempt, at most once a second", async () => {
  let count = 0;
  const get = async (...given) => {
    assert.deepEqual(given.slice(0, 2), ["/tasks/a%2Fb", { fields: "attempts", cluster: "eu" }]);
    return { uuid: "a/b", attempts: [{ retries: count++ }] };
  };
  let changes = 0;
  const kept = attempts(get, "uuid", "a/b", "eu", () => changes++);
  const task = { uuid: "a/b", state: "STARTED", attempt: 1, retries: 0 };
  assert.equal(kept.add(task), task);
  kept.look(task, undefined);
  kept.look({ ...task, progress: 0.5 }, task);
  await until(() => changes === 1);
  assert.deepEqual(kept.add(task).attempts, [{ retries: 0 }]);
  const at = performance.now();
  kept.look({ ...task, state: "RETRY" }, task);
  kept.look({ ...task, attempt: 2 }, task);
  await until(() => changes === 2);
  assert.ok(performance.now() - at > 800);
  assert.deepEqual([kept.add(task).attempts, count], [[{ retries: 1 }], 2]);
  kept.look({ ...task, progress: 0.9 }, task);
  kept.end();
});

test("attempts of a workflow are fetched once a task has a second one", async () => {
  const tasks = [{ uuid: "r", attempts: [1], children: [{ uuid: "c", attempts: [2, 3], children: [] }] }, { uuid: "x", children: [] }];
  let count = 0;
  const get = async (path) => (count++, assert.equal(path, "/workflows/r"), { root_id: "r", tasks });
  let changes = 0;
  const kept = attempts(get, "root_id", "r", undefined, () => changes++);
  kept.look({ uuid: "r", state: "STARTED", attempt: 1, retries: 0 }, undefined);
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(count, 0);
  kept.look({ uuid: "c", state: "STARTED", attempt: 2, retries: 1 }, undefined);
  await until(() => changes === 1);
  assert.deepEqual(["r", "c", "x"].map((uuid) => kept.add({ uuid }).attempts), [[1], [2, 3], undefined]);
  kept.end();
});
