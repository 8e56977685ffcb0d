import assert from "node:assert/strict";
import { test } from "node:test";
import { hold } from "../src/hold.ts";

type Row = readonly [key: string, value: number];
const keyOf = ([key]: Row): string => key;
const rows = (text: string, value = 0): Row[] => [...text].map((key) => [key, value]);
const text = ({ rows }: { readonly rows: readonly Row[] }): string => rows.map(([key, value]) => key + (value || "")).join("");

test("rows stay where they are, and change in place", () => {
  const first = hold(null, rows("cba"), 0, keyOf);
  const next = hold(first, [["d", 0], ["c", 0], ["b", 1], ["a", 0]], 1, keyOf);
  assert.deepEqual([text(next), next.waiting, next.hasLeft], ["cb1a", 1, false]);
  const last = hold(null, rows("dcba"), 1, keyOf);
  assert.deepEqual([text(last), last.waiting], ["dcba", 0]);
});

test("rows that have left the list stay, with the values that are known of them", () => {
  const first = hold(null, rows("cba"), 0, keyOf);
  const next = hold(first, rows("edc"), 2, keyOf);
  assert.deepEqual([text(next), next.waiting, next.hasLeft], ["cba", 2, true]);
  assert.equal(text(hold(next, rows("edc"), 2, keyOf, rows("ba", 7))), "cb7a7");
});

test("older rows are added at the end", () => {
  const first = hold(null, rows("dc"), 0, keyOf);
  assert.equal(text(hold(first, rows("edcba"), 1, keyOf)), "dcba");
});

test("where all rows have passed, all that arrived wait", () => {
  const first = hold(null, rows("ba"), 5, keyOf);
  const next = hold(first, rows("zy"), 5_005, keyOf);
  assert.deepEqual([text(next), next.waiting], ["ba", 5_000]);
  assert.equal(hold(next, [], 5_005, keyOf).waiting, 0);
});

test("an empty list shows what arrives", () => {
  assert.equal(text(hold(hold(null, [], 0, keyOf), rows("ba"), 2, keyOf)), "ba");
});
