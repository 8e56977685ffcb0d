// The table of workers: a snapshot, changes of a status, and the numbers of worker events.
import assert from "node:assert/strict";
import { test } from "node:test";
import { workers } from "../../dist/workers.js";

const worker = (hostname, fields) => ({ hostname, alive: true, status: "online", active: 0, processed: 5, pid: 7, ...fields });
const page = (...all) => [{ tasks: [], workers: all }];
const changed = (worker) => ({ type: "gateway-worker", id: "e-1", worker });

test("a snapshot replaces all; they are sorted by cluster and hostname", () => {
  const table = workers();
  assert.deepEqual(table.make(), []);
  table.refresh(page(worker("b"), worker("a", { cluster: "eu" }), worker("c")));
  assert.deepEqual(table.make().map(({ hostname }) => hostname), ["b", "c", "a"]);
  table.refresh(page(worker("c")));
  assert.deepEqual(table.make(), [worker("c")]);
});

test("a status is the gateway's, numbers are those of the worker's events", () => {
  const table = workers();
  table.refresh(page(worker("w")));
  const beat = { type: "worker-heartbeat", id: "e-1", hostname: "w", active: 3, loadavg: [1, 2, 3], timestamp: 9, status: "mine" };
  assert.equal(table.event(beat), true);
  assert.deepEqual(table.make()[0], { ...worker("w"), active: 3, loadavg: [1, 2, 3], timestamp: 9, freq: undefined, clock: undefined, sw_ident: undefined, sw_ver: undefined, sw_sys: undefined });
  assert.equal(table.control(changed(worker("w", { status: "silent", alive: false }))), true);
  assert.deepEqual(table.make()[0].status, "silent");
});

test("when it has started and stopped; the end of a process that was replaced changes nothing", () => {
  const table = workers();
  table.refresh(page(worker("w")));
  table.event({ type: "worker-online", hostname: "w", pid: 8, timestamp: 20 });
  assert.equal(table.event({ type: "worker-offline", hostname: "w", pid: 7, timestamp: 21 }), false);
  const { online, offline, pid } = table.make()[0];
  assert.deepEqual([online, offline, pid], [20, undefined, 8]);
  table.event({ type: "worker-offline", hostname: "w", pid: 8, timestamp: 22 });
  assert.equal(table.make()[0].offline, 22);
});

test("an event of an unknown worker, of another broker's, or of an application changes nothing", () => {
  const table = workers();
  table.refresh(page(worker("w", { cluster: "eu" })));
  for (const event of [{ hostname: "w" }, { hostname: "x", cluster: "eu" }, { hostname: "w", cluster: "eu", type: "worker-tired" }]) {
    assert.equal(table.event({ type: "worker-heartbeat", active: 9, ...event }), false);
  }
  assert.deepEqual(table.make(), [worker("w", { cluster: "eu" })]);
  assert.equal(table.control({ type: "gateway-open", id: "e-1" }), false);
});

test("a worker that appears is added", () => {
  const table = workers();
  table.control(changed(worker("new")));
  assert.deepEqual(table.make(), [worker("new")]);
});
