import assert from "node:assert/strict";
import { test } from "node:test";
import { tasks } from "../../dist/models.js";

const RECEIVED = { type: "task-received", state: "RECEIVED", attempt: 1, retries: 0, timestamp: 1, hostname: "celery@w1" };
const event = (uuid, fields) => ({ ...RECEIVED, uuid, name: "n", root_id: "r", parent_id: null, ...fields });
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

test("a task of two brokers: the record that changed last, never a mix", () => {
  const made = model("uuid", "a");
  made.event(event("a", { cluster: "eu" }));
  made.event(event("a", { cluster: "us", name: "other" }));
  assert.deepEqual([made.make().last.cluster, made.make().last.name], ["us", "other"]);
  made.event(event("a", { cluster: "eu", type: "task-started", state: "STARTED" }));
  const { last } = made.make();
  assert.deepEqual([last.cluster, last.name, last.state, last.received], ["eu", "n", "STARTED", 1]);
});

test("an id that is a number, and an application's own field `cluster`", () => {
  const made = model("uuid", "12");
  made.event(event(12));
  made.event(event(12, { type: "task-progress", state: "PROGRESS", cluster: "mine" }));
  const { all, last } = made.make();
  assert.deepEqual([all, last.state, last.received], [[["12", undefined]], "PROGRESS", 1]);
});

test("an id that is no root is refused once; the workflow stays empty", () => {
  const made = model("root_id", "a");
  made.event(event("a", { root_id: null, type: "task-started", state: "STARTED" }));
  assert.deepEqual([refused, made.make()], [[], null], "its root is not known yet");
  made.event(event("a"));
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
