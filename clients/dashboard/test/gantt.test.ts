import assert from "node:assert/strict";
import { test } from "node:test";
import { attemptsOf, barsOf, barsOfGroup, densityOf, extentOf, moved, rectOf, scaleOf, ticksOf, type Bar } from "../src/gantt.ts";
import { ranOf, startOf } from "../src/states.ts";
import { attempt, record } from "./records.ts";

const brief = (bars: readonly Bar[]): string[] =>
  bars.map(({ part, from, to, attempt, isOpen }) => `${attempt}:${part} ${from}–${to}${isOpen ? "…" : ""}`);
const eta = (seconds: number): string => new Date(seconds * 1_000).toISOString();

test("a task waits, then it runs", () => {
  assert.deepEqual(brief(barsOf(record("a", { state: "SUCCESS", sent: 1, received: 2, started: 3, succeeded: 5 }), 9)), ["1:queue 1–3", "1:run 3–5"]);
  assert.deepEqual(brief(barsOf(record("a", { state: "STARTED", received: 2, started: 3 }), 9)), ["1:queue 2–3", "1:run 3–9…"]);
  assert.deepEqual(brief(barsOf(record("a", { state: "PENDING", sent: 1 }), 9)), ["1:queue 1–9…"]);
  assert.deepEqual(brief(barsOf(record("a", { state: "CRUNCHING", started: 3 }), 9)), ["1:run 3–9…"]);
  assert.deepEqual(brief(barsOf(record("a"), 9)), []);
});

test("waiting for an eta is a part of its own", () => {
  const fields = { state: "SUCCESS", sent: 1, started: 6, succeeded: 7, eta: eta(5) };
  assert.deepEqual(brief(barsOf(record("a", fields), 9)), ["1:eta 1–5", "1:queue 5–6", "1:run 6–7"]);
  assert.deepEqual(brief(barsOf(record("a", { state: "RECEIVED", sent: 1, eta: eta(20) }), 9)), ["1:eta 1–9…"]);
  assert.deepEqual(brief(barsOf(record("a", { ...fields, eta: "soon" }), 9)), ["1:queue 1–6", "1:run 6–7"]);
});

test("attempts", () => {
  const task = record("a", {
    state: "FAILURE",
    attempt: 3,
    attempts: [
      attempt({ state: "RETRY", sent: 1, started: 2, ended: 3 }),
      attempt({ state: "RETRY", sent: 3, eta: eta(4), started: 5, ended: 6 }),
      attempt({ state: "FAILURE", received: 6, started: 7, ended: 8 }),
    ],
  });
  assert.deepEqual(brief(barsOf(task, 99)), [
    ...["1:queue 1–2", "1:run 2–3", "2:eta 3–4", "2:queue 4–5", "2:run 5–6", "3:queue 6–7", "3:run 7–8"],
  ]);
  const last = barsOf(record("a", { ...task, attempt: 12 }), 99);
  assert.deepEqual([last[0]!.attempt, last[last.length - 1]!.attempt], [10, 12]);
});

test("an attempt without an end stops where the next one begins", () => {
  const attempts = [attempt({ state: "STARTED", started: 1 }), attempt({ state: "SUCCESS", received: 5, started: 6, ended: 7 })];
  assert.deepEqual(brief(barsOf(record("a", { state: "SUCCESS", attempt: 2, attempts }), 99)), ["1:run 1–5", "2:queue 5–6", "2:run 6–7"]);
});

test("the attempt of a lost task ends when it counted as lost", () => {
  const lost = attempt({ state: "LOST", sent: 1, started: 2 });
  const task = record("a", { state: "LOST", stale: true, sent: 1, started: 2, lost: 9, attempts: [lost] });
  assert.deepEqual(brief(barsOf(task, 99)), ["1:queue 1–2", "1:run 2–9"]);
  assert.equal(ranOf(task), 7);
  const again = [lost, attempt({ state: "PENDING", sent: 12 })];
  assert.deepEqual(brief(barsOf(record("a", { ...task, attempt: 2, attempts: again }), 15)), ["1:queue 1–2", "1:run 2–12", "2:queue 12–15…"]);
  assert.deepEqual(brief(barsOf(record("a", { ...task, started: null, attempts: [attempt({ state: "LOST", received: 1 })] }), 99)), ["1:queue 1–9"]);
  assert.deepEqual([ranOf(record("a", { started: 2, stale: true, lost: 1 })), ranOf(record("a", { started: 2 })), ranOf(record("a", { started: 2, runtime: 3 }))], [0, null, 3]);
});

test("a record without attempts", () => {
  const retried = { state: "SUCCESS", sent: 1, retried: 3, started: 5, succeeded: 6, attempt: 2 };
  assert.deepEqual(brief(barsOf(record("a", retried), 9)), ["2:queue 3–5", "2:run 5–6"]);
  assert.deepEqual(brief(barsOf(record("a", { state: "RETRY", sent: 1, started: 2, retried: 3 }), 9)), ["1:queue 1–2", "1:run 2–3"]);
  assert.deepEqual(brief(barsOf(record("a", { state: "LOST", sent: 1, started: 2, lost: 4 }), 9)), ["1:queue 1–2", "1:run 2–4"]);
  assert.deepEqual(brief(barsOf(record("a", { state: "REVOKED", sent: 1, revoked: 4 }), 9)), ["1:queue 1–4", "1:run 4–4"]);
  assert.equal(attemptsOf(record("a", { attempts: [] })).length, 1);
});

test("wrong clocks make no bar of negative length", () => {
  for (const bar of barsOf(record("a", { state: "SUCCESS", sent: 9, received: 8, started: 5, succeeded: 2, eta: eta(12) }), 1)) {
    assert.ok(bar.to >= bar.from, JSON.stringify(bar));
  }
});

test("a worker whose clock is behind has not started a task before it was sent", () => {
  assert.deepEqual(brief(barsOf(record("a", { state: "STARTED", sent: 3_600, received: 1, started: 2 }), 3_610)), ["1:run 3600–3610…"]);
  assert.deepEqual(brief(barsOf(record("a", { state: "SUCCESS", sent: 3_600, received: 1, started: 2, succeeded: 7 }), 9_999)), ["1:run 3600–3605"]);
  assert.deepEqual(brief(barsOf(record("a", { state: "LOST", sent: 3_600, started: 2, lost: 3_700 }), 9_999)), ["1:run 3600–3700"]);
  assert.deepEqual([startOf(record("a", { sent: 9, started: 2 })), startOf(record("a", { started: 2 })), startOf(record("a", { sent: 1 }))], [9, 2, null]);
});

test("the extent of a workflow ends now while it runs", () => {
  const done = record("a", { state: "SUCCESS", sent: 1, started: 2, succeeded: 3 });
  assert.deepEqual(extentOf([done], 9), [1, 3]);
  assert.deepEqual(extentOf([done, record("b", { state: "STARTED", started: 2 })], 9), [1, 9]);
  assert.equal(extentOf([record("c")], 9), null);
});

test("a group has one bar to wait and one to run", () => {
  const tasks = [
    record("a", { state: "SUCCESS", sent: 1, started: 2, succeeded: 3 }),
    record("b", { state: "FAILURE", sent: 1, started: 4, failed: 6 }),
  ];
  assert.deepEqual(brief(barsOfGroup(tasks, 9)), ["1:queue 1–2", "1:run 2–6"]);
  assert.equal(barsOfGroup(tasks, 9)[1]!.state, "FAILURE");
  assert.equal(barsOfGroup([...tasks, record("c", { state: "STARTED", started: 5 })], 9)[1]!.state, "STARTED");
  assert.deepEqual(brief(barsOfGroup([record("c", { state: "PENDING", sent: 5 })], 9)), ["1:queue 5–9…"]);
  assert.deepEqual(barsOfGroup([record("c")], 9), []);
});

test("times are pixels, and pixels times", () => {
  const scale = scaleOf([10, 20], 100);
  for (const time of [10, 12.5, 20, 30]) assert.ok(Math.abs(scale.time(scale.x(time)) - time) < 1e-9);
  assert.deepEqual(rectOf(scale, [12, 15]), { x: 20, width: 30 });
  assert.deepEqual(rectOf(scale, [0, 15]), { x: 0, width: 50 });
  assert.deepEqual(rectOf(scale, [15, 15]), { x: 50, width: 2 });
  assert.deepEqual(rectOf(scale, [20, 20]), { x: 98, width: 2 });
  assert.deepEqual([rectOf(scale, [0, 9]), rectOf(scale, [21, 30])], [null, null]);
  assert.ok(Number.isFinite(scaleOf([1, 1], 100).x(1)));
});

test("ticks are round numbers after the beginning", () => {
  assert.deepEqual(ticksOf([100, 109], 100, 5), [100, 102, 104, 106, 108]);
  assert.deepEqual(ticksOf([103, 104], 100, 4), [103, 103.5, 104].filter((tick) => tick <= 104));
  for (const seconds of [0.01, 0.3, 7, 100, 5_000, 90_000, 1e7]) {
    for (const count of [2, 5, 10]) {
      const ticks = ticksOf([1_000, 1_000 + seconds], 1_000, count);
      assert.ok(ticks.length >= 1 && ticks.length <= count + 1, `${seconds} ${count} ${ticks.length}`);
    }
  }
  assert.ok(ticksOf([0, 1e12], 0, 5).length <= 100);
});

test("how many tasks run is that of counting them one by one", () => {
  const tasks = Array.from({ length: 40 }, (_, at) =>
    record(`${at}`, { state: at % 7 ? "SUCCESS" : "FAILURE", started: (at * 13) % 50, [at % 7 ? "succeeded" : "failed"]: ((at * 13) % 50) + (at % 9) }),
  );
  const { running, failed } = densityOf(tasks, [0, 60], 60, 99);
  for (let second = 0; second < 60; second++) {
    const expected = tasks.filter(({ started, succeeded, failed }) => started! <= second && (succeeded ?? failed)! >= second).length;
    assert.equal(running[second], expected, `${second}`);
  }
  assert.equal(failed.reduce((sum, one) => sum + one), 6);
});

test("a range moves within limits", () => {
  assert.deepEqual(moved([2, 4], 0.5, [0, 10]), [3, 5]);
  assert.deepEqual(moved([8, 10], 0.5, [0, 10]), [8, 10]);
  assert.deepEqual(moved([1, 3], -5, [0, 10]), [0, 2]);
  assert.deepEqual(moved([0, 20], 1, [0, 10]), [0, 10]);
});
