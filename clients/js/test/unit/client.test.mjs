// What needs no gateway: URLs, servers that render pages, the contract of stores.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { connect, GatewayError } from "../../dist/index.js";
import { tabs } from "../../dist/tabs.js";

const nothing = () => {};
const isBadUrl = (text) => (error) => error instanceof GatewayError && error.code === "bad-url" && error.message.includes(text);

test("a wrong URL throws at once, and says what is wrong", () => {
  const cases = [
    ["localhost:1", 'write "http://localhost:1"'],
    ["my-host:8555/celery", 'write "http://my-host:8555/celery"'],
    ["file:///celery", "file: is no scheme of a gateway"],
    ["ws://localhost:8555", "ws: is no scheme of a gateway"],
    ["amqp://guest@localhost//", "expected http: or https:"],
    ["http://", "expected a URL such as"],
    ["http://a b", "expected a URL such as"],
    ["http://user:secret@localhost:8555", "use the option token"],
  ];
  for (const [url, text] of cases) assert.throws(() => connect({ url }), isBadUrl(text), url);
  assert.throws(() => connect({ url: "ftp://h", transport: "websocket" }), isBadUrl("ftp: is no scheme"));
  for (const url of ["ws://localhost:1", "wss://h/celery", "http://user:secret@h"]) connect({ url, transport: "websocket" });
});

test("a relative URL outside of a page: nothing happens before it is used, and then there is an error", async () => {
  for (const transport of ["sse", "websocket"]) {
    const client = connect({ url: "/celery", transport, shared: tabs(), WebSocket: class {} });
    const errors = [];
    client.on("error", (error) => errors.push(error));
    const task = client.task("u");
    // As a server renders: subscribed, read and left in one go.
    for (const watch of [task, client.workflow("r"), client.workers()]) {
      const told = [];
      const leave = watch.subscribe((value) => told.push(value));
      for (const end = performance.now() + 20; performance.now() < end; ); // it takes longer than requests are gathered
      leave();
      assert.deepEqual([told, watch.value, watch.status, watch.error], [[null], null, "loading", null]);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual([client.status, errors], ["idle", []]);
    await assert.rejects(task.ready, isBadUrl('relative url="/celery" outside of a page'));
    await assert.rejects(client.events()[Symbol.asyncIterator]().next(), isBadUrl("relative"));
    assert.deepEqual([client.status, errors.length, task.status, task.error], ["closed", 1, "error", errors[0]]);
  }
});

test("a server that renders a page does not connect, with an absolute URL either", async () => {
  const asked = [];
  const fetch = async (url) => {
    asked.push(url);
    throw new TypeError("nobody is there");
  };
  const client = connect({ url: "http://127.0.0.1:9", fetch });
  client.task("u").subscribe(nothing)();
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual([asked, client.status], [[], "idle"]);
});

test("a missing WebSocket is an error at the first connection, not while a module loads", () => {
  const program = `
    delete globalThis.WebSocket;
    const { connect } = await import(${JSON.stringify(import.meta.resolve("../../dist/index.js"))});
    const client = connect({ url: "http://127.0.0.1:9", transport: "websocket" });
    await client.task("u").ready.catch((error) => console.log(error.code, error.message));`;
  const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], { encoding: "utf8" });
  assert.equal(stdout, "no-websocket no WebSocket here: set the option WebSocket\n", stderr);
});

test("credentials go to fetch, and only if they are given", async () => {
  for (const credentials of [undefined, "include", "omit"]) {
    const init = await new Promise((resolve) => {
      const fetch = async (_, init) => (resolve(init), new Response("", { status: 503 }));
      const client = connect({ url: "http://127.0.0.1:9", credentials, fetch });
      client.task("u").subscribe(nothing);
      setTimeout(() => client.close(), 100);
    });
    assert.equal(init.credentials, credentials);
    assert.equal("credentials" in init, credentials !== undefined);
  }
});

test("a watch is a Svelte store: it calls back at once, and returns how to leave", () => {
  const client = connect({ url: "http://127.0.0.1:9", fetch: () => new Promise(nothing) });
  const { subscribe } = client.task("u"); // a store has no `this`
  const told = [];
  const leave = subscribe((...values) => told.push(values));
  assert.deepEqual(told, [[null]]);
  assert.equal(typeof leave, "function");
  leave();
  leave();
  const events = [];
  client.events().subscribe((event) => events.push(event));
  assert.deepEqual(events, [], "events have no current value");
  client.close();
  const closed = client.task("v");
  closed.subscribe((value) => told.push(value));
  assert.deepEqual(told, [[null], null]);
});

test("records are requested if tasks are watched, and they are not fields of events", async () => {
  const record = { uuid: "u", state: "STARTED" };
  const messages = [
    { type: "gateway-open", id: "e-0", resume: "live" },
    { type: "gateway-snapshot", id: "e-0", tasks: [], workers: [], done: true },
    { type: "task-started", id: "e-1", uuid: "u", record },
  ];
  const requests = [];
  const fetch = async (_, { body }) => {
    requests.push(JSON.parse(body));
    const text = messages.map((message) => `data: ${JSON.stringify(message)}\n\n`).join("");
    const stream = new ReadableStream({ start: (controller) => controller.enqueue(new TextEncoder().encode(text)) });
    return new Response(stream, { headers: { "Content-Type": "text/event-stream" } });
  };
  for (const [watch, view, expected] of [
    [nothing, undefined, messages[2]],
    [(client) => client.task("u").subscribe(nothing), "record", { type: "task-started", id: "e-1", uuid: "u" }],
    [(client) => client.workers().subscribe(nothing), undefined, messages[2]],
  ]) {
    const client = connect({ url: "http://127.0.0.1:9", fetch });
    watch(client);
    for await (const event of client.events()) {
      assert.deepEqual(event, expected);
      break;
    }
    assert.equal(requests.pop().view, view);
    client.close();
  }
});
