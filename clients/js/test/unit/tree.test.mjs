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

test("the critical path leads to what has been running for longest; or else to what ended last", () => {
  const path = (...tasks) => of(...tasks).critical_path.map(({ uuid, seconds }) => [uuid, seconds]);
  const done = (uuid, parent, sent, succeeded) => task(uuid, parent, { sent, succeeded, state: "SUCCESS", name: `n${uuid}` });
  const running = (uuid, parent, sent, timestamp) => task(uuid, parent, { sent, timestamp });
  assert.deepEqual(path(done("a", null, 1, 4), done("b", "a", 2, 9), done("c", "a", 2, 5)), [["a", 3], ["b", 7]]);
  assert.deepEqual(path(done("a", null, 1, 4), done("b", "a", 2, 9), running("c", "a", 3, 5), running("d", "a", 2.5, 6)), [["a", 3], ["d", 3.5]]);
  assert.deepEqual(path(task("a", null, { state: "PENDING", sent: 1, timestamp: 1 }), task("b", "a", { state: "LOST", sent: 1, timestamp: 9 })), [["a", 0]]);
  assert.deepEqual(path(task("a", "b", { state: "RETRY", timestamp: 3 }), done("b", "a", 5, 4)), [["b", 0], ["a", 2]], "in a circle");
  assert.deepEqual(of(done("a", null, 1, 4)).critical_path, [{ uuid: "a", name: "na", state: "SUCCESS", seconds: 3 }]);
});

/** The workflow of copies of tasks, which no value before has. */
const copyOf = (...tasks) => of(...structuredClone(tasks));

test("what has not changed is the same object as in the value before", () => {
  const members = [task("r"), task("a", "r"), task("b", "r"), task("c", "a"), task("d", "b")];
  const before = of(...members);
  assert.equal(of(...members).tasks[0], before.tasks[0]);
  const changed = members.map((member) => (member.uuid === "c" ? { ...member, state: "SUCCESS" } : member));
  const after = of(...changed, task("e", "b"));
  const at = ({ tasks }, ...places) => places.reduce((node, place) => node.children[place], tasks[0]);
  assert.equal(at(after, 1, 0), at(before, 1, 0));
  for (const place of [[], [0], [0, 0], [1]]) assert.notEqual(at(after, ...place), at(before, ...place), `${place}`);
  assert.deepEqual(shape(after.tasks), [["r", [["a", ["c"]], ["b", ["d", "e"]]]]]);
  assert.deepEqual(shape(before.tasks), [["r", [["a", ["c"]], ["b", ["d"]]]]], "the value before stays as it is");
  assert.deepEqual(after, copyOf(...changed, task("e", "b")));
});
