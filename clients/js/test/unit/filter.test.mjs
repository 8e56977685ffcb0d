import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { escape, fits, matcher, parse, union } from "../../dist/filter.js";
import { escape as exported } from "../../dist/index.js";
import { tasks } from "../../dist/models.js";

const table = JSON.parse(readFileSync(new URL("../../../../tests/conformance/filter.json", import.meta.url), "utf8"));

/** The filter of a query string: values between commas that are not escaped, as the gateway splits them. */
function fromQuery(query) {
  const filter = {};
  for (const [field, value] of new URLSearchParams(query)) {
    const values = [""];
    for (const [sign] of value.matchAll(/\\[\\,*?!]| *, *|[^]/g)) {
      if (sign.trim() === ",") values.push("");
      else values[values.length - 1] += sign;
    }
    (filter[field] ??= []).push(...values);
  }
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

test("a comma needs no escape here, and may have one", () => {
  for (const name of ["a,b", "a\\,b"]) {
    const passes = matcher(parse({ name }));
    assert.ok(passes({ name: "a,b" }));
    for (const other of ["a", "b", "a\\,b", "a\\"]) assert.ok(!passes({ name: other }), other);
  }
});

test("an escaped text matches itself and nothing else", () => {
  assert.equal(exported, escape);
  const signs = [..."aab.*?![]\\\\\\,,^$+(){}|-/ \n\u2028é😀", "\ud83d", "\ude00"];
  let seed = 1;
  const below = (end) => (seed = (seed * 48271) % 0x7fffffff) % end;
  const draw = () => Array.from({ length: below(6) }, () => signs[below(signs.length)]).join("");
  for (let round = 0; round < 3_000; round++) {
    const text = draw() || "!";
    const at = below(text.length + 1);
    const near = [text.slice(0, at) + text.slice(at + 1), text.slice(0, at) + signs[below(signs.length)] + text.slice(at)];
    const others = [...near, `\\${text}`, `${text}\\`, `!${text}`, escape(text), draw(), draw(), ...text.split(",")];
    const passes = matcher(parse({ name: escape(text) }));
    const stops = matcher(parse({ name: `!${escape(text)}` }));
    const begins = matcher(parse({ name: `${escape(text)}*` }));
    const watches = matcher(tasks("uuid", text, () => null)().filters);
    const any = matcher(parse({ name: [text, ...others].filter(Boolean).map(escape) }));
    for (const name of [text, ...others]) {
      const which = JSON.stringify([text, name]);
      assert.equal(passes({ name }), name === text, which);
      assert.equal(watches({ uuid: name }), name === text, which);
      assert.equal(stops({ name }), name !== text, which);
      // A surrogate pair is one character, and half of it is not its beginning.
      if (!/[\ud800-\udfff]/.test(text)) assert.equal(begins({ name }), name.startsWith(text), which);
      if (name) assert.ok(any({ name }), which);
    }
  }
});

test("escaped wildcards are not counted as wildcards, and an escape counts as one character", () => {
  const literal = Array.from({ length: 1000 }, (_, index) => `${index}\\*\\?`);
  assert.equal(parse({ uuid: literal })[0].uuid.length, 1000);
  assert.deepEqual(union(literal.map((uuid) => ({ filters: [{ uuid: [uuid] }] }))), [{ uuid: literal }]);
  assert.throws(() => parse({ uuid: literal.slice(0, 101).map((id) => `${id}\\\\*`) }), RangeError);
  assert.ok(parse({ uuid: escape("*".repeat(1000)) }));
  assert.throws(() => parse({ uuid: escape("*".repeat(1001)) }), TypeError);
});

test("a watch of a task or a workflow wants an id", () => {
  for (const id of [undefined, null, "", 7]) assert.throws(() => tasks("uuid", id, () => null), TypeError);
});

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
  assert.throws(() => parse({ nmae: "a" }), /invalid nmae=a: expected uuid,/);
  assert.throws(() => parse({ uuid: "!" }), /invalid uuid=!: /);
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
  assert.deepEqual(union(watched({ uuid: ["a", "b"] }, { uuid: ["b", "c"] })), [{ uuid: ["a", "b", "c"] }]);
  assert.deepEqual(union(watched({ uuid: ["a"] }, { uuid: ["\\!b"] })), [{ uuid: ["a", "\\!b"] }]);
  assert.ok(matcher(union(watched({}, { uuid: ["a"] })))({ type: "any" }));
  for (const value of ['"!', "],", "{}", '"],"']) {
    assert.ok(matcher(union(watched({ uuid: ["a"] }, { uuid: [value] })))({ uuid: value }), value);
  }
  assert.deepEqual(
    union(watched({ uuid: ["a"], cluster: ["eu"] }, { uuid: ["b"], cluster: ["eu"] }, { uuid: ["c"], cluster: ["us"] })),
    [{ uuid: ["a", "b"], cluster: ["eu"] }, { uuid: ["c"], cluster: ["us"] }],
  );
  assert.deepEqual(union(watched({ uuid: ["a"], type: ["!t"] }, { uuid: ["b"], type: ["!t"] })), [
    { uuid: ["a", "b"], type: ["!t"] },
  ]);
  assert.deepEqual(union(watched({ uuid: ["a", "!b"] }, { uuid: ["c"] }, { uuid: ["a", "!b"] })), [
    { uuid: ["a", "!b"] },
    { uuid: ["c"] },
  ]);
});

test("merged filters pass exactly what one of them passes", () => {
  let seed = 7;
  const draw = (list) => list[(seed = (seed * 48271) % 0x7fffffff) % list.length];
  const filter = () => {
    const made = {};
    for (const field of ["uuid", "name", "type", "cluster"]) if (draw([0, 1])) made[field] = [draw(["a", "b", "!a", "?", "a*"]), draw(["a", "c", "!b"])];
    return made;
  };
  for (let round = 0; round < 500; round++) {
    const filters = Array.from({ length: 6 }, filter);
    const merged = matcher(union(filters.map((one) => ({ filters: [one] }))));
    const each = filters.map((one) => matcher([one]));
    for (let times = 0; times < 30; times++) {
      const event = {};
      for (const field of ["uuid", "name", "type", "cluster"]) if (draw([0, 1, 1])) event[field] = draw(["a", "b", "c", "ab"]);
      assert.equal(merged(event), each.some((passes) => passes(event)), JSON.stringify([filters, event]));
    }
  }
});

test("what the gateway refuses does not fit: values, wildcards, filters, bytes", () => {
  const of = (count, make) => Array.from({ length: count }, (_, index) => make(index));
  assert.ok(fits([{ uuid: of(1000, (index) => `u${index}`) }]));
  assert.ok(!fits([{ uuid: of(1001, (index) => `u${index}`) }]));
  assert.ok(!fits([{ uuid: of(101, (index) => `u${index}*`) }]));
  assert.ok(!fits(of(101, (index) => ({ uuid: [`u${index}`], name: [`n${index}`] }))));
  assert.ok(fits([{ uuid: of(100, () => "é".repeat(500)) }]));
  assert.ok(!fits([{ uuid: of(100, () => "é".repeat(1000)) }]), "the longest body of a request is 256 KiB");
  assert.throws(() => parse({ uuid: of(1000, (index) => `${index}`.padEnd(1000)) }), RangeError);
});

test("many stars take linear time", () => {
  const text = "a".repeat(100_000);
  for (const pattern of [`${"*a".repeat(400)}*b`, `${"*a".repeat(400)}b`, `${"*?".repeat(400)}b`, `*${"a?".repeat(20)}*a*b`]) {
    const passes = matcher(parse({ name: pattern }));
    assert.ok(!passes({ name: "aab" }));
    assert.ok(passes({ name: `${text.slice(0, 4_000)}b` }), pattern.slice(0, 20));
    const begun = process.cpuUsage();
    for (let times = 0; times < 10; times++) assert.ok(!passes({ name: text }));
    const ms = process.cpuUsage(begun).user / 10_000;
    assert.ok(ms < 150, `${pattern.slice(0, 20)}… takes ${ms} ms`);
  }
  assert.ok(matcher(parse({ name: "*ab*bc*" }))({ name: "xabbcx" }));
  assert.ok(!matcher(parse({ name: "*ab*bc*" }))({ name: "xabcx" }));
  assert.ok(matcher(parse({ name: "a*a" }))({ name: "aa" }));
  assert.ok(!matcher(parse({ name: "a*a" }))({ name: "a" }));
});
