import assert from "node:assert/strict";
import { test } from "node:test";
import { apply, isReady } from "../../dist/task.js";

const UUID = "u";
const NAMES = { name: "shop.pay", root_id: "r", parent_id: "p" };
const CALL = { args: "(1,)", kwargs: "{}", eta: null, expires: null, retries: 0 };

function event(type, timestamp, state, fields = {}) {
  const hostname = type === "task-sent" ? "gen1@web" : "celery@w1";
  return { id: `e-${timestamp}`, time: "", type, uuid: UUID, timestamp, hostname, pid: 7, clock: timestamp, utcoffset: 0, ...NAMES, state, ...fields };
}

/** The record after some events. */
const after = (...events) => events.reduce((task, event) => apply(task, event), undefined);
const sent = (at, fields) => event("task-sent", at, "PENDING", { ...CALL, queue: "q", exchange: "", routing_key: "q", ...fields });
const received = (at, fields) => event("task-received", at, "RECEIVED", { ...CALL, ...fields });
const started = (at, fields) => event("task-started", at, "STARTED", fields);
const succeeded = (at, fields) => event("task-succeeded", at, "SUCCESS", { result: "2", runtime: 1.5, ...fields });

test("a task from sent to succeeded", () => {
  const task = after(sent(10), received(11), started(12), succeeded(14));
  assert.deepEqual(task, {
    ...{ uuid: UUID, ...NAMES, state: "SUCCESS", type: "task-succeeded", timestamp: 14, clock: 14 },
    ...{ client: "gen1@web", worker: "celery@w1", pid: 7, queue: "q", exchange: "", routing_key: "q" },
    ...{ sent: 10, received: 11, started: 12, succeeded: 14, failed: null, retried: null, revoked: null, rejected: null },
    ...{ args: "(1,)", kwargs: "{}", eta: null, expires: null, retries: 0, attempts: 1, starts: 1, queued_seconds: 2, runtime: 1.5 },
    ...{ result: "2", exception: null, traceback: null, informed: null, info: null, progress: null },
    ...{ children: [], stale: false },
  });
  assert.ok(isReady(task));
});

test("a new object for each event, the old one is left alone", () => {
  const before = Object.freeze(after(sent(10)));
  assert.notEqual(apply(before, received(11)), before);
  assert.equal(before.received, null);
});

test("what the worker says of a call goes before what the client says, whichever comes first", () => {
  const late = after(received(11, { name: "shadow", args: "worker" }), started(12, { name: "shadow" }), sent(10, { args: "client" }));
  assert.deepEqual([late.name, late.args, late.queue, late.client], ["shadow", "worker", "q", "gen1@web"]);
  assert.deepEqual([late.type, late.timestamp, late.sent, late.queued_seconds], ["task-started", 12, 10, 2]);
});

test("a retry is another attempt, and its message another message", () => {
  const failing = event("task-retried", 13, "RETRY", { exception: "Boom()", traceback: "…" });
  const again = [sent(14, { retries: 1 }), received(15, { retries: 1 }), started(17)];
  const task = after(sent(10), received(11), started(12), failing, ...again, succeeded(18));
  assert.deepEqual([task.attempts, task.retries, task.retried, task.exception], [2, 1, 13, "Boom()"]);
  assert.equal(task.queued_seconds, 3);
});

test("what a client tells late of the first message undoes nothing of the retry", () => {
  const retry = [event("task-retried", 12, "RETRY"), sent(11.5, { retries: 1 }), received(13, { retries: 1 })];
  const task = after(received(10), started(11), ...retry, sent(14, { hostname: "gen8@web" }), started(20));
  assert.deepEqual([task.retries, task.sent, task.client], [1, 11.5, "gen1@web"]);
  assert.deepEqual([task.attempts, task.queued_seconds], [2, 8.5]);
});

test("a retry that is told, or begun, before the attempt that it follows is counted once, from a snapshot, too", () => {
  const events = [sent(10), received(11), sent(12, { retries: 1 }), received(13, { retries: 1 }), started(14), started(15), succeeded(16)];
  for (let cut = 0; cut <= events.length; cut += 1) {
    const snapshot = cut ? JSON.parse(JSON.stringify(after(...events.slice(0, cut)))) : undefined;
    const task = events.slice(cut).reduce((task, event) => apply(task, event), snapshot);
    assert.deepEqual([task.attempts, task.starts, task.retries], [2, 2, 1], `cut before ${cut}`);
  }
});

test("attempts before the gateway listened are counted by the retries", () => {
  const task = after(received(10, { retries: 3 }), started(11));
  assert.deepEqual([task.attempts, task.starts], [4, 4]);
});

test("a task that is its own parent has none", () => {
  assert.equal(after(received(11, { parent_id: UUID })).parent_id, null);
});

test("custom events: their own fields, and how far it is", () => {
  const told = (at, fields) => event("task-progress", at, "PROGRESS", { hostname: "gen2@w1", ...fields });
  const task = after(received(11), started(12), told(13, { current: 1, total: 4, note: "a" }));
  assert.deepEqual([task.state, task.informed, task.progress], ["PROGRESS", 13, 0.25]);
  assert.deepEqual(task.info, { current: 1, total: 4, note: "a" });
  assert.equal(task.worker, "celery@w1");
  for (const [fields, progress] of [
    [{ progress: 0.5 }, 0.5],
    [{ progress: 50, current: 1, total: 2 }, 0.5],
    [{ progress: 50 }, null],
    [{ progress: "half" }, null],
    [{ current: 3, total: 0 }, null],
    [{ current: 3, total: 2 }, 1],
    [{}, null],
  ]) {
    assert.equal(apply(task, told(14, fields)).progress, progress, JSON.stringify(fields));
  }
  const again = apply(task, received(20));
  assert.deepEqual([again.info, again.progress, again.informed], [null, null, null], "they are of the attempt before");
});

test("the end of a task that failed", () => {
  const task = after(received(11), started(12), event("task-failed", 15, "FAILURE", { exception: "Boom()", traceback: "…" }));
  assert.deepEqual([task.state, task.exception, task.runtime, task.failed], ["FAILURE", "Boom()", 3, 15]);
});

test("the same event again changes nothing", () => {
  const task = after(sent(10), received(11), started(12), succeeded(14));
  assert.deepEqual(apply(task, succeeded(14)), task);
  assert.deepEqual(apply(task, started(12)), task.state === "SUCCESS" ? { ...task, state: "STARTED" } : task);
});
