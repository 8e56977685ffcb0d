import assert from "node:assert/strict";
import { test } from "node:test";
import { matcher, parse } from "../../js/src/filter.ts";
import { isReady, RUNNING, STATES, WAITING } from "../src/states.ts";
import { filterOf } from "../src/task-query.ts";

test("a task waits, runs, is lost or has ended, also in a custom state", () => {
  const [waits, runs] = [WAITING, RUNNING].map((states) => matcher(parse(filterOf([["state", states]]))));
  const found = (passes: typeof waits) => [...STATES, "CANCELLED", "CRUNCHING", "REJECTED-LATER"].filter((state) => passes!({ state }));
  assert.deepEqual(found(waits), ["PENDING", "RECEIVED", "RETRY", "REJECTED", "CANCELLED"]);
  assert.deepEqual(found(runs), ["STARTED", "PROGRESS", "CRUNCHING", "REJECTED-LATER"]);
  for (const state of STATES) assert.equal([waits!({ state }), runs!({ state }), isReady(state), state === "LOST"].filter(Boolean).length, 1, state);
});
