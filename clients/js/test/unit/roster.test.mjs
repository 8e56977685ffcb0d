import assert from "node:assert/strict";
import { test } from "node:test";
import { Roster } from "../../dist/roster.js";

const NAME = "celery@w1";
const event = (type, fields) => ({ type, hostname: NAME, pid: 7, timestamp: 100, clock: 1, freq: 2, active: 0, ...fields });
const consuming = (value, cluster = null) => [{ cluster, consuming: value, reason: "", since: 50 }];

/** A roster that has heard some events, at 0 ms. */
function roster(...events) {
  const made = new Roster();
  for (const event of events) made.onEvent(event, 0);
  return made;
}
const statusAt = (roster, ms, sources = []) => {
  const [worker] = roster.look(ms, sources);
  return worker && [worker.status, worker.alive];
};

test("online, then silent after three heartbeats, at least 15 s, then forgotten", () => {
  const known = roster(event("worker-online"), event("worker-heartbeat", { freq: 10, loadavg: [1, 2, 3] }));
  assert.deepEqual(known.look(0, []).map(({ since, ...rest }) => rest), [
    {
      ...{ hostname: NAME, alive: true, status: "online", heartbeats: true, freq: 10, active: 0, processed: null },
      ...{ loadavg: [1, 2, 3], pid: 7, clock: 1, timestamp: 100, online: 100, offline: null },
      ...{ sw_ident: null, sw_ver: null, sw_sys: null },
    },
  ]);
  assert.deepEqual(statusAt(known, 30_000), ["online", true]);
  assert.deepEqual(statusAt(known, 30_001), ["silent", false]);
  known.onEvent(event("worker-heartbeat"), 40_000);
  assert.deepEqual([statusAt(known, 55_000), statusAt(known, 55_001)], [["online", true], ["silent", false]]);
  assert.deepEqual(known.look(40_000 + 3_600_001, []), []);
  assert.deepEqual(known.look(0, []), []);
});

test("a worker that stops is stopping while it runs tasks, then offline", () => {
  const stopping = roster(event("worker-online"), event("worker-offline", { active: 2, timestamp: 110 }));
  assert.deepEqual([statusAt(stopping, 0), statusAt(stopping, 20_000)], [["stopping", true], ["offline", false]]);
  const stopped = roster(event("worker-online"), event("worker-offline", { timestamp: 110 }));
  assert.deepEqual(statusAt(stopped, 0), ["offline", false]);
  assert.equal(stopped.look(0, [])[0].offline, 110);
});

test("an application's own worker event makes no worker and changes none", () => {
  assert.deepEqual(roster(event("worker-ready")).look(0, []), []);
  const known = roster(event("worker-online"), event("worker-constructor", { active: 9 }));
  assert.equal(known.look(0, [])[0].active, 0);
});

test("the end of a process does not affect the one that has replaced it", () => {
  const replaced = roster(event("worker-heartbeat", { active: 3 }), event("worker-online", { pid: 8, active: undefined }));
  assert.deepEqual([replaced.look(0, [])[0].pid, replaced.look(0, [])[0].active], [8, null]);
  replaced.onEvent(event("worker-offline", { pid: 7, timestamp: 120, active: 3 }), 0);
  const [worker] = replaced.look(0, []);
  assert.deepEqual([worker.status, worker.offline, worker.active, worker.pid], ["online", 120, null, 8]);
});

test("a worker without heartbeats is never silent, but it is gone if a snapshot does not have it", () => {
  const known = roster(event("worker-online", { hostname: "celery@w2" }));
  known.refresh([{ hostname: NAME, status: "online", alive: true, heartbeats: false, freq: null }], 0);
  assert.deepEqual(statusAt(known, 1_000_000), ["online", true]);
  known.refresh([], 1_000_000);
  assert.deepEqual(known.look(1_000_000, []).map(({ hostname }) => hostname), ["celery@w2"]);
});

test("silence does not count while the gateway is not consuming from the broker", () => {
  const known = roster(event("worker-online"), event("worker-online", { cluster: "eu" }));
  const both = (ms, sources) => known.look(ms, sources).map(({ cluster, status, alive }) => [cluster, status, alive]);
  assert.deepEqual(both(60_000, consuming(false)), [[undefined, "unknown", true], ["eu", "silent", false]]);
  assert.equal(known.look(61_000, consuming(false))[0].since, 50);
  assert.deepEqual(both(70_000, consuming(true))[0], [undefined, "online", true]);
  assert.deepEqual(both(77_000, [])[0], [undefined, "silent", false]);
});

test("a status begins once", () => {
  const known = roster(event("worker-online"));
  const { since } = known.look(0, [])[0];
  assert.ok(Math.abs(since - performance.timeOrigin / 1_000) < 1);
  known.onEvent(event("worker-heartbeat"), 5_000);
  assert.equal(known.look(5_000, [])[0].since, since);
});

test("two brokers may have the same hostname; workers are in the order of cluster and hostname", () => {
  const known = roster(event("worker-online", { cluster: "us" }), event("worker-online", { cluster: "eu" }));
  known.onEvent(event("worker-online", { cluster: "eu", hostname: "celery@w0" }), 0);
  assert.deepEqual(known.look(0, []).map(({ cluster, hostname }) => `${cluster} ${hostname}`), [
    "eu celery@w0",
    "eu celery@w1",
    "us celery@w1",
  ]);
});
