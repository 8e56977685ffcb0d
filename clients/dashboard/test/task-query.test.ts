import assert from "node:assert/strict";
import { test } from "node:test";
import { literal, parseQuery } from "../src/route.ts";
import { comparedOf, conditionsOf, filterOf, partsOf, patternsOf, suggestion } from "../src/task-query.ts";

test("patterns are separated by commas that are not escaped", () => {
  assert.deepEqual(patternsOf("a,b"), ["a", "b"]);
  assert.deepEqual(patternsOf("a\\,b , !c*,,"), ["a\\,b", "!c*"]);
  for (const text of ["a,b", "\\", "x*y?", "!a", ",", "a\\,b"]) assert.deepEqual(patternsOf(literal(text)), [literal(text)]);
});

test("a query is the filter and the conditions of the client", () => {
  const query = parseQuery("?name=shop.*,!shop.x&state=FAILURE&runtime>=5&runtime<9&attempt=2&q=order+1&since=10m&stale=0&sort=-runtime&by=x");
  assert.deepEqual(filterOf(query), { name: ["shop.*", "!shop.x"], state: ["FAILURE"] });
  assert.deepEqual(conditionsOf(query), { q: "order 1", since: "10m", stale: false, where: { runtime: [">=5", "<9"], attempt: ["=2"] } });
  assert.deepEqual([filterOf([]), conditionsOf([])], [{}, {}]);
  assert.deepEqual(comparedOf(parseQuery("?total>=1&runtime>3"), ["total"]), { total: [">=1"] });
});

test("each part of a filter can be taken away", () => {
  const query = parseQuery("?name=a,b&state=FAILURE&runtime>5&q=x&since=1h&sort=oldest");
  const parts = partsOf(query);
  assert.deepEqual(parts.map(({ label }) => label), ["name:a", "name:b", "state:FAILURE", "runtime>5", "“x”", "since 1h"]);
  assert.deepEqual(filterOf(parts[0]!.rest), { name: ["b"], state: ["FAILURE"] });
  let left = query;
  for (let part; (part = partsOf(left)[0]); ) left = part.rest;
  assert.deepEqual(left, [["sort", "oldest"]]);
});

test("a value that was meant", () => {
  const states = { FAILURE: 23, SUCCESS: 1_463 };
  assert.equal(suggestion("failure", states), "FAILURE");
  assert.equal(suggestion("FAILED", states), "FAILURE");
  assert.equal(suggestion("charge", { "shop.charge": 3, "shop.pay": 9 }), "shop.charge");
  assert.equal(suggestion("x", states), null);
  assert.equal(suggestion("*", states), null);
});
