import assert from "node:assert/strict";
import { test } from "node:test";
import { describe, flattened, outcome, question, unready } from "../src/revocation.ts";

const task = (uuid: string, state: string, children: readonly ReturnType<typeof leaf>[] = []) => ({ uuid, state, children });
const leaf = (uuid: string, state: string) => ({ uuid, state, children: [] });

test("all tasks of the trees are counted, however deep", () => {
  let deep = leaf("t0", "PENDING") as { uuid: string; state: string; children: never[] };
  for (let number = 1; number < 20_000; number++) deep = { uuid: `t${number}`, state: "STARTED", children: [deep as never] };
  assert.equal(flattened([deep, leaf("x", "SUCCESS")]).length, 20_001);
  assert.deepEqual(flattened([task("a", "SUCCESS", [leaf("b", "PENDING")]), leaf("c", "FAILURE")]).map(({ uuid }) => uuid), ["a", "b", "c"]);
});

test("only tasks that have not ended can be revoked", () => {
  const states = ["PENDING", "RECEIVED", "STARTED", "PROGRESS", "RETRY", "SUCCESS", "FAILURE", "REVOKED", "LOST", "CHECKING"];
  assert.deepEqual(
    unready(states.map((state) => leaf(state, state))).map(({ state }) => state),
    ["PENDING", "RECEIVED", "STARTED", "PROGRESS", "RETRY", "LOST", "CHECKING"],
  );
});

test("the question says how many tasks, and what happens to them", () => {
  const [waits, works] = [leaf("a", "PENDING"), leaf("b", "STARTED")];
  assert.deepEqual(question([waits], false, false), {
    title: "Revoke this task?", button: "Revoke", text: "Workers discard it before it starts.",
  });
  // Workers have received these already: they wait for their time.
  for (const state of ["RECEIVED", "RETRY"]) assert.equal(question([leaf("a", state)], false, false).text, "Workers discard it before it starts.");
  assert.equal(question([works], false, false).text, "It already runs, and goes on.");
  const all = question([waits, works, leaf("c", "RETRY")], false, true);
  assert.equal(all.title, "Revoke 3 tasks of this workflow?");
  assert.equal(all.button, "Revoke 3 tasks");
  assert.equal(all.text, "Workers discard the 2 tasks that wait. There is 1 task that already runs, and goes on.");
  assert.match(question([waits, works], true, true).text, /processes that run them are ended/);
});

test("the outcome is that of the tasks' states", () => {
  const tasks = [leaf("a", "REVOKED"), leaf("b", "SUCCESS"), leaf("c", "STARTED"), leaf("d", "PENDING"), leaf("e", "FAILURE")];
  assert.deepEqual(outcome(["a", "b", "c", "d", "gone"], tasks), { revoked: 1, ended: 2, running: 1, waiting: 1 });
  assert.equal(
    describe(outcome(["a", "b", "c", "d"], tasks)),
    "1 task revoked, 1 task still waits, 1 task still runs, 1 task had ended before.",
  );
  assert.equal(describe(outcome([], tasks)), "No task was left to revoke.");
});
