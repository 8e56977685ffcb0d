import assert from "node:assert/strict";
import { test } from "node:test";
import { workflow } from "../../dist/tree.js";

const task = (uuid, parent_id = null, fields = {}) => ({ uuid, parent_id, state: "STARTED", progress: null, ...fields });
const of = (...tasks) => workflow("r", new Map(tasks.map((task) => [task.uuid, task])));
/** A tree by its uuids, written out by a loop: it may be deep. */
function shape(tasks) {
  return tasks.map(({ uuid, children }) => (children.length ? [uuid, shape(children)] : uuid));
}

test("nothing is known of a workflow without tasks", () => {
  assert.equal(of(), null);
});

test("children stand below their parents, in the order in which they became known", () => {
  const { tasks, total } = of(task("c", "a"), task("a"), task("b"), task("d", "a"), task("e", "c"), task("x", "gone"));
  assert.deepEqual(shape(tasks), [["a", [["c", ["e"]], "d"]], "b", "x"]);
  assert.equal(total, 6);
});

test("counts and progress", () => {
  const states = [["SUCCESS", null], ["FAILURE", 0.2], ["REVOKED", null], ["PROGRESS", 0.5], [null, null]];
  const { counts, ready, progress } = of(...states.map(([state, progress], n) => task(`${n}`, null, { state, progress })));
  assert.deepEqual(counts, { SUCCESS: 1, FAILURE: 1, REVOKED: 1, PROGRESS: 1, PENDING: 1 });
  assert.deepEqual([ready, progress], [3, 3.5 / 5]);
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
  assert.deepEqual(shape(of(task("a", "b"), task("b", "a"), task("s", "s"), task("c", "a")).tasks), ["s", ["a", ["b", "c"]]]);
});

test("50,000 tasks, in a chain and abreast", () => {
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
