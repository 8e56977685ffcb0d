import assert from "node:assert/strict";
import { test } from "node:test";
import type { Event } from "../../js/src/index.ts";
import { matcher, parse } from "../../js/src/filter.ts";
import { brief, entryOf, gapText, MAX_CHARS, MAX_ENTRIES, noteOf, skippedText, TailBuffer } from "../src/tail.ts";

const event = (number: number, more: { readonly [field: string]: unknown } = {}): Event => ({ type: "task-failed", id: `e-${number}`, uuid: `u-${number}`, name: "shop.charge", time: "2026-11-28T12:00:00Z", ...more });

test("the buffer has the newest rows, with numbers without holes", () => {
  const buffer = new TailBuffer();
  for (let number = 0; number < 25_000; number++) {
    buffer.push(entryOf(event(number)));
    assert.ok(buffer.length <= MAX_ENTRIES);
  }
  assert.ok(buffer.length >= 0.9 * MAX_ENTRIES);
  assert.equal(buffer.end, 25_000);
  assert.equal(buffer.dropped, 25_000 - buffer.length);
  for (let seq = buffer.first; seq < buffer.end; seq++) assert.equal(buffer.at(seq)!.uuid, `u-${seq}`);
  assert.equal(buffer.at(buffer.first - 1), undefined);
  assert.equal(buffer.at(buffer.end), undefined);
});

test("large texts are cut and not kept", () => {
  const long = "x".repeat(250_000);
  const entry = entryOf(event(1, { name: long, uuid: long, exception: long, hostname: long, state: long }));
  const { name, uuid, hostname, state, detail } = entry;
  for (const text of [name, uuid, hostname, state, detail]) assert.ok(text.length <= 500);
  const buffer = new TailBuffer();
  for (let number = 0; number < 9_000; number++) buffer.push(entryOf(event(number, { name: long, uuid: long, hostname: long, exception: long })));
  assert.ok(buffer.length * 2_000 < 1.1 * MAX_CHARS + 2_000_000);
});

test("events that pass another filter stay", () => {
  const buffer = new TailBuffer();
  for (let number = 0; number < 10; number++) buffer.push(entryOf(event(number, { name: number % 2 ? "shop.odd" : "mail.even" })));
  buffer.push(noteOf("gap", "a gap"));
  buffer.push(noteOf("filter", "before"));
  buffer.keep(matcher(parse({ name: "shop.*" })));
  buffer.push(noteOf("filter", "one"));
  buffer.push(noteOf("filter", "two"));
  const rows = Array.from({ length: buffer.length }, (_, index) => buffer.at(buffer.first + index)!);
  assert.deepEqual(rows.map(({ kind, name, detail }) => (kind === "event" ? name : detail)), [...Array(5).fill("shop.odd"), "a gap", "two"]);
  assert.deepEqual(rows.map(({ seq }) => seq), rows.map((_, index) => buffer.first + index));
});

test("the details of an event in one line", () => {
  assert.equal(brief(event(1, { current: 3, total: 8, message: "thumbnails" })), "3 of 8 thumbnails");
  assert.equal(brief(event(1, { exception: "CardDeclined('no')" })), "CardDeclined('no')");
  assert.equal(brief(event(1, { exception: "ExceptionWithTraceback()", traceback: "Traceback\n  x\nValueError: no\n" })), "ValueError: no");
  assert.equal(brief(event(1, { result: "17", runtime: 1.25 })), "1.25 s · 17");
  assert.equal(brief(event(1, { args: "(17,)", kwargs: "{}", queue: "shop", retries: 2 })), "(17,) · retry 2 · → shop");
  assert.equal(brief(event(1, { own: { a: 1 }, none: null })), 'own={"a":1}');
});

test("fields of any name and type", () => {
  const odd = { toString: 1, valueOf: null };
  for (const field of ["type", "name", "state", "uuid", "root_id", "hostname", "time", "exception", "current", "result", "args"]) {
    const entry = entryOf(event(1, { [field]: odd, ["__proto__"]: odd }));
    for (const value of Object.values(entry)) assert.notEqual(typeof value, "object");
  }
  assert.ok(Number.isNaN(entryOf(event(1, { time: null, timestamp: undefined })).time));
});

test("texts of gaps", () => {
  assert.equal(gapText({ type: "gateway-gap", id: "e-1", reason: "slow", lost: 1_234 }), "1,234 events are missing here: this page was too slow.");
  assert.equal(gapText({ type: "gateway-gap", id: "e-1", reason: "broker", lost: null, cluster: "eu" }), "Events may be missing here of eu: the gateway lost its connection to the broker.");
  assert.equal(skippedText({ count: 3_200 }, 200), "3,200 events not shown: this page shows at most 200 a second.");
});
