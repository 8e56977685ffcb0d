import assert from "node:assert/strict";
import { test } from "node:test";
import { KEYS, keyOf } from "../src/keys.ts";
import { cut, exceptionText, percent, plural, rate, shortId, visible } from "../src/text.ts";
import { ago, clock, dateTime, duration, rfc3339, shortTime, skewOf } from "../src/time.ts";

test("the clock of the browser: the time that a message takes is no difference", () => {
  assert.equal(skewOf(0, 999.5, 1_000), 0);
  assert.equal(skewOf(0, 4_600, 1_000), 3_600);
  assert.equal(skewOf(3_600, 4_600.4, 1_001), 3_600, "times do not jump");
  assert.equal(skewOf(3_600, 1_000, 4_600), -3_600);
  assert.equal(skewOf(3_600, 1_000.5, 1_001), 0, "it was set right");
});

test("durations", () => {
  const cases: readonly (readonly [number, string])[] = [
    [0, "0 s"], [0.0009, "<1 ms"], [-0.0002, "<1 ms"], [0.001, "1 ms"], [0.02, "20 ms"], [0.9994, "999 ms"], [0.9996, "1 s"], [1.85, "1.85 s"], [9.5, "9.5 s"], [12.34, "12.3 s"], [59.96, "1 min"],
    [252, "4 min 12 s"], [3_600, "1 h 00 min"], [11_100, "3 h 05 min"], [187_200, "2 d 4 h"], [-2, "−2 s"], [NaN, "–"],
  ];
  for (const [seconds, text] of cases) assert.equal(duration(seconds), text);
});

test("durations are never less precise than a twentieth", () => {
  for (let seconds = 0.02; seconds < 1e6; seconds *= 1.07) {
    const units: { readonly [unit: string]: number } = { ms: 0.001, s: 1, min: 60, h: 3_600, d: 86_400 };
    const read = [...duration(seconds).matchAll(/([\d.]+) (ms|s|min|h|d)/g)].reduce((sum, [, value, unit]) => sum + Number(value) * units[unit!]!, 0);
    assert.ok(Math.abs(read - seconds) <= 0.051 * seconds, `${seconds}: ${duration(seconds)}`);
  }
});

test("times", () => {
  const time = Date.UTC(2026, 10, 28, 13, 21, 27, 180) / 1_000;
  assert.equal(clock(time, true, 3), "13:21:27.180");
  assert.equal(dateTime(time, true), "2026-11-28 13:21:27.180 UTC");
  assert.equal(shortTime(time, time + 60, true), "13:21:27");
  assert.equal(shortTime(time, time + 86_400, true), "2026-11-28 13:21");
  assert.equal(rfc3339(time), "2026-11-28T13:21:27.180Z");
  assert.equal(ago(time, time + 12.9), "12 s ago");
  assert.equal(ago(time, time + 7_300), "2 h ago");
  assert.equal(ago(time + 30, time), "in 30 s");
  for (const wrong of [NaN, Infinity, 1e18]) assert.deepEqual([clock(wrong, true), dateTime(wrong, false), rfc3339(wrong)], ["–", "–", ""]);
});

test("hidden characters are visible, and texts are cut at a character", () => {
  assert.equal(visible("gnp.\u202eexe\u0000\ud800"), "gnp.\\u{202e}exe\\u{0}\\u{d800}");
  assert.equal(visible("línea\n漢\t👩\u200d💻"), "línea\n漢\t👩\u200d💻");
  assert.equal(cut("abcdef", 4), "abc…");
  assert.equal(cut("ab😀def", 4), "ab…");
});

test("an exception that only contains another one is that one", () => {
  const traceback = "Traceback (most recent call last):\n  x\nWorkerLostError: signal 9\n";
  assert.equal(exceptionText({ exception: "ExceptionWithTraceback()", traceback }), "WorkerLostError: signal 9");
  assert.equal(exceptionText({ exception: "ExceptionWithTraceback()", traceback: null }), "ExceptionWithTraceback()");
  assert.equal(exceptionText({ exception: "ExceptionWithTraceback()", traceback: "\n" }), "ExceptionWithTraceback()");
  assert.equal(exceptionText({ exception: "KeyError('ExceptionWithTraceback()')", traceback }), "KeyError('ExceptionWithTraceback()')");
  assert.equal(exceptionText({ exception: null }), "");
});

test("numbers", () => {
  assert.deepEqual([percent(1, 3), percent(1, 1_000_000), percent(0, 5), percent(5, 5), percent(0, 0)], ["33 %", "0.1 %", "0 %", "100 %", "–"]);
  assert.deepEqual([rate(0), rate(0.15), rate(3.04), rate(1_234)], ["0/s", "9/min", "3/s", "1,234/s"]);
  assert.deepEqual([plural(1, "task"), plural(12_345, "task")], ["1 task", "12,345 tasks"]);
  assert.equal(shortId("5a37c2e1-0000-4000-8000-00000000009f"), "5a37c2e1");
  assert.equal(shortId("order-5a37c2e1"), "order-5a37c2e1");
});

test("each key of the sheet is handled once, and off with modifiers", () => {
  const press = (key: string, modifiers = {}): string | undefined => keyOf({ key, ctrlKey: false, metaKey: false, altKey: false, ...modifiers });
  const pressed: { readonly [shown: string]: string } = { "↓": "ArrowDown", "↑": "ArrowUp", Esc: "Escape", Space: " " };
  const all = KEYS.flatMap(({ keys }) => [...keys] as string[]);
  assert.equal(new Set(all).size, all.length);
  for (const { id, keys } of KEYS) {
    for (const key of keys) {
      if (key === "Ctrl+K") continue;
      assert.equal(press(pressed[key] ?? key), id, key);
      assert.equal(press(pressed[key] ?? key, { altKey: true }), undefined);
      assert.equal(press(pressed[key] ?? key, { ctrlKey: true }), key === "k" ? "search" : undefined);
    }
  }
  assert.equal(press("k", { metaKey: true }), "search");
  assert.equal(press("x"), undefined);
});
