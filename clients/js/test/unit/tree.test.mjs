import assert from "node:assert/strict";
import { test } from "node:test";
import { workflow } from "../../dist/tree.js";

const task = (uuid, parent_id = null, fields = {}) => ({ uuid, parent_id, state: "STARTED", sent: 1, progress: null, ...fields });
const of = (...tasks) => workflow("r", tasks);
/** A tree by its uuids, written out by a loop: it may be deep. */
function shape(tasks) {
  return tasks.map(({ uuid, children }) => (children.length ? [uuid, shape(children)] : uuid));
}

test("a workflow without tasks is not known", () => {
  assert.equal(of(), null);
});

test("children stand below their parents, in the order in which they became known", () => {
  const { tasks, total, known } = of(task("c", "a"), task("a"), task("b"), task("d", "a"), task("e", "c"), task("x", "gone"));
  assert.deepEqual(shape(tasks), [["a", [["c", ["e"]], "d"]], "b", "x"]);
  assert.deepEqual([total, known], [6, 6]);
});

test("counts, progress and sent_events", () => {
  const states = [["SUCCESS", null], ["FAILURE", 0.2], ["REVOKED", null], ["PROGRESS", 0.5], [null, null]];
  const members = states.map(([state, progress], n) => task(`${n}`, null, { state, progress }));
  const { counts, ready, progress, sent_events } = of(...members);
  assert.deepEqual(counts, { SUCCESS: 1, FAILURE: 1, REVOKED: 1, PROGRESS: 1, PENDING: 1 });
  assert.deepEqual([ready, progress, sent_events], [3, 3.5 / 5, true]);
  assert.equal(of(...members, task("x", null, { sent: null })).sent_events, false);
});

test("it is cut at a depth of 100: what would come below stands as a further root", () => {
  const chain = Array.from({ length: 250 }, (_, n) => task(`${n}`, n ? `${n - 1}` : null));
  const { tasks } = of(...chain);
  assert.deepEqual(tasks.map(({ uuid }) => uuid), ["0", "100", "200"]);
  let depth = 0;
  for (let next = tasks[0]; next; next = next.children[0]) depth++;
  assert.equal(depth, 100);
});

test("parents that lead in a circle: each is there once", () => {
  const { tasks } = of(task("a", "b"), task("b", "a"), task("s", "s"), task("c", "a"));
  assert.deepEqual(shape(tasks), ["s", ["a", ["b", "c"]]]);
});

test("a circle with more than 100 levels below it is complete", () => {
  const circle = [task("0", "1"), ...Array.from({ length: 250 }, (_, n) => task(`${n + 1}`, `${n}`))];
  const { tasks } = of(...circle);
  assert.deepEqual(tasks.map(({ uuid }) => uuid), ["0", "100", "200"]);
});

test("two brokers may have the same uuids: parents are of the same cluster", () => {
  const members = ["eu", "us"].flatMap((cluster) => [task("a", null, { cluster }), task("b", "a", { cluster })]);
  const { tasks, total } = of(...members, task("c", "b", { cluster: "asia" }));
  assert.deepEqual(shape(tasks), [["a", ["b"]], ["a", ["b"]], "c"]);
  assert.equal(total, 5);
});

test("50,000 tasks, in a chain and side by side", () => {
  const count = 50_000;
  const chain = of(...Array.from({ length: count }, (_, n) => task(`${n}`, n ? `${n - 1}` : null)));
  assert.deepEqual([chain.total, chain.tasks.length], [count, count / 100]);
  const abreast = of(...Array.from({ length: count }, (_, n) => task(`${n}`, n ? "0" : null)));
  assert.equal(abreast.tasks[0].children.length, count - 1);
});

test("the records are left alone", () => {
  of(Object.freeze(task("a")), Object.freeze(task("b", "a")));
});

test("what is cut off stands in its order, too", () => {
  const chain = Array.from({ length: 100 }, (_, n) => task(`${n}`, n ? `${n - 1}` : null));
  const { tasks } = of(...chain, task("x", "99"), task("y", "99"), task("last"));
  assert.deepEqual(tasks.map(({ uuid }) => uuid), ["0", "last", "x", "y"]);
});
