import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { events } from "../../dist/sse.js";

const table = JSON.parse(readFileSync(new URL("../../../../tests/conformance/sse.json", import.meta.url), "utf8"));

/** What is read of an event stream that comes in pieces that begin at these places of its bytes. */
function read(bytes, cuts) {
  const found = [];
  const feed = events(({ data, event: type = "message", id }) => found.push({ type, data, id }));
  [0, ...cuts].forEach((from, index) => feed(bytes.subarray(from, cuts[index] ?? bytes.length)));
  return found;
}

for (const { rule, stream, dispatches } of table.cases) {
  test(rule, () => {
    // The stream goes on with a comment: until then a carriage return at its end may be half of a line's end.
    const bytes = new TextEncoder().encode(`${stream}:\n`);
    const whole = read(bytes, []);
    assert.deepEqual(
      whole.map(({ type, data }) => ({ type, data })),
      dispatches.map(({ type, data }) => ({ type, data })),
    );
    // An id without an event goes unseen: to a POST the gateway answers with bookmarks instead.
    for (const [index, { id }] of whole.entries()) if (id) assert.equal(id, dispatches[index].lastEventId);
    for (let cut = 1; cut < bytes.length; cut++) {
      assert.deepEqual(read(bytes, [cut]), whole, `cut at ${cut}`);
      assert.deepEqual(read(bytes, [cut - 1, cut]), whole, `cut at ${cut - 1} and ${cut}`);
    }
    assert.deepEqual(read(bytes, Array.from(bytes.keys()).slice(1)), whole, "byte by byte");
  });
}
