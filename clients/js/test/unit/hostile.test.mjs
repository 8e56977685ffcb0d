// What an application, or a server that is no gateway, may send: fields of any name, type and size.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, test } from "node:test";
import { connect, GatewayError } from "../../dist/index.js";
import { matcher } from "../../dist/filter.js";
import { tasks } from "../../dist/models.js";
import { outlive } from "../../dist/task.js";
import { workflow } from "../../dist/tree.js";
import { keyOf } from "../../dist/values.js";
import { workers } from "../../dist/workers.js";

const NAMES = ["__proto__", "constructor", "prototype", "toString", "valueOf", "hasOwnProperty", "toJSON"];
const UNREADABLE = '{"toString":1,"valueOf":null}'; // throws where it is made a text or a number
const ANY = [UNREADABLE, "[[]]", '""', '"a@b"', "1e999", "-1", "null", "true", '{"__proto__":{"length":9}}'].map((text) => JSON.parse(text));
const FIELDS = [
  ...["name", "root_id", "parent_id", "uuid", "hostname", "queue", "cluster", "state", "attempt", "retries", "timestamp"],
  ...["progress", "current", "total", "message", "args", "result", "exception", "traceback", "runtime", "eta", "pid", "clock", "freq"],
];
const TYPES = ["task-sent", "task-received", "task-started", "task-retried", "task-succeeded", "task-failed", "task-lost", "task-own"];

/** An event as it comes: from JSON, where `__proto__` is a field as any other. */
const parsed = (fields) =>
  JSON.parse(`{${Object.entries({ id: '"e-1"', time: '""', timestamp: "1", hostname: '"w@h"', ...fields })
    .map(([name, text]) => `${JSON.stringify(name)}:${text}`)}}`);
const polluted = () => NAMES.filter((name) => Object.getPrototypeOf({})[name] !== pristine.get(name)).concat(Object.keys(Object.prototype));
const pristine = new Map(NAMES.map((name) => [name, Object.getPrototypeOf({})[name]]));
after(() => assert.deepEqual(polluted(), []));

test("names of properties of all objects are names like any other", () => {
  for (const name of NAMES) {
    const text = JSON.stringify(name);
    const made = tasks("root_id", name, (all) => workflow(name, all))();
    const event = { type: '"task-received"', uuid: text, name: text, root_id: text, state: '"RECEIVED"', attempt: "1" };
    made.event(parsed(event), null);
    const custom = `{${JSON.stringify(name)}:{"polluted":true}}`;
    made.event(parsed({ ...event, type: '"task-progress"' }), parsed({ uuid: text, name: text, root_id: text, state: text, custom }));
    const flow = made.make();
    assert.deepEqual([flow.total, flow.tasks[0].uuid, flow.tasks[0].name], [1, name, name], name);
    assert.equal(Object.getOwnPropertyDescriptor(flow.counts, name).value, 1, name);
    assert.deepEqual(Object.getOwnPropertyDescriptor(flow.tasks[0].custom, name).value, { polluted: true }, name);

    const table = workers();
    table.control({ type: "gateway-worker", worker: parsed({ hostname: text, status: '"online"', [name]: "1" }) });
    table.event(parsed({ type: '"worker-heartbeat"', hostname: text, [name]: "1" }));
    assert.deepEqual(table.make().map(({ hostname, status }) => [hostname, status]), [[name, "online"]]);
    assert.equal(matcher([{ name: [name] }])(parsed({ name: text })), true);
    assert.equal(matcher([{ name: [name] }])(parsed({ [name]: '{"name":"x"}' })), false);
    assert.equal({}.polluted, undefined);
  }
});

test("counts of states with such names", () => {
  const members = NAMES.flatMap((state, index) => [0, 1].map((half) => ({ uuid: `${index}.${half}`, state, sent: null })));
  const { counts } = workflow("r", members);
  assert.deepEqual(Object.entries(counts), NAMES.map((state) => [state, 2]));
  assert.equal(Object.getPrototypeOf(counts), Object.prototype);
});

test("an error takes from an answer only what it has", () => {
  const told = JSON.parse('{"code":"c","status":400,"message":"m","name":"n","stack":"s","__proto__":{"code":"d"}}');
  const error = new GatewayError("text", told);
  assert.ok(error instanceof GatewayError);
  assert.deepEqual([error.code, error.status, error.message, error.name], ["c", 400, "text", "GatewayError"]);
  assert.notEqual(error.stack, "s");
});

test("any value in any field: an event changes a record, or it does not, and nothing throws", () => {
  for (const field of FIELDS) {
    for (const value of ANY) {
      let task;
      const table = workers();
      table.control({ type: "gateway-worker", worker: { hostname: "w@h", status: "online" } });
      for (const type of [...TYPES, "task-own"]) {
        const event = { type, uuid: "u", timestamp: 1, hostname: "w@h", state: "RECEIVED", attempt: 1, [field]: value };
        task = outlive(task, event);
        keyOf(event.cluster, event.uuid);
        matcher([{ name: ["a*"], uuid: ["u"], cluster: ["!x"] }])(event);
        table.event({ ...event, type: "worker-heartbeat" });
      }
      assert.equal(table.make().length, 1);
      if (task) workflow("r", [task]);
    }
  }
});

test("a workflow keeps as many tasks as it is allowed to, the youngest and the root, and reports it once", () => {
  const refused = [];
  const made = tasks("root_id", "r", (all) => all.map(({ uuid }) => uuid), ({ code }) => refused.push(code), undefined, 1_000)();
  const received = (uuid) => ({ type: "task-received", uuid, root_id: "r", state: "RECEIVED", attempt: 1, timestamp: 1, hostname: "w@h" });
  for (const uuid of ["r", ...Array.from({ length: 20_000 }, (_, index) => `${index}`)]) made.event(received(uuid), null);
  const known = made.make();
  assert.ok(known.length >= 900 && known.length <= 1_000);
  assert.deepEqual([known[0], known[1], known.at(-1), refused], ["r", `${20_001 - known.length}`, "19999", ["too-many-tasks"]]);
  made.refresh([{ tasks: Array.from({ length: 5_000 }, (_, index) => ({ uuid: `s${index}`, root_id: "r" })), workers: [] }]);
  assert.ok(made.make().length <= 1_000);
  assert.equal(refused.length, 1);
});

test("the table of workers keeps those that were heard last", () => {
  const table = workers();
  const changed = (hostname) => table.control({ type: "gateway-worker", worker: { hostname } });
  for (let index = 0; index < 25_000; index++) {
    changed(`w${index}`);
    if (index % 500 === 0) changed("live@host");
  }
  const hostnames = new Set(table.make().map(({ hostname }) => hostname));
  assert.ok(hostnames.size >= 9_000 && hostnames.size <= 10_000);
  assert.deepEqual(["live@host", "w24999", "w1"].map((hostname) => hostnames.has(hostname)), [true, true, false]);
});

test("only the first 4,096 characters of a value are compared, as in the gateway", () => {
  const long = "é😀".repeat(2_048);
  assert.equal(matcher([{ name: [`*😀`] }])({ name: `${long}x` }), true);
  assert.equal(matcher([{ name: [`*x`] }])({ name: `${long}x` }), false);
  assert.equal(matcher([{ name: ["!*x"] }])({ name: `${"y".repeat(4_096)}x` }), true);
});

/** A server that answers each request by `answer(response, count)`. */
async function server(answer) {
  let count = 0;
  const made = createServer((request, response) => answer(response, ++count)).listen(0, "127.0.0.1");
  await new Promise((resolve) => made.once("listening", resolve));
  const stop = () => (made.closeAllConnections(), new Promise((resolve) => made.close(resolve)));
  return { url: `http://127.0.0.1:${made.address().port}`, stop, count: () => count };
}
const STREAM = { "Content-Type": "text/event-stream" };
const data = (...messages) => messages.map((message) => `data: ${typeof message === "string" ? message : JSON.stringify(message)}\n\n`).join("");

test("an event that nothing can read does not end the stream, and is delivered with all of its fields", async () => {
  const open = { type: "gateway-open", id: "e-0", resume: "live" };
  const done = { type: "gateway-snapshot", id: "e-0", tasks: [], workers: [], done: true };
  const odd = `{"type":"task-own","id":"e-1","uuid":"__proto__","__proto__":{"polluted":1},"constructor":2,"total":${UNREADABLE},"cluster":${UNREADABLE},"record":{"uuid":"__proto__","custom":{"__proto__":1}}}`;
  const { url, stop, count } = await server((response) => {
    response.writeHead(200, STREAM).write(data(open, done, odd, { type: "task-own", id: "e-2", uuid: "u", record: null }));
  });
  const client = connect({ url });
  const task = client.task("__proto__");
  task.subscribe(() => {});
  const got = [];
  for await (const event of client.events()) if (got.push(event) === 2) break;
  assert.deepEqual(got.map(({ uuid }) => uuid), ["__proto__", "u"]);
  assert.deepEqual(Object.getOwnPropertyDescriptor(got[0], "__proto__").value, { polluted: 1 });
  assert.deepEqual([got[0].constructor, {}.polluted, task.value.uuid, count()], [2, undefined, "__proto__", 1]);
  client.close();
  await stop();
});

test("a server cannot make the client ask again at once", async () => {
  for (const close of [{ retry_ms: 1e12 }, { retry_ms: "1e12" }, { retry_ms: JSON.parse(UNREADABLE) }, { retry_ms: -1e12 }]) {
    const { url, stop, count } = await server((response) => {
      response.writeHead(200, STREAM).end(data({ type: "gateway-open", id: "e-0" }, { type: "gateway-close", id: "e-0", ...close }));
    });
    const client = connect({ url });
    client.events().subscribe(() => {});
    await new Promise((resolve) => client.on("status", (status) => status === "waiting" && resolve()));
    await new Promise((resolve) => setTimeout(resolve, 60));
    assert.ok(count() <= 2, `${count()} requests after ${JSON.stringify(close)}`);
    client.close();
    await stop();
  }
});

test("a message without an end is not kept", async () => {
  const piece = "x".repeat(2 ** 20);
  let sent = 0;
  const { url, stop } = await server((response, count) => {
    response.writeHead(200, STREAM).write("data: ");
    if (count > 1) return;
    const write = () => {
      while (!response.destroyed && sent < 256 && (sent++, response.write(piece)));
    };
    response.on("drain", write);
    write();
  });
  const client = connect({ url });
  client.events().subscribe(() => {});
  await new Promise((resolve) => client.on("status", (status) => status === "waiting" && resolve()));
  assert.ok(sent < 100, `${sent} MB sent`);
  client.close();
  await stop();
});
