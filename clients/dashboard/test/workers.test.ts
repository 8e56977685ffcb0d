import assert from "node:assert/strict";
import { test } from "node:test";
import type { Task, Worker } from "../../js/src/types.ts";
import { awayOf, awayWith, behindOf, keyOfWorker, lookOfStatus, mute, muteAdvice, selects, software, sorted, STATUSES } from "../src/workers.ts";
import type { Query } from "../src/route.ts";
import { record } from "./records.ts";

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
  assert.equal(names(sorted([...all, worker("off", { active: 3, status: "offline" })], "active", true)), "c a b off");
  assert.equal(names(sorted(all, "hostname", true)), "c b a");
  assert.equal(names(sorted([worker("x", { loadavg: [1, 0, 0] }), worker("y", { loadavg: [3, 0, 0] })], "load", true)), "y x");
});

test("only a worker that is alive and known to send no task events is named", () => {
  const all = [
    worker("mute", { sends_task_events: false }), worker("new", { sends_task_events: null }), worker("old"),
    worker("gone", { sends_task_events: false, alive: false, status: "offline" }),
  ];
  assert.equal(names(mute(all)), "mute");
  assert.match(muteAdvice(1, false), /the tasks of 1 worker. Start it with -E, or the gateway with --control\.$/);
  assert.match(muteAdvice(2, true), /2 workers\. .*--control.*start them with -E\.$/);
});

test("a worker's clock is compared with the gateway's, as far as that is known", () => {
  const behind = (fields: Partial<Worker>): number | null => behindOf(worker("w", { timestamp: 10_000, ...fields }), 13_600);
  assert.deepEqual([behind({}), behind({ timestamp: 13_590 }), behind({ timestamp: 17_200 })], [3_600, null, -3_600]);
  assert.deepEqual([behind({ status: "silent", alive: false, since: 10_015 }), behind({ status: "silent", alive: false, since: 13_000 })], [null, 3_000]);
  assert.deepEqual([behind({ status: "unknown" }), behind({ heartbeats: false }), behind({ timestamp: null }), behind({ freq: 2_000 })], [null, null, null, null]);
});

test("a task is with a worker that is away, if the worker has it", () => {
  const away = awayOf([worker("w", { status: "silent", alive: false }), worker("x"), worker("y", { status: "unknown", alive: false }), worker("w", { cluster: "eu" })]);
  assert.deepEqual([...away.values()].map(({ hostname, status }) => `${hostname} ${status}`), ["w silent"]);
  const has = (fields: Partial<Task>): boolean => awayWith(record("a", { worker: "w", ...fields }), away) !== undefined;
  for (const state of ["RECEIVED", "STARTED", "PROGRESS", "CRUNCHING"]) assert.ok(has({ state }), state);
  for (const state of ["PENDING", "SUCCESS", "FAILURE", "REVOKED", "RETRY", "REJECTED", "LOST"]) assert.ok(!has({ state }), state);
  for (const other of [{ worker: "x" }, { worker: "y" }, { worker: null }, { cluster: "eu" }]) assert.ok(!has({ state: "STARTED", ...other }));
});

test("a query selects workers by patterns, as the gateway does", () => {
  const all = [worker("a"), worker("b", { cluster: "eu" }), worker("c", { cluster: "eu-2" }), worker("d", { cluster: "us" })];
  const found = (...query: Query): string => names(all.filter(selects(query)));
  assert.equal(found(), "a b c d");
  assert.equal(found(["cluster", "eu"]), "b");
  assert.equal(found(["cluster", "eu*,us"], ["status", "online"]), "b c d");
  assert.equal(found(["cluster", "!eu*"], ["hostname", "d"]), "d");
});

test("an unknown status, and texts of any kind, have a look", () => {
  for (const status of [...STATUSES, "constructor", "", "new"]) assert.ok(lookOfStatus(status).shape);
  assert.equal(software(worker("a", { sw_ident: "py-celery", sw_ver: "5.5.3", sw_sys: "Linux" })), "py-celery 5.5.3 (Linux)");
  assert.equal(software(worker("a")), "");
  assert.notEqual(keyOfWorker(worker("a", { cluster: "b" })), keyOfWorker(worker("b", { cluster: "a" })));
});
