import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { parse } from "../../js/src/filter.ts";
import { literal, type Query } from "../src/route.ts";
import { shell, split, text, watchIt, type Target, type WatchIt } from "../src/watchit.ts";
import { python } from "./python.ts";

const BASE = "http://[::1]:8555/celery/";
const HOSTILE = [
  "5a37c2e1-0000-4000-8000-00000000009f",
  "it's",
  "$(touch /tmp/pwned) `id` \\",
  'a"b\\"c\\',
  "; rm -rf / #",
  "-rf",
  "--uuid=x",
  "!important",
  "a,b*c?d\\e",
  "line\nbreak\r\ttab",
  "\x1b[201~\x03\x15evil\n",
  "\u202egnp.exe\u2028x\u2029",
  "</script><script>alert(1)</script>",
  "%41%zz ${TOKEN} %s",
  "日本語 🎉 \u{e0001}",
  "'''\"\"\"",
  "{{x}} #{y} \\u0041 \\x41 \\N{DASH}",
  " leading and trailing ",
  "~/x [a-z]* {1..3}",
];

function linesOf({ lines }: WatchIt): { readonly [id: string]: string } {
  return Object.fromEntries(lines.map(({ id, text }) => [id, text]));
}

function run(program: string, args: readonly string[], input?: string): string {
  const done = spawnSync(program, args, { encoding: "utf8", input, env: { ...process.env, TOKEN: "s3cret", LC_ALL: "C.UTF-8" } });
  assert.equal(done.status, 0, `${program}: ${done.stderr}`);
  return done.stdout;
}

/** The arguments that bash gives to a command. */
function argumentsOf(line: string, command: string): string[] {
  const shown = `${command}() { for each in "$@"; do printf '%s\\0' "$each"; done; }\n${line}\n`;
  return run("bash", ["--noprofile", "--norc", "-s"], shown).split("\0").slice(0, -1);
}

test("a shell takes a quoted text as one word of the same text", () => {
  const line = `show ${HOSTILE.map(shell).join(" ")}`;
  assert.deepEqual(argumentsOf(line, "show"), HOSTILE);
  for (const word of HOSTILE.map(shell)) assert.doesNotMatch(word, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
});

test("without such characters, sh takes them, too", () => {
  const plain = HOSTILE.filter((each) => !shell(each).startsWith("$'"));
  const out = run("sh", ["-c", `for each in ${plain.map(shell).join(" ")}; do printf '%s\\0' "$each"; done`]);
  assert.deepEqual(out.split("\0").slice(0, -1), plain);
});

test("JavaScript and Python read a literal as the same text", () => {
  const list = (language: "javascript" | "python") => `[${HOSTILE.map((each) => text(each, language)).join(", ")}]`;
  assert.deepEqual((0, eval)(list("javascript")), HOSTILE);
  const out = run(python(), ["-c", `import json, sys\nsys.stdout.write(json.dumps(eval(sys.stdin.read())))`], list("python"));
  assert.deepEqual(JSON.parse(out), HOSTILE);
  for (const literal of [list("javascript"), list("python")]) {
    assert.doesNotMatch(literal, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}<]/u);
  }
});

test("curl asks for this task only, whatever its id", () => {
  for (const id of HOSTILE) {
    const { curl } = linesOf(watchIt({ kind: "task", id, cluster: "eu" }, BASE, true));
    const [buffering, flag, header, url, ...rest] = argumentsOf(curl!, "curl");
    assert.deepEqual([buffering, flag, header, rest], ["--no-buffer", "-H", "Authorization: Bearer s3cret", []]);
    const asked = new URL(url!);
    assert.equal(asked.origin + asked.pathname, "http://[::1]:8555/celery/events");
    assert.deepEqual(Object.fromEntries(asked.searchParams), {
      uuid: literal(id), cluster: "eu", snapshot: "1", until: "ready", format: "ndjson",
    });
  }
});

test("tail has its real options, and the value of each", () => {
  for (const id of HOSTILE) {
    const { tail } = linesOf(watchIt({ kind: "workflow", id }, BASE, false));
    assert.match(tail!, /^celery-gateway tail /);
    const given = argumentsOf(tail!.replace("celery-gateway", "gateway"), "gateway");
    assert.deepEqual(given, ["tail", "--until", "ready", `--root-id=${literal(id)}`, "http://[::1]:8555/celery"]);
  }
  assert.match(linesOf(watchIt({ kind: "task", id: "x" }, BASE, true))["tail"]!, /^GATEWAY_TOKEN="\$TOKEN" celery-gateway tail /);
  assert.equal(linesOf(watchIt({ kind: "task", id: "a\0b" }, BASE, false))["tail"], undefined);
});

/** Run the JavaScript lines with a client that records what it is asked for. */
function asked(target: Target): unknown[] {
  const calls: unknown[] = [];
  const record = (name: string) => (...args: unknown[]) => (calls.push(name, ...args), { subscribe: () => {} });
  const connect = (options: unknown) => (calls.push(options), { task: record("task"), workflow: record("workflow"), events: record("events") });
  const { javascript } = linesOf(watchIt(target, BASE, true));
  new Function("connect", "process", javascript!.replace(/^import .*$/m, ""))(connect, { env: { TOKEN: "s3cret" } });
  return calls;
}

test("JavaScript watches this task, workflow or filter", () => {
  const options = { url: "http://[::1]:8555/celery", token: "s3cret" };
  for (const id of HOSTILE) {
    assert.deepEqual(asked({ kind: "task", id }), [options, "task", id]);
    assert.deepEqual(asked({ kind: "workflow", id, cluster: id }), [options, "workflow", id, { cluster: id }]);
  }
  const query: Query = [["name", "shop.*,!shop.internal.*"], ["name", "a\\,b"], ["state", "FAILURE"], ["since", "10m"]];
  const [, , filter, at] = asked({ kind: "filter", query });
  assert.deepEqual(filter, { name: ["shop.*", "!shop.internal.*", "a\\,b"], state: ["FAILURE"] });
  assert.deepEqual(at, { since: "10m" });
  parse(filter as never);
});

test("React uses the client's hooks", () => {
  for (const [target, hook] of [
    [{ kind: "task", id: "x" }, 'useTask("x")'],
    [{ kind: "workflow", id: "x", cluster: "eu" }, 'useWorkflow("x", { cluster: "eu" })'],
    [{ kind: "filter", query: [["name", "a"]] }, 'useEvents({ name: ["a"] })'],
  ] as const) {
    const { react } = linesOf(watchIt(target, BASE, false));
    assert.ok(react!.includes(hook), react);
    assert.match(react!, /import \{ GatewayProvider, use\w+ \} from "@celery-gateway\/client\/react";/);
  }
});

test("Python asks for this task only, whatever its id", () => {
  const script = `
import json, sys, types
found = []
class Response:
    def __enter__(self): return self
    def __exit__(self, *args): pass
    def raise_for_status(self): pass
    def iter_lines(self): return []
def stream(method, url, params, headers, timeout):
    found.append([method, url, params, headers])
    return Response()
sys.modules["httpx"] = types.SimpleNamespace(stream=stream)
for code in json.load(sys.stdin):
    exec(compile(code, "lines", "exec"), {})
json.dump(found, sys.stdout)
`;
  const codes = HOSTILE.map((id) => linesOf(watchIt({ kind: "task", id }, BASE, true))["python"]);
  const found = JSON.parse(run(python(), ["-c", script], JSON.stringify(codes))) as unknown[];
  assert.deepEqual(found, HOSTILE.map((id) => [
    "GET", "http://[::1]:8555/celery/events",
    [["uuid", literal(id)], ["snapshot", "1"], ["until", "ready"], ["format", "ndjson"]],
    { Authorization: "Bearer s3cret" },
  ]));
});

test("Python prints the tasks of the snapshot and the events, not the gateway's messages", () => {
  const messages = [
    { type: "gateway-open", id: "1", resume: "live" },
    { type: "gateway-status", id: "1", sources: [] },
    { type: "gateway-snapshot", id: "1~", tasks: [{ type: "task-succeeded", name: "pay", state: "SUCCESS" }], workers: [], done: false },
    { type: "gateway-snapshot", id: "1", tasks: [{ type: "task-started", name: "pack", state: "STARTED" }], workers: [], done: true },
    { type: "task-succeeded", id: "2", name: "pack", state: "SUCCESS" },
    { type: "gateway-close", id: "2", reason: "ready" },
  ];
  const script = `
import contextlib, json, sys, types
lines, code = json.load(sys.stdin)
response = types.SimpleNamespace(raise_for_status=lambda: None, iter_lines=lambda: lines)
sys.modules["httpx"] = types.SimpleNamespace(stream=lambda *args, **kwargs: contextlib.nullcontext(response))
exec(compile(code, "lines", "exec"), {})
`;
  const code = linesOf(watchIt({ kind: "workflow", id: "x" }, BASE, false))["python"];
  const out = run(python(), ["-c", script], JSON.stringify([messages.map((each) => JSON.stringify(each)), code]));
  assert.equal(out, "task-succeeded pay SUCCESS\ntask-started pack STARTED\ntask-succeeded pack SUCCESS\n");
});

test("what a stream cannot filter by is named", () => {
  const query: Query = [["name", "a"], ["runtime>=", "5"], ["q", "x"], ["sort", "runtime"], ["state", ""]];
  const { dropped, lines } = watchIt({ kind: "filter", query }, BASE, false);
  assert.deepEqual(dropped, ["runtime>=", "q"]);
  for (const { text } of lines) assert.doesNotMatch(text, /runtime|until/);
});

test("commas separate patterns, unless they are escaped", () => {
  assert.deepEqual(split("a, b ,!c"), ["a", "b", "!c"]);
  assert.deepEqual(split("a\\,b,c\\\\,d"), ["a\\,b", "c\\\\", "d"]);
  assert.deepEqual(split(",,"), []);
  assert.deepEqual(split("a\\"), ["a\\"]);
});
