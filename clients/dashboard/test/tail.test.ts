import assert from "node:assert/strict";
import { test } from "node:test";
import type { Event } from "../../js/src/index.ts";
import { matcher, parse } from "../../js/src/filter.ts";
import { brief, type Entry, entryOf, gapText, isReplayed, MAX_CHARS, MAX_ENTRIES, noteOf, skippedText, TailBuffer } from "../src/tail.ts";
import { count } from "../src/text.ts";
import { Random } from "./random.ts";

const event = (number: number, more: { readonly [field: string]: unknown } = {}): Event => ({ type: "task-failed", id: `e-${number}`, uuid: `u-${number}`, name: "shop.charge", time: "2026-11-28T12:00:00Z", ...more });

test("the buffer has the newest rows, with numbers without holes", () => {
  const buffer = new TailBuffer();
  for (let number = 0; number < 25_000; number++) {
    buffer.push(entryOf(event(number)));
    assert.ok(buffer.length <= MAX_ENTRIES);
  }
  assert.ok(buffer.length >= 0.9 * MAX_ENTRIES);
  assert.equal(buffer.end, 25_000);
  const oldest = buffer.at(buffer.first)!;
  assert.equal(oldest.missing, 25_001 - buffer.length);
  assert.equal(oldest.detail, `${count(oldest.missing!)} events not kept: the page keeps the newest 10,000.`);
  for (let seq = buffer.first + 1; seq < buffer.end; seq++) assert.equal(buffer.at(seq)!.uuid, `u-${seq}`);
  assert.equal(buffer.at(buffer.first - 1), undefined);
  assert.equal(buffer.at(buffer.end), undefined);
});

const rowsOf = (buffer: TailBuffer, end = buffer.end): (Entry | undefined)[] => Array.from({ length: end - buffer.first }, (_, index) => buffer.at(buffer.first + index));

test("rows that are held stay, however many come; what is not kept beside them is counted in a note", () => {
  const buffer = new TailBuffer();
  for (let number = 0; number < 500; number++) buffer.push(entryOf(event(number)));
  buffer.hold();
  const held = rowsOf(buffer);
  for (let number = 500; number < 30_500; number++) {
    buffer.push(number % 1_000 ? entryOf(event(number)) : noteOf("gap", "a gap"));
    assert.ok(buffer.length <= 500 + MAX_ENTRIES);
    assert.equal(buffer.heldEnd, 500);
  }
  assert.deepEqual(rowsOf(buffer, 500), held);
  assert.equal(buffer.end - 500, 30_000, "those that came");
  buffer.hold();
  assert.equal(buffer.heldEnd, 500);

  buffer.release();
  assert.ok(buffer.length <= MAX_ENTRIES);
  const rows = rowsOf(buffer) as Entry[];
  assert.deepEqual(rows.map(({ seq }) => seq), rows.map((_, index) => buffer.first + index));
  const missing = rows.reduce((sum, row) => sum + (row.missing ?? Number(row.kind === "event")), 0);
  assert.equal(missing, 30_470, "each event is there, or counted");
  assert.equal(rows.at(-1)!.uuid, "u-30499");
  assert.equal(buffer.end, 30_500);
});

test("any order of rows, holds, releases and filters: held rows stay, numbers have no holes, and nothing is uncounted", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = new Random(seed);
    const buffer = new TailBuffer();
    let pushed = 0;
    let held: (Entry | undefined)[] | undefined;
    for (let step = 0; step < 30; step++) {
      const choice = random.next();
      if (choice < 0.6) {
        const many = random.below(random.next() < 0.3 ? 8_000 : 50);
        for (let index = 0; index < many; index++) buffer.push(entryOf(event(pushed++)));
      } else if (choice < 0.8) {
        held ??= rowsOf(buffer);
        buffer.hold();
      } else {
        held = undefined;
        buffer.release();
      }
      if (held) assert.deepEqual(rowsOf(buffer, buffer.heldEnd), held);
      else assert.equal(buffer.heldEnd, undefined);
      assert.ok(buffer.length <= (held ? 2 : 1) * MAX_ENTRIES);
    }
    buffer.release();
    const rows = rowsOf(buffer) as Entry[];
    assert.deepEqual(rows.map(({ seq }) => seq), rows.map((_, index) => buffer.first + index));
    assert.equal(rows.reduce((sum, row) => sum + (row.missing ?? 1), 0), pushed);
  }
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

test("an event is from before if its stream was open later; a worker whose clock is behind is believed for some seconds only", () => {
  const openedAt = 1_000;
  const isOld = (time: number, age: number): boolean => isReplayed(time, openedAt + age, age * 1_000);
  assert.deepEqual([isOld(0, 0), isOld(940, 1), isOld(999, 9)], [true, true, true]);
  assert.deepEqual([isOld(1_000, 0), isOld(1_000.5, 1), isOld(1_060, 0), isOld(NaN, 0)], [false, false, false, false]);
  assert.deepEqual([isOld(940, 10), isOld(0, 3_600)], [false, false]);
});

test("texts of gaps", () => {
  assert.equal(gapText({ type: "gateway-gap", id: "e-1", reason: "slow", lost: 1_234 }), "1,234 events are missing here: this page was too slow.");
  assert.equal(gapText({ type: "gateway-gap", id: "e-1", reason: "broker", lost: null, cluster: "eu" }), "Events may be missing here of eu: the gateway lost its connection to the broker.");
  assert.equal(skippedText({ count: 3_200 }, 200, false), "3,200 events not shown: this page shows at most 200 a second.");
  assert.equal(skippedText({ count: 1 }, 200, true), "1 older event not shown: this page shows at most 200 a second.");
});
