import assert from "node:assert/strict";
import { test } from "node:test";
import { paced } from "../src/throttled.ts";

const MANY = 50;

test("many calls are one soon, and one after the pause", async () => {
  const atMs: number[] = [];
  let done = (): void => {};
  const second = new Promise<void>((resolve) => (done = resolve));
  const ask = paced(() => {
    atMs.push(performance.now());
    if (atMs.length === 1) for (let time = 0; time < MANY; time++) ask();
    else done();
  }, () => 200);
  for (let time = 0; time < MANY; time++) ask();
  assert.equal(atMs.length, 0);
  await second;
  assert.equal(atMs.length, 2);
  assert.ok(atMs[1]! - atMs[0]! >= 150); // the pause begins a little earlier than the call notes its time
});

test("without a pause each call is made at once", () => {
  let calls = 0;
  const ask = paced(() => calls++, () => 0);
  for (let time = 0; time < MANY; time++) ask();
  assert.equal(calls, MANY);
});

test("a call that waits can be dropped, and the next one is made", async () => {
  let calls = 0;
  let done = (): void => {};
  const made = new Promise<void>((resolve) => (done = resolve));
  const ask = paced(() => {
    calls++;
    done();
  }, () => 5);
  ask();
  ask.cancel();
  ask();
  await made;
  assert.equal(calls, 1);
});
