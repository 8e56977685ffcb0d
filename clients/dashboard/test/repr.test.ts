import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { parseRepr, type Item, type Node } from "../src/repr.ts";
import { python } from "./python.ts";

/** A tree in the form of `canonical` of the Python script below. */
function canonical(node: Node): unknown {
  switch (node.kind) {
    case "str":
      return ["str", node.value];
    case "bytes":
      return ["bytes", node.value];
    case "number":
      return ["number", node.text.replace(/^\(|\)$/g, "")];
    case "dict":
      return ["dict", node.items.map(({ key, value }) => [canonical(key!), canonical(value)])];
    case "list":
    case "tuple":
      return [node.kind, node.items.map(({ value }) => canonical(value))];
    case "set":
      return ["set", node.items.map(({ value }) => JSON.stringify(canonical(value))).sort()];
    case "call":
      if (node.name === "set" && !node.items.length) return ["set", []];
      return [node.name, node.items.map(({ value }) => canonical(value))];
    default:
      return [node.kind, node.text];
  }
}

const brief = (node: Node | null): unknown => {
  if (!node) return null;
  if (!("items" in node)) return node.cut ? `${node.text}|cut` : node.text;
  const item = ({ key, value }: Item): unknown => (key ? [brief(key), brief(value)] : brief(value));
  return { [(node.name ?? node.kind) + (node.cut ? "|cut" : "")]: node.items.map(item) };
};
const parsed = (text: string): unknown => brief(parseRepr(text));

test("values", () => {
  assert.deepEqual(parsed("(10485,)"), { tuple: ["10485"] });
  assert.deepEqual(parsed("{'amount': 59.4, 'currency': 'EUR'}"), {
    dict: [["'amount'", "59.4"], ["'currency'", "'EUR'"]],
  });
  assert.deepEqual(parsed("[None, True, False, Ellipsis, inf, -nan, 1e+16, (1+2j), -0.0]"), {
    list: ["None", "True", "False", "Ellipsis", "inf", "-nan", "1e+16", "(1+2j)", "-0.0"],
  });
  assert.deepEqual([parsed("()"), parsed("[]"), parsed("{}"), parsed("set()")], [
    ...[{ tuple: [] }, { list: [] }, { dict: [] }, { set: [] }],
  ]);
  assert.deepEqual(parsed("frozenset({1, 2})"), { frozenset: [{ set: ["1", "2"] }] });
});

test("objects", () => {
  assert.deepEqual(parsed("<Foo at 0x7f1>"), "<Foo at 0x7f1>");
  assert.deepEqual(parsed("[<bound method A.f of <A object at 0x7f>>, <function f.<locals>.<lambda> at 0x1>, 1]"), {
    list: ["<bound method A.f of <A object at 0x7f>>", "<function f.<locals>.<lambda> at 0x1>", "1"],
  });
  assert.deepEqual(parsed("[<Signature (a: int) -> str>, <Color.RED: 1>]"), {
    list: ["<Signature (a: int) -> str>", "<Color.RED: 1>"],
  });
  assert.deepEqual(parsed("[Decimal('1.5'), datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc), Point(x=1, y=[2])]"), {
    list: [
      { Decimal: ["'1.5'"] },
      { "datetime.datetime": ["2026", "1", "1", ["tzinfo", "datetime.timezone.utc"]] },
      { Point: [["x", "1"], ["y", { list: ["2"] }]] },
    ],
  });
  assert.deepEqual(parsed("{'a': range(0, 3), 'b': Color.RED}"), { dict: [["'a'", { range: ["0", "3"] }], ["'b'", "Color.RED"]] });
  assert.deepEqual(parsed("[1 + x, 'a' 'b', 2026-01-01 10:00]"), { list: ["1 + x", "'a' 'b'", "2026-01-01 10:00"] });
});

test("what Celery has cut", () => {
  assert.deepEqual(parsed("('xxx...',)"), { tuple: ["'xxx...'|cut"] });
  assert.deepEqual(parsed("(50, 51, 5..., ...)"), { "tuple|cut": ["50", "51", "5...|cut", "..."] });
  assert.deepEqual(parsed("{'a': {'b': {'c': [...]}}}"), {
    dict: [["'a'", { dict: [["'b'", { dict: [["'c'", { "list|cut": ["..."] }]] }]] }]],
  });
  assert.deepEqual(parsed("{'x': {...}, ...}"), { "dict|cut": [["'x'", { "set|cut": ["..."] }], "..."] });
  assert.deepEqual(parsed("{'longlong...', ...}"), { "set|cut": ["'longlong...'|cut", "..."] });
  assert.deepEqual(parsed("[<__main__.A objec..., ...]"), { "list|cut": ["<__main__.A objec...|cut", "..."] });
  assert.deepEqual(parsed("(1, [2, 'abc..."), { "tuple|cut": ["1", { "list|cut": ["2", "'abc...|cut"] }] });
  assert.deepEqual(parsed("{'a': 1, 'b': ..."), { "dict|cut": [["'a'", "1"], ["'b'", "..."]] });
  assert.deepEqual(parsed("[1, <Recursion on list with id=139657809788992>]"), {
    list: ["1", "<Recursion on list with id=139657809788992>"],
  });
});

test("line breaks and control characters in a string, as Celery leaves them", () => {
  const node = parseRepr("{'k': 'a\\'b\"c\n\x00\u202e'}");
  assert.equal(node?.kind === "dict" && node.items[0]?.value.kind === "str" && node.items[0].value.value, "a'b\"c\n\x00\u202e");
});

test("texts that are no repr", () => {
  const texts = ["", " ", "hello", "don't worry", "(1, 2", "1, 2", "]", "[1)", "{1: 2, 3}", "{'a': }", "[,]", "'abc", "a b c", "{1:2:3}"];
  for (const text of [...texts, "[1,,2]", "(a", "<Foo", "$", "-", "…", "["]) assert.equal(parsed(text) === null || text === "{1:2:3}" || text === "…", true, text);
});

test("every text is read in one pass", () => {
  const times = (text: string): number => {
    const start = process.cpuUsage();
    parseRepr(text);
    return process.cpuUsage(start).user / 1_000;
  };
  const size = 200_000;
  const hostile = ["(", "[[", "{", "<", "<<a>", "a(", "'\\", '"', "1", "1.", "-", ".", "a.", "...", "1e", "(1,", "{1:", "\\", "<-", "b", "rb'", "x=", ", ", "1_", "1+", "1x"];
  for (const part of hostile) {
    for (const end of ["", "...", ")"]) assert.ok(times(part.repeat(size / part.length) + end) < 1_000, part);
  }
  assert.equal(parseRepr("[".repeat(65) + "]".repeat(65)), null);
  assert.ok(parseRepr("[".repeat(64) + "]".repeat(64)));
});

const SCRIPT = `
import ast, json, random, sys
def canonical(value):
    kind = type(value).__name__
    if value is None or value is Ellipsis or isinstance(value, bool): return ["constant", repr(value)]
    if isinstance(value, (int, float, complex)): return ["number", repr(value).strip("()")]
    if isinstance(value, bytes): return [kind, value.decode("latin-1")]
    if isinstance(value, str): return [kind, value]
    if isinstance(value, dict): return [kind, [[canonical(key), canonical(each)] for key, each in value.items()]]
    return [kind, [canonical(each) for each in value]]
rng = random.Random(int(sys.argv[1]))
texts = ["", "a", "it's", 'say "hi"', "\\\\", "\\n\\t\\r\\0\\x7f", "\\u202e\\u200b", "\\ud800", "\\U0001f600", "...", "(", "<x>", "{'a': 1}", "\\xe9", "\\\\'"]
def value(depth, hashable=False):
    kinds = "none bool int float complex str bytes tuple" + ("" if hashable else " list dict set")
    kind = rng.choice(kinds.split())
    size = rng.randrange(4) if depth else 0
    if kind == "none": return None
    if kind == "bool": return rng.random() < .5
    if kind == "int": return rng.choice([0, -1, 10**30, rng.randrange(-999, 999)])
    if kind == "float": return rng.choice([0.0, -0.0, 1e300, 1e-7, rng.uniform(-9, 9)])
    if kind == "complex": return complex(rng.randrange(1, 3), rng.choice([1.5, -2.0]))
    if kind == "str": return "".join(rng.choice(texts) for _ in range(rng.randrange(4)))
    if kind == "bytes": return bytes(rng.randrange(256) for _ in range(rng.randrange(6)))
    if kind == "dict": return {value(depth - 1, True): value(depth - 1) for _ in range(size)}
    items = [value(depth - 1, hashable or kind == "set") for _ in range(size)]
    return {"tuple": tuple, "list": list, "set": set}[kind](items)
escapes = [r"'\\x41\\101\\u0041\\U00000041\\7'", r"r'a\\n'", r"b'\\xff\\377\\u0041'", r'"\\q\\
z"', "u'x'", "rb'\\\\\\\\'", r"'\\a\\b\\f\\v\\\\\\'\\"'"]
written = [text for text in escapes] + [repr(value(4)) for _ in range(3000)]
print(json.dumps([[text, canonical(ast.literal_eval(text) if text != "set()" else set())] for text in written
                  if "set()" == text or "set()" not in text]))
`;

test("generated values have the same tree as with ast.literal_eval of Python", (context) => {
  const seed = String(process.env["SEED"] ?? 20261130);
  const { stdout, stderr, status } = spawnSync(python(), ["-W", "ignore", "-c", SCRIPT, seed], { encoding: "utf8", maxBuffer: 1 << 26 });
  assert.equal(status, 0, stderr);
  const cases = JSON.parse(stdout) as [string, unknown][];
  assert.ok(cases.length > 2_000);
  context.diagnostic(`${cases.length} values`);
  for (const [text, expected] of cases) {
    const node = parseRepr(text);
    assert.ok(node, text);
    assert.deepEqual(canonical(node), sorted(expected), text);
  }
});

/** Sort the items of sets. */
function sorted(value: unknown): unknown {
  if (!Array.isArray(value)) return value;
  const [kind, items] = value as [unknown, unknown];
  if (kind !== "set" || !Array.isArray(items)) return value.map(sorted);
  return ["set", items.map((item) => JSON.stringify(sorted(item))).sort()];
}
