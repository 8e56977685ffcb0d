import assert from "node:assert/strict";
import { test } from "node:test";
import { COMPARED_FIELDS, href, literal, PARAMETERS, parseQuery, parseRoute, type Parameter, type Route, unknownParameters, valueOf, withValue, type ViewName } from "../src/route.ts";
import { Random } from "./random.ts";

const BASES = ["http://localhost:8555/", "https://tools.example/celery/", "https://tools.example/a%20b/c/"].map((base) => new URL(base));
const VIEWS = Object.keys(PARAMETERS) as ViewName[];
const WITH_ID: readonly ViewName[] = ["task", "workflow", "worker"];

function routeOf(random: Random): Route {
  const view = random.pick(VIEWS);
  const query = Array.from({ length: random.below(4) }, (): Parameter => {
    const name = random.below(3) ? random.pick(["name", "state", "q", "since", "view"]) : random.pick(COMPARED_FIELDS) + random.pick([">", ">=", "<", "<="]);
    return [name, random.below(5) || /[<>]/.test(name) ? random.text() : ""];
  });
  return { view, id: WITH_ID.includes(view) ? random.text() : "", query };
}

/** `>` and a value that begins with `=` is `>=`: one address, two ways to say it. */
const canonical = ({ query, ...rest }: Route): Route => ({
  ...rest,
  query: query.map(([name, value]): Parameter => (/[<>]$/.test(name) && value.startsWith("=") ? [`${name}=`, value.slice(1)] : [name, value])),
});

test("each route has an address that is read as the same route", () => {
  for (let seed = 0; seed < 5_000; seed++) {
    const route = routeOf(new Random(seed));
    if (/^\.{1,2}$/.test(route.id)) continue;
    for (const base of BASES) {
      const url = new URL(href(route), base);
      assert.ok(url.pathname.startsWith(base.pathname), url.href);
      assert.equal(url.hash, "");
      assert.deepEqual(parseRoute(url, base), canonical(route), `seed ${seed}: ${url.href}`);
    }
  }
});

test("the gateway reads the same parameters as URLSearchParams does", () => {
  for (let seed = 0; seed < 2_000; seed++) {
    const { query } = routeOf(new Random(seed));
    const url = new URL(href({ view: "tasks", query }), BASES[0]);
    const plain = query.filter(([name]) => !/[<>]/.test(name));
    const read = [...url.searchParams].filter(([name]) => !/[<>]/.test(name));
    assert.deepEqual(read, plain, url.search);
  }
});

test("comparisons are read as they are typed, and encoded", () => {
  for (const search of ["?runtime>=5", "?runtime%3E%3D5", "?runtime%3E=5"]) assert.deepEqual(parseQuery(search), [["runtime>=", "5"]]);
  assert.deepEqual(parseQuery("?runtime<0.5&queued_seconds>1e3&attempt=2"), [["runtime<", "0.5"], ["queued_seconds>", "1e3"], ["attempt", "2"]]);
  assert.equal(href({ view: "tasks", query: [["runtime>=", "5"]] }), "tasks?runtime%3E=5");
});

test("addresses are readable", () => {
  assert.equal(href({}), "./");
  assert.equal(href({ view: "tasks", query: [["name", "shop.*,!shop.x"], ["state", "FAILURE"]] }), "tasks?name=shop.*,!shop.x&state=FAILURE");
  assert.equal(href({ view: "worker", id: "celery@w1" }), "workers/celery@w1");
  assert.equal(href({ view: "live" }), "events");
});

test("an id that is a step of a path is asked for by a parameter", () => {
  for (const id of [".", "..", ""]) {
    const route = parseRoute(new URL(href({ view: "task", id }), BASES[1]), BASES[1]!);
    assert.deepEqual(route, { view: "tasks", id: "", query: [["uuid", id]] });
  }
});

test("addresses without a view", () => {
  const base = BASES[1]!;
  for (const path of ["healthz", "queues/x", "events/e-1", "Tasks", "../other", "taskss"]) {
    assert.equal(parseRoute(new URL(path, base), base).view, "unknown", path);
  }
  assert.equal(parseRoute(new URL("https://tools.example/celery"), base).view, "overview");
  assert.equal(parseRoute(new URL("https://tools.example/celery/tasks/"), base).view, "tasks");
  assert.deepEqual(parseRoute(new URL("https://tools.example/celery/tasks/a/b"), base).id, "a/b");
  assert.deepEqual(parseQuery("?name=100%&x=%E0"), [["name", "100%"], ["x", "%E0"]]);
});

test("unknown parameters are found, and only those", () => {
  const query: Parameter[] = [["name", "x"], ["nmae", "y"], ["runtime>", "5"], ["nmae", "z"]];
  assert.deepEqual(unknownParameters({ view: "tasks", id: "", query }), ["nmae"]);
  assert.deepEqual(unknownParameters({ view: "live", id: "", query }), ["nmae", "runtime>"]);
});

test("a parameter changes in its place", () => {
  const query: Parameter[] = [["a", "1"], ["b", "2"], ["a", "3"]];
  assert.equal(valueOf(query, "a"), "1,3");
  assert.deepEqual(withValue(query, "a", "4"), [["a", "4"], ["b", "2"]]);
  assert.deepEqual(withValue(query, "a", ""), [["b", "2"]]);
  assert.deepEqual(withValue(query, "c", "5"), [...query, ["c", "5"]]);
});

test("a literal pattern has no wildcards", () => {
  assert.equal(literal("!a*b?c,d\\e!f"), "\\!a\\*b\\?c\\,d\\\\e!f");
});
