import assert from "node:assert/strict";
import { test } from "node:test";
import type { Worker } from "../../js/src/types.ts";
import { keyOfWorker, lookOfStatus, mute, muteAdvice, software, sorted, STATUSES } from "../src/workers.ts";

const worker = (hostname: string, more: Partial<Worker> = {}): Worker => ({
  hostname, alive: true, status: "online", since: 1, heartbeats: true, freq: 2, active: 0, processed: 0, loadavg: null, pid: 1,
  clock: 1, timestamp: 1, online: null, offline: null, sw_ident: null, sw_ver: null, sw_sys: null, ...more,
});
const names = (workers: readonly Worker[]): string => workers.map(({ hostname }) => hostname).join(" ");

test("workers that need attention are first", () => {
  const all = STATUSES.map((status) => worker(status, { status })).reverse();
  assert.equal(names(sorted(all, "status", true)), STATUSES.join(" "));
  assert.equal(names(sorted([...all, worker("newer", { status: "odd" as never })], "status", true)), `${STATUSES.join(" ")} newer`.replace("offline newer", "newer offline"));
});

test("a column sorts both ways, and workers without a value are last", () => {
  const all = [worker("a", { active: 2 }), worker("b", { active: null }), worker("c", { active: 9 })];
  assert.equal(names(sorted(all, "active", true)), "c a b");
  assert.equal(names(sorted(all, "active", false)), "a c b");
  assert.equal(names(sorted(all, "hostname", true)), "c b a");
  assert.equal(names(sorted([worker("x", { loadavg: [1, 0, 0] }), worker("y", { loadavg: [3, 0, 0] })], "load", true)), "y x");
});

test("only a worker that is alive and known to send no task events is named", () => {
  const all = [
    worker("mute", { sends_task_events: false }), worker("new", { sends_task_events: null }), worker("old"),
    worker("gone", { sends_task_events: false, alive: false, status: "offline" }),
  ];
  assert.equal(names(mute(all)), "mute");
  assert.match(muteAdvice(1, false), /the tasks that 1 worker runs. Start it with -E, or the gateway with --control\.$/);
  assert.match(muteAdvice(2, true), /2 workers run.*--control.*start them with -E\.$/);
});

test("an unknown status, and texts of any kind, have a look", () => {
  for (const status of [...STATUSES, "constructor", "", "new"]) assert.ok(lookOfStatus(status).shape);
  assert.equal(software(worker("a", { sw_ident: "py-celery", sw_ver: "5.5.3", sw_sys: "Linux" })), "py-celery 5.5.3 (Linux)");
  assert.equal(software(worker("a")), "");
  assert.notEqual(keyOfWorker(worker("a", { cluster: "b" })), keyOfWorker(worker("b", { cluster: "a" })));
});
