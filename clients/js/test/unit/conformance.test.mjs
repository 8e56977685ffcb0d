// The client's records, workflows and workers against the gateway's: tests/conformance/*.json.
//
// CONFORMANCE_FILE names a file with more of them, in JSON lines: {"event": …, "record": …, "case": …}. `event` is one of
// a stream, `record` the gateway's record of its task right after it, null where it is not known.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { tasks } from "../../dist/models.js";
import { isReady } from "../../dist/task.js";
import { workflow } from "../../dist/tree.js";

const load = (name) => JSON.parse(readFileSync(new URL(`../../../../tests/conformance/${name}`, import.meta.url), "utf8"));
const { blank, cases } = load("task.json");

/** The messages of a case's stream: each event, and the record of its task after it; null where it is not known. */
function* stream({ events }) {
  const known = new Map();
  for (const { of, event = events[of].event, adds, record } of events.flatMap(({ stream }) => stream)) {
    const key = `${event.cluster} ${event.uuid}`;
    if (record) known.set(key, { ...(known.get(key) ?? blank), ...record });
    yield { event: { ...event, ...adds }, record: record ? known.get(key) : null };
  }
}

/**
 * Fails with the first event after which the value of a watch is not the gateway's record (`view=record`), or, as after
 * the gateway has evicted the task (`record: null`), shows another end.
 */
function check(messages) {
  const watches = new Map();
  let count = 0;
  for (const { event, record, case: group } of messages) {
    const key = JSON.stringify([group, event.cluster, event.uuid]);
    const make = () => tasks("uuid", `${event.uuid}`, (_, last) => last)();
    const [recorded, evicted] = watches.get(key) ?? [make(), make()];
    watches.set(key, [recorded, evicted]);
    count++;
    evicted.event(event, null);
    if (!record) continue;
    const { attempts, children, ...expected } = record;
    recorded.event(event, expected);
    const { children: ours, ...actual } = recorded.make();
    assert.deepEqual(actual, expected, event.type);
    if (event.type !== record.type || !isReady(record)) continue;
    const { state, stale } = evicted.make();
    assert.deepEqual([state, stale], [record.state, false], event.type);
  }
  return count;
}

for (const one of cases) test(one.rule, () => assert.ok(check(stream(one)) >= 2));

for (const { rule, root_id, tasks, workflow: expected } of load("workflow.json").cases) {
  test(rule, () => {
    const tree = ({ uuid, children }) => (children[0] ? { [uuid]: children.map(tree) } : uuid);
    const { tasks: roots, critical_path, ...rest } = workflow(root_id, tasks.map((task) => ({ parent_id: null, sent: null, ...task })));
    assert.deepEqual({ ...rest, tasks: roots.map(tree) }, expected);
  });
}

const file = process.env.CONFORMANCE_FILE;
test("each event of simulated clusters", { skip: !file && "no CONFORMANCE_FILE" }, () => {
  const lines = readFileSync(file, "utf8").split("\n").filter(Boolean);
  console.log(`${check(lines.map((line) => JSON.parse(line)))} events`);
});
