// Tokens: how they are sent, what happens when they expire or are refused, and sessions. The servers are real ones.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import { WebSocket, WebSocketServer } from "ws";
import { connect, GatewayError, login, logout } from "../../dist/index.js";

const TRANSPORTS = ["sse", "websocket"];
const event = (n) => ({ type: "task-tick", id: `e-${n}`, uuid: "u", n });
const OPEN = [
  { type: "gateway-open", id: "e-0", resume: "live" },
  { type: "gateway-snapshot", id: "e-0", tasks: [], workers: [], done: true },
];
const EXPIRED = { type: "gateway-close", id: "e-1", reason: "expired" };
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(what, condition, timeoutMs = 10_000) {
  const deadline = performance.now() + timeoutMs;
  while (!condition()) {
    assert.ok(performance.now() < deadline, `not within ${timeoutMs} ms: ${what}`);
    await pause(10);
  }
}

/**
 * A gateway that answers the requests in turn, the last answer for ever. An answer is a status, `[status, headers]`, or
 * `{ messages, code, after }`: what it sends, and the code of the WebSocket's end. Without a code the stream stays open.
 * `after` is awaited before the connection is accepted.
 */
async function gateway(t, ...answers) {
  const seen = [];
  const next = (headers, url) => {
    const { authorization = "", "sec-websocket-protocol": protocols = "" } = headers;
    const token = /(?:Bearer |celery-gateway\.bearer\.)(.*)$/.exec(authorization || protocols)?.[1];
    seen.push({ at: performance.now(), token, url, protocols });
    return answers[Math.min(seen.length, answers.length) - 1];
  };
  const refuse = (answer) => {
    const [status, headers = {}] = [answer].flat();
    const body = JSON.stringify({ type: "about:blank", status, error: { code: `test-${status}`, message: `refused with ${status}` } });
    return { status, headers: { "Content-Type": "application/json", ...headers }, body };
  };
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const answer = next(request.headers, request.url);
    seen.at(-1).request = JSON.parse(String(Buffer.concat(chunks)) || "null");
    if (!answer.messages) {
      const { status, headers, body } = refuse(answer);
      return response.writeHead(status, headers).end(body);
    }
    await answer.after;
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(answer.messages.map((message) => `data: ${JSON.stringify(message)}\n\n`).join(""));
    if (answer.code) response.end();
  });
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => "celery-gateway" });
  server.on("upgrade", async (request, socket, head) => {
    const answer = next(request.headers, request.url);
    const mine = seen.at(-1);
    if (!answer.messages) return socket.end(`HTTP/1.1 ${answer} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
    await answer.after;
    sockets.handleUpgrade(request, socket, head, (ws) => {
      ws.send(JSON.stringify({ type: "gateway-open", id: "e-0" })); // of the handshake's own stream
      ws.on("message", (text) => {
        mine.request = JSON.parse(text);
        for (const message of answer.messages) ws.send(JSON.stringify(message));
        if (answer.code) ws.close(answer.code);
      });
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => (server.closeAllConnections(), sockets.clients.forEach((ws) => ws.terminate()), server.close()));
  return { url: `http://127.0.0.1:${server.address().port}`, seen };
}

/** A client of it, what it emits, and the events of a watch. */
function watch(t, url, transport, token) {
  const client = connect({ url, transport, token, WebSocket });
  t.after(() => client.close());
  const [statuses, errors, gaps, numbers] = [[], [], [], []];
  client.on("status", (status) => statuses.push(status));
  client.on("error", (error) => errors.push(error));
  client.on("gap", (gap) => gaps.push(gap));
  client.events().subscribe(({ n }) => numbers.push(n));
  return { client, statuses, errors, gaps, numbers };
}

/** Returns the words in turn, the last one for ever. */
function tokens(...words) {
  const given = [];
  const token = async () => (given.push(words[Math.min(given.length, words.length - 1)]), given.at(-1));
  return { token, given };
}

for (const transport of TRANSPORTS) {
  const ends = transport === "sse" ? [[EXPIRED]] : [[EXPIRED], []]; // a WebSocket may end with its close code only
  for (const end of ends) {
    test(`${transport}: an expired token is renewed at once, ${end.length ? "after gateway-close" : "after code 4001"}`, async (t) => {
      const { url, seen } = await gateway(
        t,
        { messages: [...OPEN, event(1), ...end], code: 4001 },
        { messages: [OPEN[0], event(2), event(3)] },
      );
      const { token, given } = tokens("one", "two");
      const { statuses, errors, gaps, numbers, client } = watch(t, url, transport, token);
      await until("all events", () => numbers.length === 3);
      assert.deepEqual([numbers, given, seen.map((one) => one.token)], [[1, 2, 3], ["one", "two"], ["one", "two"]]);
      assert.equal(seen[1].request.last_event_id, "e-1");
      assert.equal(seen[1].request.snapshot.length, 0, "nothing is fetched again");
      assert.deepEqual([statuses, errors, gaps, client.status], [["connecting", "open"], [], [], "open"], "it never waits");
    });
  }

  test(`${transport}: tokens that expire at once are not renewed in a hot loop`, async (t) => {
    const { url, seen } = await gateway(t, { messages: [...OPEN, event(1), EXPIRED], code: 4001 });
    const { client, statuses } = watch(t, url, transport, tokens("short").token);
    await until("it waits", () => statuses.includes("waiting"));
    await pause(1_500);
    assert.deepEqual([seen.length, client.status], [2, "waiting"]);
  });

  for (const when of ["a token is renewed", "the client connects with a fresh token"]) {
    test(`${transport}: a watch that is added while ${when}`, async (t) => {
      let accept, renew;
      const after = new Promise((resolve) => (accept = resolve));
      const { url, seen } = await gateway(
        t,
        { messages: [...OPEN, event(1), EXPIRED], code: 4001 },
        { messages: [OPEN[0], event(2), { ...OPEN[1], id: "e-2" }], after },
      );
      let calls = 0;
      const token = () => (++calls === 1 ? "one" : new Promise((resolve) => (renew = () => resolve("two"))));
      const { client, numbers, statuses, errors } = watch(t, url, transport, token);
      await until("a token is asked for", () => renew);
      if (when !== "a token is renewed") {
        renew();
        await until("it connects", () => seen.length > 1);
      }
      const task = client.task("u");
      task.subscribe(() => {});
      await pause(30); // longer than watches are gathered
      renew();
      accept();
      await until("the task is unknown", () => task.status === "unknown");
      assert.deepEqual([numbers, statuses, errors], [[1, 2], ["connecting", "open"], []]);
      assert.deepEqual([seen.at(-1).token, seen.at(-1).request.snapshot], ["two", [{ uuid: ["u"] }]]);
    });
  }

  test(`${transport}: a token function that fails, and then does not`, async (t) => {
    const { url, seen } = await gateway(
      t,
      { messages: [...OPEN, event(1), EXPIRED], code: 4001 },
      { messages: [OPEN[0], event(2)] },
    );
    let calls = 0;
    const token = async () => {
      if (++calls === 2) throw new Error("the back end is away");
      return `token-${calls}`;
    };
    const { errors, numbers, statuses } = watch(t, url, transport, token);
    await until("all events", () => numbers.length === 2);
    assert.deepEqual([errors.map((error) => error.message), statuses.includes("waiting")], [["the back end is away"], true]);
    assert.deepEqual([seen.map((one) => one.token), seen[1].request.last_event_id], [["token-1", "token-3"], "e-1"]);
  });

  test(`${transport}: a token that no request can have is an error that does not contain it`, async (t) => {
    const { url, seen } = await gateway(t, 500);
    for (const bad of ["secr\net", "secrét", "s e c r e t", ...(transport === "websocket" ? ["sec/ret", "secret="] : [])]) {
      const { client, errors } = watch(t, url, transport, bad);
      await until("it is closed", () => client.status === "closed");
      assert.deepEqual([errors.length, errors[0].code, errors[0] instanceof GatewayError], [1, "bad-token", true], bad);
      assert.match(errors[0].message, /the token has characters/);
      assert.doesNotMatch(errors[0].message + errors[0].stack.split("\n")[0], /sec|et$/);
    }
    assert.deepEqual(seen, []);
  });

  test(`${transport}: how a token is sent; white space around it is not`, async (t) => {
    const token = "aZ09-._~+";
    const { url, seen } = await gateway(t, { messages: OPEN });
    const { client } = watch(t, url, transport, ` ${token}\n`);
    await until("it is open", () => client.status === "open");
    assert.equal(seen[0].token, token);
    assert.ok(!seen[0].url.includes("aZ09") && !seen[0].url.includes("token"), seen[0].url);
    if (transport === "websocket") assert.equal(seen[0].protocols, `celery-gateway,celery-gateway.bearer.${token}`);
  });
}

test("websocket: no subprotocol without a token", async (t) => {
  const { url, seen } = await gateway(t, { messages: OPEN });
  const { client } = watch(t, url, "websocket", undefined);
  await until("it is open", () => client.status === "open");
  assert.equal(seen[0].protocols, "");
});

test("a fresh token that is refused: back-off, three more, and an error", async (t) => {
  const { url, seen } = await gateway(t, { messages: [...OPEN, EXPIRED], code: 4001 }, 401);
  const { client, errors, statuses } = watch(t, url, "sse", tokens("one", "old").token);
  await until("it is closed", () => client.status === "closed", 15_000);
  assert.deepEqual([seen.length, errors.map(({ status, code }) => [status, code])], [5, [[401, "test-401"]]]);
  assert.ok(statuses.includes("waiting"));
});

test("an expired string is refused once, and that is final", async (t) => {
  const { url, seen } = await gateway(t, { messages: [...OPEN, EXPIRED], code: 4001 }, 401);
  const { client, errors } = watch(t, url, "sse", "one");
  await until("it is closed", () => client.status === "closed");
  assert.deepEqual([seen.length, errors.map(({ status }) => status)], [2, [401]]);
});

test("403 is final, whatever the token", async (t) => {
  for (const token of ["one", tokens("one").token, undefined]) {
    const { url, seen } = await gateway(t, 403);
    const { client, errors } = watch(t, url, "sse", token);
    await until("it is closed", () => client.status === "closed");
    assert.deepEqual([seen.length, errors.map(({ status, message }) => [status, message])], [1, [[403, "refused with 403"]]]);
  }
});

test("429 is waited for, as long as Retry-After says", async (t) => {
  for (const status of [429, 503]) {
    const { url, seen } = await gateway(t, [status, { "Retry-After": "1" }], { messages: OPEN });
    const { client, errors } = watch(t, url, "sse", "one");
    await until("it is open", () => client.status === "open");
    assert.ok(seen[1].at - seen[0].at >= 990, `${seen[1].at - seen[0].at} ms`);
    assert.deepEqual(errors, []);
  }
});

test("websocket: a limit of the gateway is waited for, another error of a message is final", async (t) => {
  const error = (code) => ({ type: "gateway-error", id: "e-0", code, message: `refused: ${code}`, parameter: "op" });
  const limited = await gateway(t, { messages: [error("limit")] }, { messages: OPEN });
  const { client, errors } = watch(t, limited.url, "websocket", "one");
  await until("it is open", () => client.status === "open");
  assert.deepEqual([limited.seen.length, errors], [2, []]);
  const forbidden = await gateway(t, { messages: [error("forbidden")] });
  const other = watch(t, forbidden.url, "websocket", tokens("one").token);
  await until("it is closed", () => other.client.status === "closed");
  assert.deepEqual([forbidden.seen.length, other.errors.map(({ code }) => code)], [1, ["forbidden"]]);
});

test("sessions: login sends the token, logout does not; refusals are errors", async (t) => {
  const requests = [];
  const server = createServer(({ method, url, headers }, response) => {
    requests.push([method, url, headers.authorization]);
    const isRefused = headers.authorization === "Bearer old";
    response.writeHead(isRefused ? 401 : 204, { "Content-Type": "application/json" });
    response.end(isRefused ? '{"error":{"code":"invalid-token","message":"the token has expired"}}' : undefined);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => (server.closeAllConnections(), server.close()));
  const url = `http://127.0.0.1:${server.address().port}/celery/`;
  assert.equal(await login(url, "new"), undefined);
  assert.equal(await logout(url), undefined);
  await assert.rejects(login(url, "old"), { name: "GatewayError", code: "invalid-token", status: 401, message: "the token has expired" });
  await assert.rejects(login(url, "o\nld"), { code: "bad-token" });
  await assert.rejects(login("/celery", "new"), { code: "bad-url" });
  const path = "/celery/session";
  assert.deepEqual(requests, [["POST", path, "Bearer new"], ["DELETE", path, undefined], ["POST", path, "Bearer old"]]);
});
