import assert from "node:assert/strict";
import { test } from "node:test";
import { apply, idText, isReady } from "../../dist/task.js";

const UUID = "u";
const NAMES = { name: "shop.pay", root_id: "r", parent_id: "p" };
const CALL = { args: "(1,)", kwargs: "{}", eta: null, expires: null, retries: 0 };

function event(type, timestamp, state, fields = {}) {
  const hostname = type === "task-sent" ? "gen1@web" : "celery@w1";
  const own = { type, uuid: UUID, timestamp, hostname, pid: 7, clock: timestamp, utcoffset: 0 };
  return { id: `e-${timestamp}`, time: "", ...own, ...NAMES, queue: null, state, attempt: 1, ...fields };
}

/** The record after some events. */
const after = (...events) => events.reduce((task, event) => apply(task && Object.freeze(task), event), undefined);
const sent = (at, fields) =>
  event("task-sent", at, "PENDING", { ...CALL, queue: "q", exchange: "", routing_key: "q", ...fields });
const received = (at, fields) => event("task-received", at, "RECEIVED", { ...CALL, ...fields });
const started = (at, fields) => event("task-started", at, "STARTED", fields);
const retried = (at, fields) => event("task-retried", at, "RETRY", { exception: "Boom()", traceback: "…", ...fields });
const rejected = (at, fields) => event("task-rejected", at, "REJECTED", fields);
const failed = (at, fields) => event("task-failed", at, "FAILURE", { exception: "Bang()", traceback: "…", ...fields });
const succeeded = (at, fields) => event("task-succeeded", at, "SUCCESS", { result: "2", runtime: 1.5, ...fields });
const progress = (at, fields) => event("task-progress", at, "PROGRESS", { hostname: "gen2@w1", ...fields });
const lost = (at, fields) =>
  event("task-lost", at, "LOST", { source: "gateway", reason: "gone", clock: undefined, retries: 0, ...fields });

test("a task from sent to succeeded", () => {
  const task = after(sent(10), received(11), started(12), succeeded(14));
  assert.deepEqual(task, {
    ...{ uuid: UUID, ...NAMES, state: "SUCCESS", type: "task-succeeded", timestamp: 14, clock: 14 },
    ...{ client: "gen1@web", worker: "celery@w1", pid: 7, queue: "q", exchange: "", routing_key: "q" },
    ...{ sent: 10, received: 11, started: 12, succeeded: 14, failed: null, retried: null, revoked: null },
    ...{ rejected: null, lost: null, stale: false, retries: 0, attempts: 1, queued_seconds: 2, runtime: 1.5 },
    ...{ args: "(1,)", kwargs: "{}", eta: null, expires: null, result: "2", exception: null, traceback: null },
    ...{ informed: null, info: null, progress: 1, children: [] },
  });
  assert.ok(isReady(task));
});

test("each event makes a new object and leaves the one before alone", () => {
  const before = Object.freeze(after(sent(10)));
  assert.notEqual(apply(before, received(11)), before);
  assert.equal(before.received, null);
});

test("a task that is only sent has no attempt yet", () => {
  const task = after(sent(10, { retries: 2, attempt: 3 }));
  assert.deepEqual([task.state, task.attempts, task.retries, task.worker], ["PENDING", 0, 2, null]);
  assert.equal(apply(task, started(11, { attempt: 3 })).attempts, 3);
});

test("what the worker says of a call stands before what the client says, whichever comes first", () => {
  const call = { args: "worker", eta: "soon" };
  const before = [received(11, { name: "shadow", kwargs: null, ...call }), started(12, { name: "shadow" })];
  const late = after(...before, sent(10, { args: "client", kwargs: "client", state: "STARTED" }));
  assert.deepEqual([late.name, late.args, late.eta, late.queue], ["shadow", "worker", "soon", "q"]);
  assert.deepEqual([late.kwargs, late.client], ["client", "gen1@web"], "what is missing is filled");
  assert.deepEqual([late.type, late.timestamp, late.sent, late.queued_seconds], ["task-started", 12, 10, 2]);
});

test("a retry is another attempt: its outcome and times start empty, those of the run stay", () => {
  const first = after(sent(10), received(11), started(12), progress(12.5, { current: 1, total: 2 }), retried(13));
  assert.deepEqual([first.state, first.retried, first.exception, first.progress], ["RETRY", 13, "Boom()", 0.5]);
  const announced = apply(first, sent(14, { retries: 1, attempt: 2, state: "RETRY", args: "(2,)" }));
  assert.deepEqual([announced.attempts, announced.retries, announced.sent, announced.args], [1, 1, 14, "(2,)"]);
  assert.deepEqual([announced.state, announced.exception, announced.type], ["RETRY", "Boom()", "task-retried"]);
  const again = apply(announced, received(15, { retries: 1, attempt: 2 }));
  assert.deepEqual([again.attempts, again.state, again.sent, again.retried], [2, "RECEIVED", 14, 13]);
  assert.deepEqual([again.started, again.exception, again.informed, again.progress], [null, null, null, null]);
  const task = apply(apply(again, started(17, { attempt: 2 })), succeeded(18, { attempt: 2 }));
  assert.deepEqual([task.attempts, task.queued_seconds, task.progress], [2, 3, 1]);
});

test("an older attempt changes nothing but retried and rejected", () => {
  const task = after(received(11), started(12), received(13, { attempt: 2, worker: "celery@w2" }));
  const late = [started(12, { state: "RECEIVED" }), failed(14, { state: "RECEIVED" }), progress(14, { state: "RECEIVED" })];
  for (const event of late) assert.deepEqual(apply(task, event), task, event.type);
  assert.deepEqual(apply(task, retried(14, { state: "RECEIVED" })), { ...task, retried: 14 });
  assert.deepEqual(apply(task, rejected(14, { state: "RECEIVED" })), { ...task, rejected: 14 });
  const retry = apply(task, received(15, { attempt: 3, retries: 1 }));
  assert.deepEqual(apply(retry, sent(9, { state: "RECEIVED" })), retry, "of the message before");
  assert.equal(apply(task, sent(9, { state: "RECEIVED" })).sent, 9, "of a message that was delivered again");
  assert.deepEqual(apply(task, sent(9, { attempt: 0, state: "RECEIVED" })), task, "of a run before");
});

test("a worker's event that reports more than the state belongs to another attempt", () => {
  const task = after(sent(10), received(11), succeeded(12), sent(20));
  assert.deepEqual([task.state, task.attempts, task.succeeded, task.worker], ["PENDING", 0, null, null]);
  for (const event of [started(11.5, { state: "PENDING" }), progress(11.6, { state: "PENDING" })]) {
    assert.deepEqual(apply(task, event), task, event.type);
  }
});

test("a run begins with the first sign of it: what was sent, retried or rejected is of the run before", () => {
  const first = after(sent(10), received(11), retried(12), sent(13, { retries: 1, attempt: 2, state: "RETRY" }));
  const ready = after(sent(10), received(11), rejected(11.5), received(12, { attempt: 2 }), failed(13, { attempt: 2 }));
  assert.deepEqual([ready.rejected, ready.attempts, first.retries], [11.5, 2, 1]);
  for (const event of [sent(20), received(21), started(22), event_revoked(23)]) {
    const task = apply(ready, event);
    const isSent = event.type === "task-sent";
    assert.deepEqual([task.attempts, task.failed, task.rejected, task.retries], [isSent ? 0 : 1, null, null, 0], event.type);
    assert.equal(task.sent, isSent ? 20 : null, event.type);
  }
  function event_revoked(at) {
    return event("task-revoked", at, "REVOKED");
  }
});

test("an event of an earlier run changes nothing", () => {
  const task = after(received(11), retried(12), failed(13), received(20), started(21));
  for (const make of [received, started, retried, rejected, failed, progress, sent]) {
    const event = make(14, { attempt: 0, state: "STARTED" });
    assert.deepEqual(apply(task, event), task, event.type);
  }
});

test("an event that moves the state belongs to the attempt that is shown", () => {
  const unseen = apply(after(received(11), received(15, { attempt: 2 })), retried(16));
  assert.deepEqual([unseen.state, unseen.attempts], ["RETRY", 1]);
});

test("a late task-received that tells of retries before the gateway listened counts them", () => {
  const task = after(started(12), received(11, { retries: 3, attempt: 4, state: "STARTED" }));
  assert.deepEqual([task.attempts, task.started, task.received, task.retries], [4, 12, 11, 3]);
});

test("a task that is its own parent has none", () => {
  assert.equal(after(received(11, { parent_id: UUID })).parent_id, null);
});

test("a task without a root is its own root", () => {
  assert.equal(after(received(11, { root_id: null, parent_id: null })).root_id, UUID);
  assert.equal(after(started(11, { name: null, root_id: null, parent_id: null })).root_id, null, "it is not known");
});

test("ids of any JSON type become texts", () => {
  assert.deepEqual(["a", 12, true, ["a", 1], null, undefined].map(idText), ["a", "12", "true", '["a",1]', undefined, undefined]);
  const task = after(received(11, { uuid: 12, root_id: ["a"], parent_id: 12 }));
  assert.deepEqual([task.uuid, task.root_id, task.parent_id], ["12", '["a"]', null]);
});

test("lost until the next event that moves the state", () => {
  const task = after(received(11), started(12), lost(300));
  assert.deepEqual([task.state, task.type, task.timestamp, task.clock], ["LOST", "task-lost", 300, 12]);
  assert.deepEqual([task.lost, task.stale, task.started, task.worker], [300, true, 12, "celery@w1"]);
  const back = apply(task, succeeded(20));
  assert.deepEqual([back.state, back.lost, back.stale, back.runtime], ["SUCCESS", null, false, 1.5]);
  const again = apply(task, received(21, { attempt: 2 }));
  assert.deepEqual([again.attempts, again.lost, again.stale], [2, null, false]);
  const own = apply(after(started(12)), event("task-lost", 13, "STARTED", { parcel: 3 }));
  assert.deepEqual([own.state, own.lost], ["STARTED", null], "an application's own event of this type");
});

test("custom events: their own fields, and how far it is", () => {
  const task = after(received(11), started(12), progress(13, { current: 1, total: 4, note: "a" }));
  assert.deepEqual([task.state, task.informed, task.progress], ["PROGRESS", 13, 0.25]);
  assert.deepEqual(task.info, { current: 1, total: 4, note: "a" });
  assert.equal(task.worker, "celery@w1");
  for (const [fields, part] of [
    [{ progress: 0.5 }, 0.5],
    [{ progress: 0 }, 0],
    [{ progress: 50, current: 1, total: 2 }, 0.5],
    [{ progress: 50 }, null],
    [{ progress: "half" }, null],
    [{ progress: true }, null],
    [{ current: 3, total: 0 }, null],
    [{ current: 3, total: 2 }, 1],
    [{ current: -3, total: 2 }, 0],
    [{ total: 2 }, null],
    [{}, null],
  ]) {
    assert.equal(apply(task, progress(14, fields)).progress, part, JSON.stringify(fields));
  }
  const ready = apply(apply(task, succeeded(15)), progress(14, { current: 3, total: 4, state: "SUCCESS" }));
  assert.deepEqual([ready.state, ready.type, ready.progress, ready.informed], ["SUCCESS", "task-succeeded", 1, 14]);
});

test("a custom event can come before the attempt that it belongs to", () => {
  const first = after(sent(10), progress(11, { hostname: "celery@w1" }));
  assert.deepEqual([first.state, first.attempts, first.worker], ["PROGRESS", 1, "celery@w1"]);
  assert.equal(apply(first, received(10.5, { state: "PROGRESS" })).informed, 11, "it is of this attempt");
  const second = after(received(10), retried(11), sent(12, { retries: 1, attempt: 2, state: "RETRY" }), progress(13, { attempt: 2 }));
  assert.deepEqual([second.state, second.attempts, second.exception, second.retried], ["PROGRESS", 2, null, 11]);
});

test("a custom event's own fields `state` and `attempt` do not disturb the record", () => {
  const running = after(received(11), started(12));
  for (const own of [{ state: "downloading" }, { attempt: 7 }, { attempt: "x" }, { attempt: null }]) {
    const task = apply(running, progress(13, own));
    assert.deepEqual([task.state, task.attempts, task.informed], ["PROGRESS", 1, 13], JSON.stringify(own));
  }
  for (const end of [succeeded(14), retried(14)]) {
    const task = apply(apply(running, end), progress(13, { state: "downloading", attempt: 7 }));
    assert.deepEqual([task.state, task.attempts], [end.state, 1], end.type);
  }
  for (const type of ["task-constructor", "task-", "task-step-two"]) {
    const state = type.slice(5).toUpperCase();
    assert.equal(apply(running, event(type, 13, state)).state, state);
  }
});

test("the outcome is that of the event that set the state", () => {
  const task = after(received(11), started(12), failed(15));
  assert.deepEqual([task.state, task.exception, task.runtime, task.failed], ["FAILURE", "Bang()", 3, 15]);
  const late = apply(task, rejected(15.1, { state: "FAILURE" }));
  assert.deepEqual([late.rejected, late.type], [null, "task-failed"]);
  assert.equal(apply(task, started(12, { state: "FAILURE" })).started, 12);
});

test("a redelivered attempt was in the queue since it was rejected", () => {
  const task = after(sent(10), received(11), started(12), rejected(13), received(14, { attempt: 2 }), started(15, { attempt: 2 }));
  assert.deepEqual([task.attempts, task.rejected, task.queued_seconds], [2, 13, 2]);
});

test("long texts keep their end", () => {
  const { traceback } = after(failed(15, { traceback: `${"x".repeat(40_000)}end` }));
  assert.deepEqual([traceback.length, traceback.slice(-4)], [32_000, "xend"]);
});

test("the same event again changes nothing", () => {
  const task = after(sent(10), received(11), started(12), succeeded(14));
  const { id, ...again } = started(12, { state: "SUCCESS" });
  for (const event of [succeeded(14), again, received(11, { state: "SUCCESS" }), sent(10, { state: "SUCCESS" })]) {
    assert.deepEqual(apply(task, event), task, event.type);
  }
});

test("the cluster is that of the first event, unless it has none", () => {
  const task = after(received(11, { cluster: "eu" }));
  assert.equal(task.cluster, "eu");
  assert.ok(!("cluster" in apply(after(received(11)), progress(12, { cluster: "mine" }))));
});
