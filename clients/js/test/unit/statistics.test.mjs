// Statistics: the messages of the stream; or, of another window or of some names, what is fetched.
import assert from "node:assert/strict";
import { test } from "node:test";
import { statistics } from "../../dist/statistics.js";

const item = (name, succeeded, fields) => ({ name, succeeded, failed: 0, revoked: 0, ...fields });
const OPEN = { type: "gateway-open", id: "e-0", resume: "live" };
const message = (names, fields) => ({
  ...{ type: "gateway-statistics", id: "e-1", window: 3_600, time: 1, since: 0, other: null, total: item(null, 9), names, done: true, ...fields },
});

function begin(options = {}, answers = []) {
  const asked = [];
  const get = async (path, params) => (asked.push([path, params]), answers.shift() ?? new Promise(() => {}));
  const model = statistics(get, options)();
  const calls = { answered: 0 };
  const end = model.start({ changed() {}, answered: () => calls.answered++, fail() {} });
  return { model, asked, calls, end };
}
const names = ({ model }) => model.make()?.names.map(({ name, succeeded }) => [name, succeeded]);
const until = async (condition) => {
  for (const end = performance.now() + 5_000; !condition(); ) {
    assert.ok(performance.now() < end);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};

test("all names, then those that have changed; most ended first", () => {
  const made = begin();
  assert.deepEqual(made.model.wants, { statistics: 5_000, window: "1h" });
  made.model.control(message([item("late", 1)]));
  assert.equal(names(made), undefined, "these may not be all");
  made.model.control(OPEN);
  made.model.control(message([item("a", 1), item("b", 3), item("c", 1)]));
  assert.deepEqual(names(made), [["b", 3], ["a", 1], ["c", 1]]);
  made.model.control(message([item("a", 5), item("a", 4, { cluster: "eu" })], { time: 2, total: item(null, 12) }));
  assert.deepEqual(names(made), [["a", 5], ["a", 4], ["b", 3], ["c", 1]]);
  const { names: _, ...rest } = made.model.make();
  assert.deepEqual(rest, { window: 3_600, time: 2, since: 0, other: null, total: item(null, 12) });
  made.end();
});

test("those of a cluster are fetched, also if the stream has all", async () => {
  const answer = { window: 3_600, time: 1, since: 0, names: [item("x", 1, { cluster: "eu" })], other: null, total: item(null, 1), id: "e-1" };
  const made = begin({ cluster: "eu" }, [answer]);
  assert.equal(made.model.wants, undefined);
  made.model.control(OPEN);
  made.model.control(message([item("a", 1)]));
  await until(() => names(made));
  assert.deepEqual([names(made), made.asked], [[["x", 1]], [["/statistics", { window: "1h", name: [], cluster: ["eu"] }]]]);
  made.end();
});

test("a report of several parts is shown once it is complete", () => {
  const made = begin();
  made.model.control(OPEN);
  made.model.control(message([item("a", 1)], { done: false }));
  assert.equal(names(made), undefined);
  made.model.control(message([item("b", 3)]));
  assert.deepEqual(names(made), [["b", 3], ["a", 1]]);
  made.model.control(message([item("a", 5)], { done: false }));
  assert.deepEqual(names(made), [["b", 3], ["a", 1]]);
  made.end();
});

test("after a reconnect the first message replaces all", () => {
  const made = begin();
  made.model.control(OPEN);
  made.model.control(message([item("a", 1), item("gone", 1)]));
  made.model.control(OPEN);
  assert.deepEqual(names(made), [["a", 1], ["gone", 1]], "what is known stays until then");
  made.model.control(message([item("a", 2)]));
  assert.deepEqual(names(made), [["a", 2]]);
  made.end();
});

test("the stream has another window: it is fetched, until the stream has this one", async () => {
  const answer = { window: 300, time: 1, since: 0, names: [item("x", 1)], other: null, total: item(null, 1), id: "e-1" };
  const made = begin({ window: "5m", intervalMs: 600 }, [answer]);
  made.model.control(OPEN);
  made.model.control(message([item("a", 1)]));
  made.model.control(message([item("b", 1)]));
  await until(() => names(made));
  assert.deepEqual([names(made), made.asked, "id" in made.model.make()], [[["x", 1]], [["/statistics", { window: "5m", name: [], cluster: [] }]], false]);
  made.model.control(OPEN);
  made.model.control(message([item("y", 1)], { window: 300 }));
  assert.deepEqual(names(made), [["y", 1]]);
  made.end();
});

test("those of some names are fetched: their total is not in the stream", async () => {
  const answer = { window: 3_600, time: 1, since: 0, names: [item("a", 1)], other: null, total: item(null, 1), id: "e-1" };
  const made = begin({ name: "a*" }, [answer]);
  assert.equal(made.model.wants, undefined);
  await until(() => names(made));
  assert.deepEqual(made.asked, [["/statistics", { window: "1h", name: ["a*"], cluster: [] }]]);
  made.model.control(OPEN);
  made.model.control(message([item("z", 1)]));
  assert.deepEqual(names(made), [["a", 1]]);
  made.end();
});
