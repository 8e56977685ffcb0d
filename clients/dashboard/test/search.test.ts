import assert from "node:assert/strict";
import { test } from "node:test";
import { COMPARED_FIELDS, literal, type Parameter, type Query } from "../src/route.ts";
import { completions, EVENT_FIELDS, formatSearch, isUuid, parseSearch, TASK_FIELDS } from "../src/search.ts";
import { Random } from "./random.ts";

function queryOf(random: Random, fields: readonly string[], isTasks: boolean): Query {
  const names = fields.filter((field) => field !== "state");
  const query = Array.from({ length: random.below(4) }, (): Parameter => [random.pick(names), random.text()]);
  if (random.below(2)) query.push(["state", "FAILURE,!RETRY"]);
  if (isTasks && random.below(2)) query.push([random.pick(COMPARED_FIELDS) + random.pick([">", ">=", "<", "<=", ""]), String(random.below(100) / 4)]);
  if (isTasks && random.below(2)) query.push(["q", random.text()]);
  return query;
}

test("each query has a text that is read as the same query", () => {
  for (let seed = 0; seed < 10_000; seed++) {
    const isTasks = seed % 2 === 0;
    const fields = isTasks ? TASK_FIELDS : EVENT_FIELDS;
    const query = queryOf(new Random(seed), fields, isTasks);
    const text = formatSearch(query, fields);
    assert.deepEqual(parseSearch(text, fields), { query, errors: [] }, `seed ${seed}: ${text}`);
  }
});

test("words of the search bar", () => {
  const read = (text: string): Query => {
    const { query, errors } = parseSearch(text);
    assert.deepEqual(errors, [], text);
    return query;
  };
  assert.deepEqual(read("state:failure name:shop.* runtime>5 some text"), [["state", "FAILURE"], ["name", "shop.*"], ["runtime>", "5"], ["q", "some text"]]);
  assert.deepEqual(read("state:FAILURE,retry,!Custom worker:celery@w1"), [["state", "FAILURE,RETRY,!Custom"], ["hostname", "celery@w1"]]);
  assert.deepEqual(read("attempt=2 progress<=0.5"), [["attempt", "2"], ["progress<=", "0.5"]]);
  assert.deepEqual(read('name:"my task" "order:10485"'), [["name", "my task"], ["q", "order:10485"]]);
  assert.deepEqual(read('"he said ""no"""'), [["q", 'he said "no"']]);
  assert.deepEqual(read("10485"), [["q", "10485"]]);
  assert.deepEqual(read("  "), []);
  assert.deepEqual(read('"not closed'), [["q", "not closed"]]);
});

test("what cannot be used is an error, and never dropped", () => {
  for (const text of ["nmae:shop.*", "name:", "runtime>fast", "runtime>", 'name:""', "order:10485"]) {
    const { query, errors } = parseSearch(text);
    assert.deepEqual(query, []);
    assert.equal(errors.length, 1, text);
  }
  assert.match(parseSearch("nmae:x").errors[0]!, /no filter nmae: expected name, state,.*"nmae:x" with the quotes/);
  assert.match(parseSearch("some text", EVENT_FIELDS).errors[0]!, /is no filter/);
  assert.equal(parseSearch("q:x", EVENT_FIELDS).errors.length, 1);
  assert.equal(parseSearch("runtime>5", EVENT_FIELDS).errors.length, 1);
});

test("UUIDs", () => {
  assert.ok(isUuid(" 5A37c2e1-0000-4000-8000-00000000009f "));
  assert.ok(!isUuid("5a37c2e1"));
});

test("completions of fields and of known values", () => {
  const known = { name: { "shop.charge": 4, "shop,odd": 9, "mail.send": 2 }, state: { FAILURE: 23, SUCCESS: 1 } };
  const texts = (text: string): string[] => completions(text, known, literal).map((one) => one.text);
  assert.deepEqual(texts("sta"), ["state:", "stale:"]);
  assert.deepEqual(texts("state:f"), ["state:FAILURE "]);
  assert.deepEqual(texts("state:FAILURE name:shop"), ["state:FAILURE name:shop\\,odd ", "state:FAILURE name:shop.charge "]);
  assert.deepEqual(texts("task:mail"), ["task:mail.send "]);
  assert.deepEqual(texts("charge"), ["name:shop.charge "]);
  assert.ok(texts("").length > 3);
  assert.deepEqual(completions("state:FAIL", known, literal)[0], { text: "state:FAILURE ", label: "state:FAILURE", count: 23 });
});
