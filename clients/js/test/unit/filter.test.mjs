import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { matcher, parse, union } from "../../dist/filter.js";

const table = JSON.parse(readFileSync(new URL("../../../../tests/conformance/filter.json", import.meta.url), "utf8"));

/** The filter of a query string: values between commas, as the gateway splits them. */
function fromQuery(query) {
  const filter = {};
  for (const [field, value] of new URLSearchParams(query)) (filter[field] ??= []).push(...value.split(","));
  return filter;
}

for (const { rule, query, matches, misses } of table.cases) {
  test(rule, () => {
    const passes = matcher(parse(fromQuery(query)));
    for (const event of matches) assert.ok(passes(event), `${query} is to pass ${JSON.stringify(event)}`);
    for (const event of misses) assert.ok(!passes(event), `${query} is to stop ${JSON.stringify(event)}`);
  });
}

for (const { query, code } of table.refused) {
  test(`refused: ${query}: ${code}`, () => {
    assert.throws(() => parse(fromQuery(query)), (error) => error instanceof TypeError || error instanceof RangeError);
  });
}

test("any of several filters is enough, none of none", () => {
  const passes = matcher(parse([{ type: "task-sent", name: "a" }, { uuid: ["u", "v"] }]));
  assert.ok(passes({ type: "task-sent", name: "a" }));
  assert.ok(passes({ type: "task-failed", uuid: "v" }));
  assert.ok(!passes({ type: "task-failed", name: "a" }));
  assert.ok(!matcher(parse([]))({ type: "task-sent" }));
  assert.ok(matcher(parse([{}]))({ type: "task-sent" }));
});

test("a field that is undefined is not given, an empty list is a mistake", () => {
  assert.deepEqual(parse({ name: undefined, type: "t" }), [{ type: ["t"] }]);
  assert.throws(() => parse({ uuid: [] }), TypeError);
  assert.throws(() => parse({ uuid: [7] }), TypeError);
});

test("the bounds are the gateway's", () => {
  const ids = (count, suffix = "") => Array.from({ length: count }, (_, index) => `u${index}${suffix}`);
  assert.equal(parse({ uuid: ids(1000) })[0].uuid.length, 1000);
  assert.equal(parse([{ uuid: ids(50, "*") }, { name: ids(50, "?") }]).length, 2);
  assert.throws(() => parse({ uuid: ids(1001) }), RangeError);
  assert.throws(() => parse({ uuid: ids(101, "*") }), RangeError);
  assert.throws(() => parse({ uuid: "u".repeat(1001) }), TypeError);
  assert.throws(() => parse(ids(101).map((uuid) => ({ uuid, name: "n" }))), RangeError);
});

test("the filters of a stream are as few as is easy, and pass what any of them does", () => {
  const watched = (...filters) => filters.map((filter) => ({ filters: [filter] }));
  assert.deepEqual(union([]), []);
  assert.deepEqual(union(watched({ uuid: ["a"] }, { uuid: ["b"] }, { root_id: ["r"] })), [
    { uuid: ["a", "b"] },
    { root_id: ["r"] },
  ]);
  assert.deepEqual(union(watched({ name: ["!a"] }, { name: ["b"] })), [{ name: ["!a"] }, { name: ["b"] }]);
  assert.deepEqual(union(watched({ name: ["a"], type: ["t"] }, { name: ["a"] }, { name: ["a"], type: ["t"] })), [
    { name: ["a"], type: ["t"] },
    { name: ["a"] },
  ]);
  assert.ok(matcher(union(watched({}, { uuid: ["a"] })))({ type: "any" }));
  const many = Array.from({ length: 1001 }, (_, index) => ({ uuid: [`u${index}`] }));
  assert.equal(union(watched(...many)), undefined, "more than the gateway takes: everything");
});
