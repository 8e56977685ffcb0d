import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { counts, matcher, parse } from "../../dist/filter.js";

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
  assert.deepEqual(counts(parse({ uuid: ids(1000) })), [1000, 0]);
  assert.deepEqual(counts(parse([{ uuid: ids(50, "*") }, { name: ids(50, "?") }])), [100, 100]);
  assert.throws(() => parse({ uuid: ids(1001) }), RangeError);
  assert.throws(() => parse({ uuid: ids(101, "*") }), RangeError);
  assert.throws(() => parse({ uuid: "u".repeat(1001) }), RangeError);
});

test("many stars take no long time", () => {
  const passes = matcher(parse({ name: `${"a*".repeat(30)}b` }));
  const startedAtMs = performance.now();
  assert.ok(!passes({ name: "a".repeat(5000) }));
  assert.ok(performance.now() - startedAtMs < 1000);
});

test("digits behind a star are digits", () => {
  const passes = matcher(parse({ name: "a*0*1*2" }));
  assert.ok(passes({ name: "ax0y1z2" }));
  assert.ok(!passes({ name: "ax1y0z2" }));
});
