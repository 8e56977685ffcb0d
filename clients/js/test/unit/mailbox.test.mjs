import assert from "node:assert/strict";
import { test } from "node:test";
import { mailbox } from "../../dist/mailbox.js";

const nothing = () => {};

test("what is there is read in order, also by several at once, and then the end", async () => {
  const box = mailbox(10, nothing, nothing);
  const early = [box.next(), box.next()];
  for (const item of ["a", "b", "c"]) box.push(item);
  box.end();
  assert.deepEqual(await Promise.all(early), [{ value: "a", done: false }, { value: "b", done: false }]);
  assert.deepEqual(await box.next(), { value: "c", done: false });
  assert.equal((await box.next()).done, true);
});

test("the oldest go, and it is told how many before what comes next", async () => {
  const told = [];
  const box = mailbox(2, (lost, last) => told.push(`lost ${lost} to ${last}`), nothing);
  for (const item of [1, 2, 3, 4, 5]) box.push(item);
  for (let n = 0; n < 2; n++) told.push((await box.next()).value);
  assert.deepEqual(told, ["lost 3 to 3", 4, 5]);
});

test("an error comes once, behind what was there", async () => {
  const box = mailbox(2, nothing, nothing);
  box.push("a");
  box.end(new Error("refused"));
  assert.equal((await box.next()).value, "a");
  await assert.rejects(box.next(), /refused/);
  assert.equal((await box.next()).done, true);
});

test("whoever wants no more is let go at once, also if he waits", async () => {
  let returned = 0;
  const box = mailbox(2, nothing, () => returned++);
  const waiting = box.next();
  assert.equal((await box.return()).done, true);
  assert.equal((await waiting).done, true);
  box.push("a");
  assert.equal((await box.next()).done, true);
  assert.equal(returned, 1);
});

test("break in a for await lets it go", async () => {
  let returned = 0;
  const box = mailbox(2, nothing, () => returned++);
  box.push("a");
  for await (const item of box) {
    assert.equal(item, "a");
    break;
  }
  assert.equal(returned, 1);
});
