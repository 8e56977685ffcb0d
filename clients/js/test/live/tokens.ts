/** Who may read: tokens, and answers other than yes. */
import { type Client, GatewayError } from "../../dist/index.js";
import { read, record } from "./events.js";
import type { Test } from "./list.js";
import { type Trial, unique } from "./trial.js";

/** Each is given in turn, the last one for ever; `given` are those that were. */
function tokens(...words: string[]) {
  const given: string[] = [];
  const token = async () => {
    given.push(words[Math.min(given.length, words.length - 1)]!);
    return given.at(-1)!;
  };
  return { token, given };
}

async function hears(t: Trial, client: Client, timeoutMs?: number): Promise<void> {
  const name = unique("tick");
  const told = record(client.events({ name }));
  const comes = async () => {
    await (await t.load(name, 1)).done();
    return told.length > 0;
  };
  await t.until("an event comes", comes, timeoutMs);
}

/** What a client says on its way to its end. */
async function fails(t: Trial, client: Client): Promise<any> {
  const errors: unknown[] = [];
  client.on("error", (error) => errors.push(error));
  const ready = client.task(unique("task")).ready;
  const reading = read(client.events({ name: "x" }), -1);
  await t.rejects("ready", ready, 20_000);
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
      const token = "a+b/c~==";
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
      await hears(t, client, 20_000); // four pauses of a second, and random ones of up to 7.5 s together
      const seconds = (performance.now() - begun) / 1000;
      t.equal((await door.state()).tokens.length, 5, "how often it was tried");
      // A browser does not say what a WebSocket was answered.
      if (t.transport === "sse") t.ok(seconds >= 3.9, `it waits for Retry-After, not ${seconds} s`);
      t.equal(errors, [], "no error");
    },
  },
];
