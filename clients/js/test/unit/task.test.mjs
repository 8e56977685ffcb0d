// A task's record: the gateway's own, and what replaces it once the gateway has evicted the task.
import assert from "node:assert/strict";
import { test } from "node:test";
import { isReady, outlive } from "../../dist/task.js";
import { idText } from "../../dist/values.js";

const NAMES = { name: "shop.pay", root_id: "r", parent_id: "p", queue: "q" };

function event(type, timestamp, state, fields = {}) {
  const hostname = type === "task-sent" ? "gen1@web" : "celery@w1";
  const own = { type, uuid: "u", timestamp, hostname, pid: 7, clock: timestamp, utcoffset: 0 };
  return { id: `e-${timestamp}`, time: "", ...own, ...NAMES, state, attempt: 1, ...fields };
}
const after = (...events) => events.reduce((task, event) => outlive(task && Object.freeze(task), event), undefined);

test("ready is SUCCESS, FAILURE and REVOKED", () => {
  const states = ["SUCCESS", "FAILURE", "REVOKED", "LOST", "RETRY", "REJECTED", "STARTED", "PROGRESS", null, undefined];
  assert.deepEqual(states.filter((state) => isReady({ state })), ["SUCCESS", "FAILURE", "REVOKED"]);
});

test("an evicted task from sent to succeeded: all fields, by the events' own", () => {
  const call = { args: "(1,)", kwargs: "{}", eta: null, expires: null, retries: 0 };
  const sent = event("task-sent", 10, "PENDING", { ...call, exchange: "", routing_key: "q", attempt: 0 });
  const received = event("task-received", 11, "RECEIVED", call);
  const succeeded = event("task-succeeded", 14, "SUCCESS", { result: "2", runtime: 1.5 });
  assert.deepEqual(after(sent, received, event("task-started", 12, "STARTED"), succeeded), {
    ...{ uuid: "u", ...NAMES, state: "SUCCESS", type: "task-succeeded", timestamp: 14, clock: 14 },
    ...{ client: "gen1@web", worker: "celery@w1", pid: 7, exchange: "", routing_key: "q" },
    ...{ sent: 10, received: 11, started: 12, succeeded: 14, failed: null, retried: null, revoked: null },
    ...{ rejected: null, lost: null, stale: false, retries: 0, attempt: 1, queued_seconds: null, runtime: 1.5 },
    ...{ args: "(1,)", kwargs: "{}", eta: null, expires: null, result: "2", exception: null, traceback: null },
    ...{ custom_at: null, custom: null, progress: 1, children: [] },
  });
});

test("the record before it keeps what the event does not have, and is left alone", () => {
  const known = Object.freeze({ ...after(event("task-received", 11, "RECEIVED")), children: ["c"], progress: 0.5 });
  const task = outlive(known, event("task-failed", 15, "FAILURE", { exception: "Bang()", traceback: "…" }));
  assert.deepEqual([task.state, task.failed, task.exception, task.received], ["FAILURE", 15, "Bang()", 11]);
  assert.deepEqual([task.children, task.progress, known.state], [["c"], 0.5, "RECEIVED"]);
});

test("lost until the next event", () => {
  const lost = after(event("task-started", 12, "STARTED"), event("task-lost", 300, "LOST", { source: "gateway" }));
  assert.deepEqual([lost.state, lost.lost, lost.stale], ["LOST", 300, true]);
  const back = outlive(lost, event("task-succeeded", 20, "SUCCESS"));
  assert.deepEqual([back.state, back.lost, back.stale], ["SUCCESS", null, false]);
});

test("an application's own event, and one without a uuid, change nothing", () => {
  const known = after(event("task-started", 12, "STARTED"));
  assert.equal(outlive(known, event("task-progress", 13, "PROGRESS", { name: { a: 1 } })), known);
  assert.equal(outlive(undefined, event("shop-opened", 13)), undefined);
  assert.equal(outlive(undefined, event("mail-sent", 13)), undefined);
  assert.equal(outlive(undefined, event("task-started", 13, "STARTED", { uuid: null })), undefined);
});

test("ids of any JSON type become texts", () => {
  assert.deepEqual(["a", 12, true, ["a", 1], null, undefined].map(idText), ["a", "12", "true", '["a",1]', undefined, undefined]);
  assert.equal(after(event("task-started", 12, "STARTED", { uuid: 12 })).uuid, "12");
});

test("the cluster is that of the first event", () => {
  assert.equal(after(event("task-started", 12, "STARTED", { cluster: "eu" })).cluster, "eu");
  assert.ok(!("cluster" in after(event("task-started", 12, "STARTED"))));
});
