import assert from "node:assert/strict";
import { test } from "node:test";
import { tasks } from "../../dist/models.js";

const RECEIVED = { type: "task-received", state: "RECEIVED", attempt: 1, retries: 0, timestamp: 1, hostname: "celery@w1" };
const event = (uuid, fields) => ({ ...RECEIVED, uuid, name: "n", root_id: "r", parent_id: null, ...fields });
const record = (uuid, fields) => ({ uuid, state: "RECEIVED", name: "n", root_id: "r", received: 1, ...fields });
const refused = [];
const refuse = (error) => refused.push([error.code, error.message]);
const make = (all, last) => ({ all: all.map(({ uuid, cluster }) => [uuid, cluster]), last });
const model = (field, id, cluster) => tasks(field, id, make, refuse, cluster)();

test("filters: the id, and of a workflow the task with this id, each of the cluster", () => {
  assert.deepEqual(model("uuid", "a*").filters, [{ uuid: ["a\\*"] }]);
  assert.deepEqual(model("uuid", "a", "eu").filters, [{ uuid: ["a"], cluster: ["eu"] }]);
  assert.deepEqual(model("root_id", "a", "eu").filters, [
    { root_id: ["a"], cluster: ["eu"] },
    { uuid: ["a"], cluster: ["eu"] },
  ]);
  assert.throws(() => model("uuid", ""), TypeError);
  assert.throws(() => model("uuid"), TypeError);
  assert.throws(() => model("uuid", "a", ""), TypeError);
});

test("a record replaces the one before it; children are those of the snapshot", () => {
  const made = model("uuid", "a");
  made.refresh([{ tasks: [record("a", { children: ["c"], exception: "E()" })], workers: [] }]);
  made.event(event("a"), record("a", { state: "STARTED" }));
  assert.deepEqual(made.make().last, { ...record("a", { state: "STARTED" }), children: ["c"] });
  const other = model("uuid", "b");
  other.event(event("b"), record("b"));
  assert.deepEqual(other.make().last.children, []);
});

test("the record decides, not the fields of its event", () => {
  const made = model("uuid", "a");
  const own = event("a", { type: "task-progress", state: "downloading", attempt: 7, cluster: "mine", name: null });
  made.event(own, record("a", { state: "SUCCESS" }));
  const { all, last } = made.make();
  assert.deepEqual([all, last.state, last.attempt], [[["a", undefined]], "SUCCESS", undefined]);
});

test("null: the gateway has evicted the task", () => {
  const made = model("uuid", "a");
  made.event(event("a"), record("a", { queued_seconds: 3 }));
  made.event(event("a", { type: "task-succeeded", state: "SUCCESS", result: "2", timestamp: 4 }), null);
  const { last } = made.make();
  assert.deepEqual([last.state, last.result, last.succeeded, last.queued_seconds], ["SUCCESS", "2", 4, 3]);
  made.event(event("a", { type: "task-progress", state: "PROGRESS" }), null);
  assert.equal(made.make().last, last);
});

test("an event of no task makes none", () => {
  const made = model("root_id", "r");
  made.event({ type: "shop-opened", uuid: "x", root_id: "r" }, null);
  made.event({ type: "worker-online", root_id: "r" }, undefined);
  assert.equal(made.make(), null);
});

test("a task of two brokers: the record that changed last, never a mix", () => {
  const made = model("uuid", "a");
  made.event(event("a", { cluster: "eu" }), record("a", { cluster: "eu" }));
  made.event(event("a", { cluster: "us" }), record("a", { cluster: "us", name: "other" }));
  assert.deepEqual([made.make().last.cluster, made.make().last.name], ["us", "other"]);
  made.event(event("a", { cluster: "eu", type: "task-started", state: "STARTED" }), null);
  const { last } = made.make();
  assert.deepEqual([last.cluster, last.name, last.state, last.received], ["eu", "n", "STARTED", 1]);
});

test("an id that is a number", () => {
  const made = model("uuid", "12");
  made.event(event(12), record("12"));
  made.event(event(12, { type: "task-succeeded", state: "SUCCESS" }), null);
  const { all, last } = made.make();
  assert.deepEqual([all, last.state, last.received], [[["12", undefined]], "SUCCESS", 1]);
});

test("an event of the application with this root_id, and the uuid of a task of another root", () => {
  refused.length = 0;
  const made = model("root_id", "r");
  made.event(event("a"), record("a"));
  made.event({ type: "shop-paid", uuid: "b", root_id: "r" }, record("b", { root_id: "other" }));
  assert.deepEqual([made.make().all, refused], [[["a", undefined]], []]);
});

test("an id that is no root is refused once; the workflow stays empty", () => {
  const made = model("root_id", "a");
  made.event(event("a", { type: "task-started" }), record("a", { root_id: null }));
  assert.deepEqual([refused, made.make()], [[], null], "its root is not known yet");
  made.event(event("a"), record("a"));
  made.refresh([{ tasks: [{ uuid: "a", root_id: "r" }], workers: [] }]);
  assert.deepEqual(refused, [["not-a-root", "the task a belongs to the root r"]]);
  assert.equal(made.make(), null);
});

test("a snapshot: only tasks with this id, in this cluster", () => {
  const made = model("root_id", "r", "eu");
  const page = [["r", "r", "eu"], ["b", "r", "us"], ["c", "x", "eu"], ["d", "r", "eu"]];
  made.refresh([{ tasks: page.map(([uuid, root_id, cluster]) => ({ uuid, root_id, cluster })), workers: [] }]);
  assert.deepEqual(made.make().all, [["r", "eu"], ["d", "eu"]]);
});
