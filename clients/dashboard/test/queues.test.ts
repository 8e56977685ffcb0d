import assert from "node:assert/strict";
import { test } from "node:test";
import { priorities, problem, Trends } from "../src/queues.ts";

const queue = (depth: number | null, time: number, more: object = {}) => ({
  name: "mail", depth, unacknowledged: null, consumers: 2, oldest: null, time, error: null, ...more,
});

function after(...readings: readonly (readonly [time: number, depth: number | null])[]) {
  const trends = new Trends();
  let last = queue(null, 0);
  for (const [time, depth] of readings) trends.add([(last = queue(depth, time))]);
  return trends.of(last);
}

test("a queue drains at the rate of the last two minutes", () => {
  assert.deepEqual(after([0, 100], [10, 80]), { kind: "drains", perSecond: -2, seconds: 40 });
  assert.deepEqual(after([0, 10_000], [100, 300], [150, 250], [220, 180]).perSecond, -1);
  assert.deepEqual(after([0, 10], [20, 30]), { kind: "grows", perSecond: 1, seconds: null });
  assert.equal(after([0, 5], [20, 5]).kind, "steady");
});

test("a trend needs some seconds, and readings that are new", () => {
  assert.equal(after([0, 100], [5, 80]).kind, "unknown");
  assert.equal(after([0, 100], [0, 80], [0, 60]).kind, "unknown");
  assert.equal(after([0, null], [20, null]).kind, "unknown");
  assert.equal(after([0, 100], [10, 0]).kind, "empty");
});

test("queues of two brokers are kept apart, and their number is bounded", () => {
  const trends = new Trends();
  for (const [time, depth] of [[0, 100], [10, 50]] as const) {
    trends.add([queue(depth, time, { cluster: "eu" }), queue(7, time, { cluster: "us" })]);
  }
  assert.equal(trends.of(queue(50, 10, { cluster: "eu" })).kind, "drains");
  assert.equal(trends.of(queue(7, 10, { cluster: "us" })).kind, "steady");
  trends.add(Array.from({ length: 2_500 }, (_, number) => queue(1, 20, { name: `q${number}` })));
  assert.equal(trends.of(queue(50, 10, { cluster: "eu" })).kind, "unknown");
});

test("a queue without a consumer is a problem only while messages wait", () => {
  assert.equal(problem(queue(3, 0)), null);
  assert.equal(problem(queue(0, 0, { consumers: 0 })), null);
  assert.equal(problem(queue(3, 0, { consumers: null })), null);
  assert.match(problem(queue(3, 0, { consumers: 0 }))!, /No worker consumes/);
  assert.equal(problem(queue(null, 0, { error: "refused" })), "refused");
});

test("priorities are ordered as numbers", () => {
  assert.deepEqual(priorities(queue(3, 0, { priorities: { 10: 1, 9: 2, 0: 3 } })), [["0", 3], ["9", 2], ["10", 1]]);
  assert.deepEqual(priorities(queue(3, 0)), []);
});
