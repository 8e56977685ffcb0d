import assert from "node:assert/strict";
import { test } from "node:test";
import type { Task, WorkflowTask } from "../../js/src/types.ts";
import { allTasks, keysToShow, MAX_EQUAL, nextFailed, pathTo, rowsOf, type Row } from "../src/tree.ts";
import { node } from "./records.ts";
import { cpuMs } from "./cpu.ts";

const none = { opened: new Map<string, boolean>(), hidesIdle: false };
const brief = (rows: readonly Row[]): string[] =>
  rows.map((row) => {
    const what = row.kind === "task" ? row.task.uuid : `${row.name} ×${row.tasks.length}`;
    return `${"  ".repeat(row.depth)}${row.isOpen === null ? "" : row.isOpen ? "▾ " : "▸ "}${what} ${row.position.join("/")}`;
  });
const many = (count: number, fields: (at: number) => Partial<Task> = () => ({})): WorkflowTask[] =>
  Array.from({ length: count }, (_, at) => node(`n${at}`, [], { state: "SUCCESS", ...fields(at) }));

test("children stand below their parents, until they are closed", () => {
  const roots = [node("a", [node("b", [node("c")]), node("d")]), node("e")];
  assert.deepEqual(brief(rowsOf(roots, none)), ["▾ a 1/2", "  ▾ b 1/2", "    c 1/1", "  d 2/2", "e 2/2"]);
  assert.deepEqual(brief(rowsOf(roots, { ...none, opened: new Map([["b", false]]) })), ["▾ a 1/2", "  ▸ b 1/2", "  d 2/2", "e 2/2"]);
  assert.deepEqual(allTasks(roots).map(({ uuid }) => uuid), ["a", "b", "c", "d", "e"]);
});

test("many equal siblings are one row; failed ones stand before it", () => {
  assert.equal(rowsOf([node("r", many(MAX_EQUAL))], none).length, MAX_EQUAL + 1);
  const equal = many(30, (at) => (at === 7 ? { state: "FAILURE" } : {}));
  const roots = [node("r", [...equal, node("x", [], { name: "shop.ship" })])];
  assert.deepEqual(brief(rowsOf(roots, none)), ["▾ r 1/1", "  n7 1/3", "  ▸ shop.pay ×29 2/3", "  x 3/3"]);
  const opened = rowsOf(roots, { ...none, opened: new Map([["r×shop.pay", true]]) });
  assert.deepEqual(brief(opened).slice(1, 5), ["  n7 1/3", "  ▾ shop.pay ×29 2/3", "    n0 1/29", "    n1 2/29"]);
  assert.equal(opened.length, 33);
});

test("failures below a sibling count; too many failures are folded, too", () => {
  const deep = many(30).map((task, at) => (at === 3 ? { ...task, children: [node("bad", [], { state: "LOST" })] } : task));
  assert.deepEqual(brief(rowsOf([node("r", deep)], none)), ["▾ r 1/1", "  ▾ n3 1/2", "    bad 1/1", "  ▸ shop.pay ×29 2/2"]);
  const failed = rowsOf([node("r", many(50, () => ({ state: "FAILURE" })))], none);
  assert.equal(failed.length, 1 + MAX_EQUAL + 1);
});

test("idle tasks are left out, parents of others are not", () => {
  const roots = [node("a", [node("b", [node("c", [], { state: "STARTED" })]), node("d", [], { state: "SUCCESS" })]), node("e")];
  assert.deepEqual(brief(rowsOf(roots, { ...none, hidesIdle: true })), ["▾ a 1/1", "  ▾ b 1/1", "    c 1/1"]);
  const failed = [node("a", [node("b", [], { state: "FAILURE" }), node("c", [], { state: "PROGRESS" }), node("d", [], { state: "RETRY" })])];
  assert.deepEqual(brief(rowsOf(failed, { ...none, hidesIdle: true })), ["▾ a 1/1", "  b 1/2", "  c 2/2"]);
});

test("the row of a task can be brought in sight", () => {
  const roots = [node("r", [node("p", many(30))])];
  assert.deepEqual(pathTo(roots, "n4").map(({ uuid }) => uuid), ["r", "p", "n4"]);
  assert.deepEqual(pathTo(roots, "gone"), []);
  const opened = new Map([["r", false], ...keysToShow(roots, "n4").map((key) => [key, true] as const)]);
  assert.ok(rowsOf(roots, { ...none, opened }).some((row) => row.kind === "task" && row.task.uuid === "n4"));
});

test("the next failed task, from the top again after the last", () => {
  const failed = { state: "FAILURE" };
  const roots = [node("a", [node("b", [], failed), node("c")]), node("d", [], { state: "LOST" })];
  assert.equal(nextFailed(roots, null)?.uuid, "b");
  assert.equal(nextFailed(roots, "b")?.uuid, "d");
  assert.equal(nextFailed(roots, "d")?.uuid, "b");
  assert.equal(nextFailed([node("a")], null), null);
});

test("the same uuid at two brokers has two rows", () => {
  const keys = rowsOf([node("a", [], { cluster: "eu" }), node("a", [], { cluster: "us" })], none).map(({ key }) => key);
  assert.equal(new Set(keys).size, 2);
});

test("a workflow of 20,000 tasks", () => {
  const roots = [node("r", many(20_000, (at) => ({ name: `n${at % 3_000}` })))];
  const start = cpuMs();
  assert.equal(rowsOf(roots, none).length, 20_001);
  const took = cpuMs() - start;
  assert.ok(took < 1_000, `${took} ms`);
});
