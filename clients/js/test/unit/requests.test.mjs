// Single requests, health, messages of the gateway's own, and refusals of one watch. The server is a real one.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import { connect, GatewayError } from "../../dist/index.js";

const nothing = () => {};
const OPEN = [
  { type: "gateway-open", id: "e-0", resume: "live" },
  {
    ...{ type: "gateway-status", id: "e-0", sources: [{ cluster: null, consuming: true, reason: "consuming", since: 1 }] },
    ...{ version: "1.2.3", started: 5, control: true, actions: ["revoke"] },
  },
  { type: "gateway-snapshot", id: "e-0", tasks: [], workers: [], done: true },
];
const until = async (what, condition) => {
  for (const end = performance.now() + 10_000; !condition(); ) {
    assert.ok(performance.now() < end, what);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};

/** A gateway: `answer(request)` returns `[status, JSON]`, or the messages of a stream, which stays open. */
async function gateway(t, answer) {
  const seen = [];
  const streams = new Set();
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const { method, url, headers } = request;
    const body = chunks.length ? JSON.parse(Buffer.concat(chunks)) : undefined;
    seen.push({ method, url, headers, body });
    const [first, json] = answer(seen.at(-1));
    if (typeof first === "number") return response.writeHead(first, { "Content-Type": "application/json" }).end(JSON.stringify(json));
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    streams.add(response);
    for (const message of answer(seen.at(-1))) response.write(`data: ${JSON.stringify(message)}\n\n`);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => (server.closeAllConnections(), server.close()));
  const send = (message) => streams.forEach((stream) => stream.write(`data: ${JSON.stringify(message)}\n\n`));
  return { url: `http://127.0.0.1:${server.address().port}/celery/`, seen, send };
}
const connected = (t, options) => {
  const client = connect(options);
  t.after(() => client.close());
  return client;
};

test("fetch: JSON of an endpoint, with parameters and the token", async (t) => {
  const { url, seen } = await gateway(t, () => [200, { uuid: "a" }]);
  const client = connected(t, { url, token: "secret" });
  assert.deepEqual(await client.fetch("/tasks/a%2Fb", { fields: ["x", "y"], limit: 3, none: undefined }), { uuid: "a" });
  assert.deepEqual([seen[0].method, seen[0].url, seen[0].headers.authorization], ["GET", "/celery/tasks/a%2Fb?fields=x&fields=y&limit=3", "Bearer secret"]);
  const socket = connected(t, { url: url.replace("http", "ws"), transport: "websocket", WebSocket: class {} });
  await socket.fetch("/workers");
  assert.equal(seen[1].url, "/celery/workers");
});

test("fetch: an error has what the gateway says; an aborted one is an AbortError", async (t) => {
  const error = { code: "bad-value", message: "invalid sort=x", parameter: "sort", allowed: ["newest", "oldest"] };
  const { url } = await gateway(t, () => [400, { error }]);
  const client = connected(t, { url });
  await assert.rejects(client.fetch("/tasks", { sort: "x" }), (thrown) => {
    assert.ok(thrown instanceof GatewayError);
    const { code, message, parameter, allowed, status } = thrown;
    assert.deepEqual({ code, message, parameter, allowed, status }, { ...error, status: 400 });
    return true;
  });
  await assert.rejects(client.fetch("/tasks", {}, AbortSignal.abort()), { name: "AbortError" });
  await assert.rejects(connect({ url: "http://127.0.0.1:1" }).fetch("/tasks"), TypeError);
});

test("fetch: a token of a function is kept until it is refused; then the next one is tried once", async (t) => {
  const { url, seen } = await gateway(t, ({ headers }) =>
    headers.authorization === "Bearer t1" || headers.authorization === "Bearer t3" ? [200, {}] : [401, { error: { code: "invalid-token", message: "no" } }],
  );
  let count = 0;
  const client = connected(t, { url, token: async () => `t${++count}` });
  await client.fetch("/a");
  await client.fetch("/b");
  assert.equal(count, 1);
  count = 4;
  const other = connected(t, { url, token: () => `t${count--}` });
  await other.fetch("/c"); // t4 is refused, t3 is not
  await assert.rejects(connected(t, { url, token: () => "t9" }).fetch("/d"), { code: "invalid-token", status: 401 });
  assert.deepEqual(seen.map(({ headers }) => headers.authorization.slice(7)), ["t1", "t1", "t4", "t3", "t9", "t9"]);
});

test("revoke: a POST of JSON", async (t) => {
  const { url, seen } = await gateway(t, () => [202, { revoked: ["a"], count: 1 }]);
  const client = connected(t, { url });
  assert.deepEqual(await client.revoke("a/b"), { revoked: ["a"], count: 1 });
  await client.revokeWorkflow("r", { terminate: true, signal: "SIGINT", cluster: "eu" });
  assert.deepEqual(
    seen.map(({ method, url, body, headers }) => [method, url, body, headers["content-type"]]),
    [
      ["POST", "/celery/tasks/a%2Fb/revoke", { terminate: false }, "application/json"],
      ["POST", "/celery/workflows/r/revoke?cluster=eu", { terminate: true, signal: "SIGINT" }, "application/json"],
    ],
  );
});

test("polled watches: what they ask for, their values, and an error that ends one", async (t) => {
  const { url, seen } = await gateway(t, ({ url }) => {
    if (url.includes("/failures")) return [200, { failures: [{ signature: "f" }], id: "e-1" }];
    if (url.includes("/queues")) return [403, { error: { code: "forbidden", message: "no" } }];
    return [200, { total: 3, counts: { state: { SUCCESS: 3 } }, other: {}, id: "e-1" }];
  });
  const client = connected(t, { url });
  const watches = [
    client.failures({ name: ["a,b", "c*"], since: "1h", limit: 5 }),
    client.queues(),
    client.counts({ state: "SUCCESS" }, ["state", "name"], { q: "x", where: { runtime: ">1" } }),
  ];
  watches.forEach((watch) => watch.subscribe(nothing));
  await until("all are answered", () => watches.every(({ status }) => status !== "loading"));
  assert.deepEqual(watches.map(({ status }) => status), ["known", "error", "known"]);
  assert.deepEqual([watches[0].value, watches[1].error.code], [[{ signature: "f" }], "forbidden"]);
  assert.deepEqual(watches[2].value, { total: 3, counts: { state: { SUCCESS: 3 } }, other: {} });
  assert.equal(client.failures({ name: ["a,b", "c*"], since: "1h", limit: 5 }).value, watches[0].value, "equal watches share");
  assert.deepEqual(seen.map(({ url }) => decodeURIComponent(url)).sort(), [
    "/celery/failures?since=1h&limit=5&name=a\\,b&name=c*",
    "/celery/queues?",
    "/celery/tasks/counts?q=x&by=state,name&state=SUCCESS&runtime>1",
  ].map((url) => url.replace(/\?$/, "")));
  assert.equal(client.status, "idle", "nothing needs a stream");
});

test("health: what the gateway says of itself, and the age of the last byte, each second", async (t) => {
  const { url, send } = await gateway(t, () => OPEN);
  const client = connected(t, { url });
  const none = { status: "idle", heardMs: null, sources: [], version: null, started: null, control: false, actions: [] };
  assert.deepEqual(client.health, none);
  const told = [];
  const off = client.on("health", (health) => told.push(health));
  await until("it is reported at once", () => told.length === 1);
  client.events().subscribe(nothing);
  await until("it is open", () => client.status === "open" && client.health.version);
  const { heardMs, ...rest } = client.health;
  const { sources, version, started, control, actions } = OPEN[1];
  assert.deepEqual(rest, { status: "open", sources, version, started, control, actions });
  await until("it is reported each second", () => told.at(-1).heardMs > 900);
  send({ type: "gateway-bookmark", id: "e-1" });
  await until("a keep-alive is heard", () => client.health.heardMs < 500);
  send({ type: "gateway-status", id: "e-2", sources: [] });
  await until("a change is told", () => told.at(-1).sources.length === 0);
  assert.equal(told.at(-1).version, "1.2.3", "a later message has less");
  off();
  const count = told.length;
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  assert.equal(told.length, count);
});

test("control and skipped are events of the client; the rate is asked for, and has its own connection", async (t) => {
  const { url, seen, send } = await gateway(t, () => OPEN);
  const client = connected(t, { url });
  const told = [];
  client.on("control", (action) => told.push(action.uuid));
  client.on("skipped", ({ count }) => told.push(count));
  client.events().subscribe(nothing);
  client.events({ name: "a" }, { maxRate: 200, onSkipped: ({ count }) => told.push(`own ${count}`) }).subscribe(nothing);
  await until("both are asked for", () => seen.length === 2);
  await until("it is open", () => client.status === "open");
  assert.deepEqual(seen.map(({ body }) => [body.any, body.max_rate]).sort(), [[[{}], undefined], [[{ name: ["a"] }], 200]].sort());
  await until("the messages have come", () => {
    if (told.length === 0) send({ type: "gateway-control", id: "e-1", uuid: "u" });
    return told.length > 0;
  });
  assert.deepEqual(told, ["u"], "once, although both streams have it");
  send({ type: "gateway-unheard-of", id: "e-2" });
  send({ type: "gateway-skipped", id: "e-3", count: 7 });
  await until("it is reported", () => told.includes("own 7") && told.includes(7));
});

test("workers and statistics are asked for together; what is refused fails alone", async (t) => {
  const { url, seen } = await gateway(t, ({ body }) =>
    body.workers ? [403, { error: { code: "forbidden", message: "no workers", parameter: "workers" } }] : OPEN,
  );
  const client = connected(t, { url });
  const errors = [];
  client.on("error", (error) => errors.push(error));
  const [workers, slow, quick, other] = [
    client.workers(),
    client.statistics({ intervalMs: 10_000 }),
    client.statistics({ intervalMs: 2_000 }),
    client.statistics({ window: "5m", intervalMs: 3_000 }),
  ];
  const events = [];
  for (const watch of [slow, quick, other, workers]) watch.subscribe(nothing);
  client.events({ type: "x" }).subscribe((event) => events.push(event));
  await until("the workers are refused", () => workers.status === "error");
  await until("the others go on", () => client.status === "open");
  assert.deepEqual([workers.error.code, workers.error.parameter, errors], ["forbidden", "workers", []]);
  const [first, last] = [seen[0].body, seen.at(-1).body];
  assert.deepEqual([first.workers, first.statistics, first.window], [1, "2000ms", "1h"]);
  assert.deepEqual([last.workers, last.statistics, last.window, last.any], [undefined, "2000ms", "1h", [{ type: ["x"] }]]);
  const alone = connected(t, { url });
  const watch = alone.workers();
  watch.subscribe(nothing);
  await until("refused", () => watch.status === "error");
  assert.equal(alone.status, "idle");
});

for (const transport of ["sse", "websocket"]) {
  test(`${transport}: a token without state: what it does not allow ends alone, in the order of the gateway's checks`, async (t) => {
    const check = ({ view, statistics, snapshot }) => {
      const parameter = view ? "view" : statistics ? "statistics" : snapshot?.length ? "snapshot" : undefined;
      return parameter && { code: "forbidden", message: `no ${parameter}`, parameter };
    };
    const { url } = await gateway(t, ({ body, method }) => {
      const error = method === "GET" ? { code: "forbidden", message: "no" } : check(body);
      return error ? [403, { error }] : OPEN;
    });
    class Socket {
      constructor() {
        queueMicrotask(() => (this.tell(OPEN[0]), this.onopen()));
      }
      send(text) {
        const error = check(JSON.parse(text));
        queueMicrotask(() => (error ? this.tell({ type: "gateway-error", id: "e-0", ...error }) : OPEN.forEach((message) => this.tell(message))));
      }
      tell(message) {
        if (!this.isClosed) this.onmessage({ data: JSON.stringify(message) });
      }
      close() {
        this.isClosed = true;
      }
    }
    const client = connected(t, { url, transport, WebSocket: Socket });
    const errors = [];
    client.on("error", (error) => errors.push(error));
    const needy = [client.task("u"), client.workflow("r"), client.tasks(), client.statistics()];
    const workers = client.workers();
    const events = client.events();
    for (const watch of [...needy, workers, events]) watch.subscribe(nothing);
    await until("the others are live", () => workers.status === "known" && client.status === "open");
    assert.deepEqual(needy.map(({ status, error }) => [status, error.code]), Array(4).fill(["error", "forbidden"]));
    assert.deepEqual([workers.value, events.error, errors], [[], null, []]);
    const late = client.task("v");
    late.subscribe(nothing);
    await until("a later one is refused", () => late.status === "error");
    await until("the others go on", () => client.status === "open");
    assert.deepEqual([workers.status, events.error, errors], ["known", null, []]);
  });
}

test("a window that the gateway refuses ends its own statistics only", async (t) => {
  const { url } = await gateway(t, ({ body }) =>
    body.window === "7d" ? [400, { error: { code: "bad-value", message: "no", parameter: "window", allowed: ["1m", "24h"] } }] : OPEN,
  );
  const client = connected(t, { url });
  const [wrong, right] = [client.statistics({ window: "7d" }), client.statistics({ window: "1h" })];
  for (const watch of [wrong, right]) watch.subscribe(nothing);
  await until("the one is refused", () => wrong.status === "error");
  await until("the other goes on", () => client.status === "open");
  assert.deepEqual([wrong.error.allowed, right.status, right.error], [["1m", "24h"], "loading", null]);
});

test("a watched list: the page is fetched once the stream is open, and its events follow", async (t) => {
  const record = { uuid: "b", name: "n", state: "PENDING", sent: 2, stale: false };
  const { url, seen, send } = await gateway(t, ({ method }) =>
    method === "GET" ? [200, { tasks: [{ ...record, uuid: "a", sent: 1, children: [] }], cursor: null, id: "e-0" }] : OPEN,
  );
  const client = connected(t, { url });
  const list = client.tasks({ name: "n", state: ["PENDING", "STARTED"] }, { limit: 2 });
  const values = [];
  list.subscribe((value) => values.push(value));
  await until("the page is there", () => list.value);
  assert.deepEqual([list.value.tasks[0].uuid, list.value.more, list.status], ["a", false, "known"]);
  assert.deepEqual([seen[0].body.any, seen[0].body.view], [[{ name: ["n"], type: ["!worker-*"] }], "record"]);
  send({ type: "task-sent", id: "e-1", uuid: "b", name: "n", record });
  await until("the event is there", () => list.value.tasks.length === 2);
  assert.deepEqual([list.value.tasks[0], list.value.arrived], [{ ...record, children: [] }, 1]);
  await list.more();
  assert.throws(() => client.tasks({ nmae: "n" }), TypeError);
  assert.equal(client.tasks({ name: "n", state: ["PENDING", "STARTED"] }, { limit: 2 }).value, list.value);
});
