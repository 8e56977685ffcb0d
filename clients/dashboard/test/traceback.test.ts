import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { firstShown, foldFrames, packageOf, parseTraceback, type Block } from "../src/traceback.ts";
import { python } from "./python.ts";
import { cpuMs } from "./cpu.ts";

const brief = (block: ReturnType<typeof foldFrames>[number]): string => {
  const indent = ">".repeat(block.depth);
  switch (block.kind) {
    case "frame":
      return `${indent}${block.file.split("/").pop()}:${block.line} ${block.function} | ${block.code.join(" / ")}`;
    case "exception":
      return `${indent}${block.name} = ${JSON.stringify(block.message)}`;
    case "fold":
      return `${indent}${block.frames.length} of ${block.packages.join(",")}`;
    default:
      return `${indent}${block.kind} ${block.text}`.trimEnd();
  }
};
const folded = (text: string): string[] => foldFrames(parseTraceback(text)).map(brief);

/** Each line of a text is in one block. */
function assertWhole(text: string, blocks: readonly Block[]): void {
  let next = 0;
  for (const { lines: [from, to] } of blocks) {
    assert.equal(from, next);
    assert.ok(to > from);
    next = to;
  }
  assert.equal(next, text.replace(/\n+$/, "").split("\n").length);
}

const CHARGE = `Traceback (most recent call last):
  File "/venv/lib/python3.12/site-packages/celery/app/trace.py", line 453, in trace_task
    R = retval = fun(*args, **kwargs)
                 ^^^^^^^^^^^^^^^^^^^^
  File "/venv/lib/python3.12/site-packages/celery/app/trace.py", line 736, in __protected_call__
    return self.run(*args, **kwargs)
  File "/srv/demo/tasks.py", line 88, in charge
    raise self.retry(exc=slow, countdown=1.5)
demo.errors.PaymentTimeout: order 10485: acquirer did not answer
within 2.0 s
`;

test("frames of Celery are folded, those of the application are not", () => {
  assert.deepEqual(folded(CHARGE), [
    "header Traceback (most recent call last):",
    "2 of celery",
    "tasks.py:88 charge | raise self.retry(exc=slow, countdown=1.5)",
    'demo.errors.PaymentTimeout = "order 10485: acquirer did not answer\\nwithin 2.0 s"',
  ]);
});

test("the last frame is shown where all are of packages", () => {
  const text = `Traceback (most recent call last):
  File "/usr/lib/python3.12/site-packages/kombu/utils/functional.py", line 1, in retry
    return fun()
  File "/usr/lib/python3.12/socket.py", line 5, in connect
    raise
ConnectionRefusedError: [Errno 111] Connection refused`;
  assert.deepEqual(folded(text).slice(1), ["1 of kombu", "socket.py:5 connect | raise", 'ConnectionRefusedError = "[Errno 111] Connection refused"']);
});

test("packages", () => {
  const { files } = JSON.parse(readFileSync("../../tests/support/library_files.json", "utf8")) as { files: Record<string, string | null> };
  for (const [file, expected] of Object.entries(files)) assert.equal(packageOf(file), expected, file);
});

const SCRIPT = `
import json, traceback
def of(call):
    try: call()
    except BaseException: return traceback.format_exc()
class E(Exception): pass
def zero():
    try: 1/0
    except Exception as error:
        if hasattr(error, "add_note"): error.add_note("note one\\nline two")
        raise
def cause():
    try: zero()
    except Exception as error: raise ValueError("one\\ntwo: x\\n\\nfour") from error
def context():
    try: cause()
    except Exception: raise KeyError("k")
def recurse(n): recurse(n + 1)
def syntax(): compile("def f(:\\n  pass", "x.py", "exec")
def bare(): raise E
def group():
    errors = []
    for call in (zero, cause):
        try: call()
        except Exception as error: errors.append(error)
    try: raise ExceptionGroup("inner", errors)
    except Exception as error: raise ExceptionGroup("outer", [error, ValueError("v")])
calls = {"context": context, "recurse": lambda: recurse(0), "syntax": syntax, "bare": bare}
try: calls["group"] = group; ExceptionGroup
except NameError: del calls["group"]
print(json.dumps({name: of(call) for name, call in calls.items()}))
`;

test("tracebacks of Python itself", () => {
  const { stdout, stderr } = spawnSync(python(), ["-c", SCRIPT], { encoding: "utf8" });
  assert.equal(stderr, "");
  const texts = JSON.parse(stdout) as Record<string, string>;
  for (const [, text] of Object.entries(texts)) assertWhole(text, parseTraceback(text));
  const raised = (name: string): unknown[] =>
    parseTraceback(texts[name]!).flatMap((block) =>
      block.kind === "exception" ? [[block.depth, block.name, block.message]] : block.kind === "relation" ? [block.text.slice(0, 6)] : [],
    );
  const [zero, ...rest] = raised("context") as [number, string, string][];
  assert.deepEqual(zero!.slice(0, 2), [0, "ZeroDivisionError"]);
  assert.match(zero![2]!, /^division by zero(\nnote one\nline two)?$/);
  assert.deepEqual(rest, ["The ab", [0, "ValueError", "one\ntwo: x\n\nfour"], "During", [0, "KeyError", "'k'"]]);
  assert.deepEqual(raised("bare"), [[0, "E", ""]]);
  assert.equal((raised("syntax")[0] as string[])[1], "SyntaxError");
  const where = parseTraceback(texts["syntax"]!).filter((block) => block.kind === "frame").pop();
  assert.deepEqual([where?.file, where?.line, where?.function, where?.code[0]], ["x.py", 1, null, "def f(:"]);
  assert.match(where!.code[1]!, /^ +\^$/);
  assert.match(folded(texts["recurse"]!).join("\n"), /\[Previous line repeated \d+ more times\]/);
  if (!texts["group"]) return;
  const members = parseTraceback(texts["group"]).filter(({ kind }) => kind === "member");
  assert.deepEqual(
    members.map((block) => `${block.depth}:${"text" in block ? block.text : ""}`),
    ["2:1", "2:2", "2:", "2:1", "3:1", "3:2", "3:", "2:2", "2:"],
  );
  const last = raised("group").pop() as unknown[];
  assert.deepEqual(last.slice(1), ["ValueError", "v"]);
});

test("lines with a bar are a group's only in a group", () => {
  assert.deepEqual(folded("Traceback (most recent call last):\nE: a\n  | table |\n+---+").slice(1), ['E = "a\\n  | table |\\n+---+"']);
});

test("other texts, and the end of a long one", () => {
  assert.deepEqual(folded("None"), ["text None"]);
  assert.deepEqual(folded(""), ["text"]);
  assert.deepEqual(folded('le "x.py", line\n  File "b.py", line 3, in f\n    f()\nE: x'), ['text le "x.py", line', "b.py:3 f | f()", 'E = "x"']);
  const text = 'E: a\nTraceback (most recent call last):\n  File "<img src=x onerror=alert(1)>", line 1, in <script>\n    x\n<b>: <i>';
  assertWhole(text, parseTraceback(text));
  assert.deepEqual(folded(text).pop(), ' = "<b>: <i>"');
});

test("long texts", () => {
  const frames = Array.from({ length: 20_000 }, (_, at) => `  File "a${at}.py", line ${at}, in f\n    ${"x".repeat(30)}`).join("\n");
  const text = `Traceback (most recent call last):\n${frames}\nE: ${"y\n".repeat(100_000)}`;
  assert.ok(text.length > 1_300_000);
  const start = cpuMs();
  const blocks = foldFrames(parseTraceback(text));
  assert.ok(cpuMs() - start < 1_000);
  assert.equal(firstShown(blocks, 200), blocks.length - 1);
  assert.equal(firstShown(foldFrames(parseTraceback(CHARGE)), 200), 0);
  assert.equal(firstShown([], 200), 0);
  const hostile = ['  File "', `  File "${"python".repeat(40_000)}\\x", line 1\n`, '", line 1', " ", "|", "  | ", "+-", "a.", "\n", "Exception Group Traceback (most recent call last):\n", "  + Exception Group Traceback (most recent call last):\n  | a\n"];
  for (const part of hostile) {
    const began = cpuMs();
    const long = part.repeat(300_000 / part.length);
    assertWhole(long, parseTraceback(long));
    assert.ok(cpuMs() - began < 1_000, part);
  }
});
