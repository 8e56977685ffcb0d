// The client's records against the gateway's: after each event both have to be the same.
//
// Reads JSON lines {"event": …, "record": …, "case": …} from the file that CONFORMANCE_FILE names, or from
// tests/conformance/task.json. `event` is one of a stream, `record` the gateway's record of its task right after it,
// as of GET /tasks/{uuid}; null where that is not known. Lines are grouped by `case` and task; without `case` all are of one. The fields `children`
// and `tries` do not follow from events.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { apply } from "../../dist/task.js";

const COMMITTED = fileURLToPath(new URL("../../../../tests/conformance/task.json", import.meta.url));
const file = process.env.CONFORMANCE_FILE ?? COMMITTED;
const MOST_SHOWN = Number(process.env.CONFORMANCE_SHOW ?? 5);

test("each event changes a record as in the gateway", { skip: !existsSync(file) && `no file ${file}` }, () => {
  const records = new Map();
  const told = new Map();
  const failed = [];
  let count = 0;
  for (const line of readFileSync(file, "utf8").split("\n").filter(Boolean)) {
    const { event, record, case: group } = JSON.parse(line);
    const key = JSON.stringify([group, event.cluster, event.uuid]);
    const before = Object.freeze(records.get(key));
    if (!record) {
      records.set(key, apply(before, event)); // it goes on together with the next one
      continue;
    }
    const { tries, children, ...expected } = record;
    const after = apply(before, event);
    const { children: ours, ...actual } = after;
    told.set(key, [...(told.get(key) ?? []), event]);
    count++;
    try {
      assert.deepEqual(actual, expected);
      records.set(key, after);
    } catch (error) {
      const sequence = told.get(key).map(({ type, state, attempt, retries, timestamp, hostname, pid }) =>
        `${type} #${attempt}${retries === undefined ? "" : ` retries=${retries}`} -> ${state} (${timestamp} ${hostname} ${pid})`,
      );
      failed.push(`${key}\n${sequence.join("\n")}\n${error.message}`);
      records.set(key, { ...expected, children });
    }
  }
  console.log(`${count} events of ${told.size} tasks`);
  assert.equal(failed.length, 0, `${failed.length} of ${count} events:\n${failed.slice(0, MOST_SHOWN).join("\n\n")}`);
});
