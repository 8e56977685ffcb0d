/** Who may read: tokens, and answers other than yes. */
import { type Client, GatewayError, type Gap, login, logout } from "../../dist/index.js";
import { read, record } from "./events.js";
import type { Test } from "./list.js";
import { numbers, type Told, type Trial, unique } from "./trial.js";

/** Each is given in turn, the last one for ever; `given` are those that were. */
function tokens(...words: string[]) {
  const given: string[] = [];
  const token = async () => {
    given.push(words[Math.min(given.length, words.length - 1)]!);
    return given.at(-1)!;
  };
  return { token, given };
}

async function hears(t: Trial, client: Client): Promise<void> {
  const name = unique("tick");
  const told = record(client.events({ name }));
  const comes = async () => {
    await (await t.load(name, 1)).done();
    return told.length > 0;
  };
  await t.until("an event comes", comes);
}

/** A client of the gateway with authentication, and all that it emits. */
async function guarded(t: Trial, token: () => Promise<string>, name: string) {
  const { url } = await t.door({ auth: true });
  const client = t.connect({ url, token });
  const told: Told[] = [];
  const statuses: string[] = [];
  const errors: unknown[] = [];
  const gaps: Gap[] = [];
  client.on("status", (status) => statuses.push(status));
  client.on("error", (error) => errors.push(error));
  client.on("gap", (gap) => gaps.push(gap));
  client.events({ name, type: "task-tick" }, { onGap: (gap) => told.push(gap) }).subscribe((event) => told.push(event));
  await t.open(client);
  return { url, client, told, statuses, errors, gaps };
}

/** Each of the events was received once, in order, without an error or another status than `open`. */
async function whole(t: Trial, { told, statuses, errors, gaps }: Awaited<ReturnType<typeof guarded>>, count: number) {
  await t.until("the last event comes", () => told.at(-1)?.["n"] === count - 1);
  t.equal(numbers(told), Array.from({ length: count }, (_, n) => n), "the events");
  t.equal(new Set(told.map((event) => event["id"])).size, count, "the number of ids");
  t.equal([gaps, errors, statuses], [[], [], ["connecting", "open"]], "gaps, errors, statuses");
}

/** What a client says on its way to its end. */
async function fails(t: Trial, client: Client): Promise<any> {
  const errors: unknown[] = [];
  client.on("error", (error) => errors.push(error));
  const ready = client.task(unique("task")).ready;
  const reading = read(client.events({ name: "x" }), -1);
  await t.rejects("ready", ready);
  const error = await t.rejects("the iterator", reading);
  t.ok(error instanceof GatewayError, `a GatewayError, not ${error}`);
  t.equal([client.status, errors.length], ["closed", 1], "its status, and how many errors were told");
  t.ok(errors[0] === error, "it is the same error");
  return error;
}

export const access: Test[] = [
  {
    name: "token: the function is asked for each connection",
    async run(t) {
      const door = await t.door({ tokens: ["one"] });
      const { token, given } = tokens("one", "two");
      const client = t.connect({ url: door.url, token });
      await hears(t, client);
      t.equal(given, ["one"], "it was asked");
      await door.answer({ tokens: ["two"] });
      await door.cut();
      await t.until("it was asked again", () => given.length > 1);
      await hears(t, client);
      const seen = (await door.state()).tokens;
      t.ok(seen[0] === "one" && seen.at(-1) === "two", `what came with the requests: ${seen}`);
    },
  },
  {
    name: "token: a string goes with each request, as it is",
    async run(t) {
      const token = t.transport === "sse" ? "a+b/c~==" : "a+b.c~-_";
      const door = await t.door({ tokens: [token] });
      await hears(t, t.connect({ url: door.url, token }));
      t.ok((await door.state()).tokens.every((seen) => seen === token), "the token");
    },
  },
  {
    name: "token: one that is refused is asked for again",
    async run(t) {
      const door = await t.door({ tokens: ["new"] });
      const { token, given } = tokens("old", "new");
      await hears(t, t.connect({ url: door.url, token }));
      t.equal(given.slice(0, 2), ["old", "new"], "what was given");
    },
  },
  {
    name: "token: one that is refused, and three others after it, are an error",
    // A browser does not say why a WebSocket was refused.
    runs: ["node sse", "chromium sse"],
    async run(t) {
      const door = await t.door({ tokens: ["new"] });
      const { token, given } = tokens("old");
      const error = await fails(t, t.connect({ url: door.url, token }));
      t.equal([error.status, error.code], [401, "test_401"], "status and code");
      const seen = (await door.state()).tokens;
      t.equal([given.length, seen.length], [4, 4], "how often it was asked for, and tried");
    },
  },
  {
    name: "token: a string that is refused is an error at once",
    runs: ["node sse", "chromium sse"],
    async run(t) {
      const door = await t.door({ tokens: ["new"] });
      t.equal((await fails(t, t.connect({ url: door.url, token: "old" }))).status, 401, "status");
      t.equal((await door.state()).tokens, ["old"], "what was tried");
    },
  },
  {
    name: "token: it expires again and again while events flow: each event once, and no gap",
    isLong: true,
    async run(t) {
      const name = unique("tick");
      let calls = 0;
      const token = () => {
        calls += 1;
        return t.sign(2, { name: [name] });
      };
      const given = await guarded(t, token, name);
      const count = 2_000;
      const load = await t.load(name, count, { per_second: 200, is_task: true });
      const task = given.client.task(unique("never"));
      task.subscribe(() => undefined);
      await load.done();
      await whole(t, given, count);
      t.ok(calls >= 3, `it was asked for ${calls} tokens`);
      t.equal([task.status, task.error], ["unknown", null], "another watch of this connection");
    },
  },
  {
    name: "token: a static token is removed while events flow, and the next one resumes",
    async run(t) {
      const names = [1, 2].map(() => unique("token").replaceAll(".", "-"));
      const create = (name: string) => t.command<{ token: string }>("/tokens/create", { name, may: ["events"] });
      const made = await Promise.all(names.map(create));
      const { token, given } = tokens(...made.map(({ token }) => token));
      const { url } = await t.door({ auth: true });
      await t.until("the gateway has both", async () => {
        const headers = { Authorization: `Bearer ${made[1]!.token}` };
        return (await fetch(`${url}/events/none`, { headers })).status !== 401;
      });
      const name = unique("tick");
      const all = await guarded(t, token, name);
      const load = await t.load(name, 1_000, { per_second: 250 });
      await t.until("events come", () => all.told.length > 50);
      await t.command("/tokens/remove", { name: names[0] });
      await load.done();
      await t.until("the stream has ended, and it was asked for another token", () => given.length === 2);
      await whole(t, all, 1_000);
      t.equal(given.length, 2, "how often it was asked for a token");
    },
  },
  {
    name: "token: a foreign scope sees nothing",
    async run(t) {
      const [own, foreign] = [unique("tick"), unique("tick")];
      const { client, url, told } = await guarded(t, () => t.sign(600, { name: [own] }), own);
      const others = [record(client.events({ name: foreign })), record(client.events({ name: `*${foreign.slice(6)}` }))];
      const everything = record(client.events());
      const { uuid } = await t.run("canvas.add", 1, 2);
      const watches = [client.task(uuid), client.workflow(uuid)];
      for (const watch of watches) watch.subscribe(() => undefined);
      const open = t.connect({ url: (await t.door()).url });
      t.equal((await open.task(uuid).ready).result, "3", "the task has run");
      for (const each of [foreign, own]) await (await t.load(each, 20, { is_task: true })).done();
      await t.until("its own events come", () => told.length === 20 && everything.length >= 21);
      t.equal(everything.filter((event) => event.name !== own), [], "all events");
      t.equal(others, [[], []], "foreign events");
      t.equal(watches.map(({ value, status }) => [value, status]), [[null, "unknown"], [null, "unknown"]], "the foreign task");
      const since = read(client.events({ name: [own, foreign], type: "task-tick" }, { since: "5m" }), 19);
      t.equal((await since).filter((event) => event.name !== own), [], "the history");
      const error = await t.rejects("no workers", read(t.connect({ url, token: "cgw_x" }).events(), -1)).catch((late) => late);
      if (t.transport === "sse") t.equal([error.status, error.code], [401, "invalid-token"], "an unknown token");
    },
  },
  {
    name: "token: login begins a session of cookies, for the client and for EventSource; logout ends it",
    runs: ["chromium sse", "chromium websocket"],
    page: "auth",
    async run(t) {
      const [url, name] = ["/celery", unique("tick")];
      t.equal((await fetch(`${url}/events`)).status, 401, "without a session");
      t.equal((await t.rejects("a bad token", login(url, "cgw_bad"))).status, 401, "the status of a bad token");
      await login(url, await t.sign(600, { name: [name] }));
      t.ok(!document.cookie.includes("celery"), "scripts cannot read the cookie");
      const client = t.connect({ url });
      const told = record(client.events({ name, type: "task-tick" }));
      const source = new EventSource(`${url}/events?name=${name}&type=task-tick`);
      const heard: unknown[] = [];
      source.onmessage = ({ data }) => heard.push(JSON.parse(data));
      await t.open(client);
      await t.until("the EventSource is open", () => source.readyState === EventSource.OPEN);
      await (await t.load(name, 10, { is_task: true })).done();
      await t.until("both have all events", () => told.length === 10 && heard.length === 10);
      await logout(url);
      await t.until("the EventSource is refused", () => source.readyState === EventSource.CLOSED);
      await t.until("the client is not connected", () => client.status !== "open");
      if (t.transport === "sse") await t.until("the client is closed", () => client.status === "closed");
      t.equal((await fetch(`${url}/events`)).status, 401, "after the session");
    },
  },
  {
    name: "responses: 400, 404, 413, 414 and 431 are errors",
    runs: ["node sse", "chromium sse"],
    async run(t) {
      for (const status of [400, 404, 413, 414, 431]) {
        const door = await t.door({ tokens: null });
        await door.answer({ statuses: [status, status, status] });
        t.equal((await fails(t, t.connect({ url: door.url }))).status, status, "status");
        t.equal((await door.state()).tokens.length, 1, "it is not tried again");
      }
    },
  },
  {
    name: "answers: 502, 503, 429 and 500 are tried again, after Retry-After",
    async run(t) {
      const door = await t.door({ tokens: null });
      await door.answer({ statuses: [502, 503, 429, 500], retry_after: "1" });
      const begun = performance.now();
      const client = t.connect({ url: door.url });
      const errors: unknown[] = [];
      client.on("error", (error) => errors.push(error));
      await hears(t, client); // four pauses of a second, and random ones of up to 7.5 s together
      const seconds = (performance.now() - begun) / 1000;
      t.equal((await door.state()).tokens.length, 5, "how often it was tried");
      // A browser does not say what a WebSocket was answered.
      if (t.transport === "sse") t.ok(seconds >= 3.9, `it waits for Retry-After, not ${seconds} s`);
      t.equal(errors, [], "no error");
    },
  },
];
