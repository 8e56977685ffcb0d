import assert from "node:assert/strict";
import { test } from "node:test";
import type { Queue, Statistics, StatisticsItem, Worker } from "../../js/src/index.ts";
import { asOf, emptiness, endedPerMinute, isCutOff, isSlow, problems, selecting, tasksOf } from "../src/overview.ts";

const buckets = { seconds: 60, start: 0, succeeded: [5, 0, 30, 10], failed: [0, 0, 0, 2], retried: [0, 0, 0, 0] };
const item = (more: Partial<StatisticsItem> = {}): StatisticsItem => ({
  name: null, running: 0, waiting: 0, lost: 0, received: 0, started: 0, succeeded: 0, failed: 0, retried: 0, revoked: 0, rejected: 0,
  buckets, runtime: null, wait: null, last_failure: null, ...more,
});
const worker = (more: Partial<Worker>): Worker => ({ hostname: "w1@vm", alive: true, status: "online", processed: 3, ...more }) as Worker;
const queue = (more: Partial<Queue>): Queue => ({ name: "media", depth: 0, unacknowledged: null, consumers: null, oldest: null, time: 0, error: null, ...more });

test("the rate is over the last whole minute and the current one, as far as events were counted", () => {
  assert.equal(endedPerMinute({ buckets }, { time: 210, since: 0 }), (60 * 42) / 90);
  assert.equal(endedPerMinute({ buckets }, { time: 210, since: 180 }), (60 * 42) / 30);
  assert.equal(endedPerMinute({ buckets: { ...buckets, succeeded: [], failed: [] } }, { time: 1, since: 0 }), 0);
});

test("buckets that have begun since the statistics were sent are empty", () => {
  const sent: Statistics = { window: 240, time: 210, since: 0, complete: true, names: [item({ name: "a" })], other: null, total: item() };
  assert.equal(asOf(sent, 200), sent);
  assert.equal(asOf(sent, 239).names[0], sent.names[0]);
  const later = asOf(sent, 300);
  assert.deepEqual(later.total.buckets, { seconds: 60, start: 120, succeeded: [30, 10, 0, 0], failed: [0, 2, 0, 0], retried: [0, 0, 0, 0] });
  assert.deepEqual(later.names[0]!.buckets, later.total.buckets);
  assert.equal(endedPerMinute(asOf(sent, 360).total, asOf(sent, 360)), 0);
  assert.deepEqual(asOf(sent, 1e6).total.buckets.succeeded, [0, 0, 0, 0]);
});

test("what keeps tasks from running", () => {
  assert.deepEqual(problems(item(), [worker({})], [queue({ depth: 3, consumers: 1 }), queue({ depth: 3, consumers: null })]), []);
  const found = problems(item({ lost: 1 }), [worker({ sends_task_events: false }), worker({ hostname: "w2", status: "silent" })], [queue({ depth: 4, consumers: 0 })]);
  assert.deepEqual(found.map(({ text }) => text), [
    "No worker takes tasks from media.",
    "No task events from w1@vm, which processed 3 tasks: start with -E, or the gateway with --control.",
    "Silent, so busy or dead: w2.",
    "1 task is lost: their worker is gone.",
  ]);
});

test("what has the same name in two clusters is told apart", () => {
  const [queues, silent] = problems(item(), ["eu", "us"].map((cluster) => worker({ cluster, status: "silent" })), ["eu", "us"].map((cluster) => queue({ cluster, depth: 1, consumers: 0 })));
  assert.equal(queues!.text, "No worker takes tasks from media (eu), media (us).");
  assert.equal(silent!.text, "Silent, so busy or dead: w1@vm (eu), w1@vm (us).");
});

test("the tasks of a queue are those of its cluster, whatever its name is", () => {
  assert.deepEqual(tasksOf(queue({ name: "a,b*", cluster: "e?" })).query, [["queue", "a\\,b\\*"], ["cluster", "e\\?"], ["state", "PENDING,RECEIVED,RETRY,REJECTED,CANCELLED"]]);
  assert.deepEqual(selecting("name", { name: "!x" }), [["name", "\\!x"]]);
});

test("long names do not fill a note", () => {
  const [found] = problems(item(), [worker({ hostname: `w@${"x".repeat(500)}`, status: "silent" })], null);
  assert.ok(found!.text.length < 100);
});

test("why there is nothing", () => {
  assert.equal(emptiness(item(), 0, []), "nothing");
  assert.equal(emptiness(item(), 0, [worker({})]), "no-task-events");
  assert.equal(emptiness(item({ waiting: 3 }), 1, [worker({})]), "no-task-events");
  assert.equal(emptiness(item({ waiting: 3 }), 1, [worker({ alive: false })]), "only-sent");
  assert.equal(emptiness(item({ received: 1 }), 1, []), null);
  assert.equal(isCutOff([]), false);
});

test("a task is slow beside its own name", () => {
  const runtime = { count: 50, p50: 1, p95: 2, p99: 3, max: 4 };
  assert.equal(isSlow({ started: 100 }, item({ runtime }), 104), true);
  assert.equal(isSlow({ started: 100 }, item({ runtime }), 102), false);
  assert.equal(isSlow({ started: 100 }, item({ runtime: { ...runtime, count: 5 } }), 104), false);
  assert.equal(isSlow({ started: null }, item({ runtime }), 104), false);
});
