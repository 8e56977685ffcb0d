import assert from "node:assert/strict";
import { test } from "node:test";
import { store } from "../src/store.ts";

test("readers are called at each change, until they leave", () => {
  const heard: number[] = [];
  const numbers = store(1);
  const stop = numbers.subscribe((value) => heard.push(value));
  numbers.value = 1; // no change
  numbers.value = NaN;
  numbers.value = NaN; // no change
  numbers.value = 2;
  stop();
  numbers.value = 3;
  assert.deepEqual(heard, [NaN, 2]);
  assert.equal(numbers.value, 3);
});

test("a reader that leaves during a change is not called, and one that comes is called at the next", () => {
  const heard: string[] = [];
  const words = store("");
  words.subscribe((value) => {
    heard.push(`first ${value}`);
    stop();
    if (value === "a") words.subscribe((later) => heard.push(`late ${later}`));
  });
  const stop = words.subscribe((value) => heard.push(`second ${value}`));
  words.value = "a";
  words.value = "b";
  assert.deepEqual(heard, ["first a", "first b", "late b"]);
});
