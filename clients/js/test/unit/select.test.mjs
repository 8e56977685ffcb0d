// Which tasks a list has, and how a request for them is written: by the rules of GET /tasks.
import assert from "node:assert/strict";
import { test } from "node:test";
import { query } from "../../dist/http.js";
import { paramsOf, selector } from "../../dist/select.js";

const NOW = 1_000_000;
const task = (fields) => ({
  ...{ uuid: "u-1", name: "shop.pay", state: "STARTED", queue: "q", worker: "w@h", client: "c@h", type: "task-started" },
  ...{ sent: NOW - 100, received: null, started: null, args: "(1, 'Ann')", kwargs: "{}", result: null, exception: null },
  ...{ runtime: null, attempt: 2, retries: 1, progress: 0.5, queued_seconds: 3, stale: false, ...fields },
});
const CASES = [
  [{}, {}, {}, true],
  [{ name: "shop.*", state: ["STARTED", "RETRY"] }, {}, {}, true],
  [{ state: "!STARTED" }, {}, {}, false],
  [{ hostname: "w@h" }, {}, {}, true],
  [{ hostname: "c@h" }, {}, {}, false],
  [{ hostname: "c@h" }, {}, { worker: null }, true],
  [{ type: "task-started" }, {}, {}, true],
  [{}, { q: "ANN" }, {}, true],
  [{}, { q: "shop.PAY" }, {}, true],
  [{}, { q: "u-1" }, {}, true],
  [{}, { q: "bob" }, {}, false],
  [{}, { q: "bob" }, { exception: "No(Bob)" }, true],
  [{}, { q: "STARTED" }, {}, false],
  [{}, { q: "7" }, { uuid: 1789 }, true],
  [{}, { since: "2m" }, {}, true],
  [{}, { since: "1m" }, {}, false],
  [{}, { before: "1m" }, {}, true],
  [{}, { before: "1.5h" }, {}, false],
  [{}, { since: new Date(1_000 * (NOW - 100)).toISOString() }, {}, true],
  [{}, { before: new Date(1_000 * (NOW - 100)).toISOString() }, {}, false],
  [{}, { since: "30s" }, { sent: null, received: null, started: NOW }, true],
  [{}, { stale: false }, {}, true],
  [{}, { stale: true }, {}, false],
  [{}, { where: { runtime: ">=5" } }, {}, false],
  [{}, { where: { runtime: ">=5" } }, { runtime: 5 }, true],
  [{}, { where: { runtime: ">5" } }, { runtime: 5 }, false],
  [{}, { where: { runtime: "<=5" } }, { runtime: 5 }, true],
  [{}, { where: { runtime: "<5" } }, { runtime: 5 }, false],
  [{}, { where: { attempt: "=2" } }, {}, true],
  [{}, { where: { attempt: [">1", "<2.5"], retries: ">=1" } }, {}, true],
  [{}, { where: { attempt: [">1", "<2"] } }, {}, false],
  [{}, { where: { progress: "<1e-1" } }, {}, false],
];

for (const [filter, conditions, fields, expected] of CASES) {
  test(`${JSON.stringify([filter, conditions, fields])}: ${expected}`, () => {
    assert.equal(selector(filter, conditions, () => NOW)(task(fields)), expected);
  });
}

test("a wrong comparison, or a wrong filter, throws at once", () => {
  for (const text of ["5", ">", ">=x", "==5", "> 5"]) assert.throws(() => selector({}, { where: { runtime: text } }, () => NOW), TypeError, text);
  assert.throws(() => selector({}, { where: { runtime: ">=x" } }, () => NOW), { message: /^invalid comparison runtime>=x: / });
  assert.throws(() => selector({ nmae: "a" }, {}, () => NOW), TypeError);
});

test("a request has the same conditions, as GET /tasks reads them", () => {
  const written = (filter, options) => query(paramsOf(filter, options));
  const read = (filter, options) => decodeURIComponent(written(filter, options));
  assert.equal(written({}, {}), "");
  assert.equal(read({ name: ["shop.*", "!a,b"], state: "S" }, {}), "name=shop.*&name=!a\\,b&state=S");
  assert.equal(read({ name: "a\\,b\\\\,c" }, {}), "name=a\\,b\\\\\\,c", "an escaped comma stays, another one is escaped");
  assert.equal(read({}, { where: { runtime: [">=5", "<9"], attempt: "=2" } }), "runtime>=5&runtime<9&attempt=2");
  assert.equal(written({}, { where: { runtime: ">5" } }), "runtime%3E5");
  assert.equal(read({}, { q: "a&b=c", since: "1h", stale: true, limit: 5, signal: {}, intervalMs: 1 }), "q=a&b=c&since=1h&stale=1&limit=5");
  assert.equal(written({}, { q: "a&b=c" }), "q=a%26b%3Dc");
  assert.equal(read({ name: undefined }, { stale: false, q: undefined }), "stale=0");
});
