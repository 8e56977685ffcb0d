/** `client.events()`: what is told, to whom, and from where on. */
import { type Event, type EventStream, GatewayError } from "../../dist/index.js";
import type { Test } from "./list.js";
import { numbers, pause, type Told, type Trial, unique } from "./trial.js";

const MOST_HELD = 10_000;
const WATCHES = 200;

/** Everything that is told, by callbacks. */
export function record(stream: EventStream): Event[] {
  const events: Event[] = [];
  stream.subscribe((event) => events.push(event));
  return events;
}

/** Reads until the event with this number. */
export async function read(stream: EventStream, last: number): Promise<Event[]> {
  const events: Event[] = [];
  for await (const event of stream) {
    events.push(event);
    if (event["n"] === last) break;
  }
  return events;
}

export const events: Test[] = [
  {
    name: "events: those of the filter, in order, each once, by callback and by iterator",
    async run(t) {
      const { client } = await t.enter();
      const [name, other] = [unique("tick"), unique("other")];
      const told = record(client.events({ name }));
      const reading = read(client.events({ name: [name, "nobody.*"] }), 199);
      const glob = record(client.events([{ name: `${name.slice(0, -1)}?`, type: "task-t*" }, { uuid: "none" }]));
      await t.open(client);
      const loads = [await t.load(other, 50), await t.load(name, 200)];
      for (const load of loads) await load.done();
      const expected = Array.from({ length: 200 }, (_, n) => n);
      t.equal(numbers(await reading), expected, "by iterator");
      await t.until("all by callback", () => told.length >= 200 && glob.length >= 200);
      t.equal(numbers(told), expected, "by callback");
      t.equal(numbers(glob), expected, "by another filter");
      t.ok(told.every((event) => event.name === name && event.type === "task-tick"), "each is of the filter");
    },
  },
  {
    name: "events: two watches of one connection get their own",
    async run(t) {
      const { client, door } = await t.enter();
      const names = [unique("tick"), unique("tick")];
      const told = names.map((name) => record(client.events({ name })));
      await t.open(client);
      const loads = await Promise.all(names.map((name) => t.load(name, 100, { per_second: 400 })));
      for (const load of loads) await load.done();
      await t.until("all is told", () => told.every((events) => events.length >= 100));
      for (const [index, name] of names.entries()) {
        t.equal(numbers(told[index]!).length, 100, "all are told");
        t.ok(told[index]!.every((event) => event.name === name), "and only its own");
      }
      // A browser's own preflight may take a connection, too, and keeps it for a while.
      await t.until("there is one connection", async () => (await door.state()).open === 1);
    },
  },
  {
    name: "events: a later watch begins with what is younger than it, and the one before misses nothing",
    async run(t) {
      const { client } = await t.enter();
      const name = unique("tick");
      const told = record(client.events({ name }));
      await t.open(client);
      const load = await t.load(name, 600, { per_second: 400 });
      const later: { begun: number; told: Event[] }[] = [];
      for (const from of [100, 101, 250, 400]) {
        await t.until(`event ${from} is told`, () => told.length >= from);
        later.push({ begun: told.length, told: record(client.events({ name })) });
      }
      await load.done();
      let count = 600;
      // All that was left may have been told before the last watch has begun.
      for (; later.some((it) => !it.told.length); count += 20) await (await t.load(name, 20)).done();
      await t.until(`all is told, not ${told.length} of ${count}`, () => told.length >= count);
      const last = told.at(-1)!.id;
      const ids = told.map(({ id }) => id);
      t.equal(new Set(ids).size, count, "the first is told of all, once");
      for (const it of later) {
        await t.until(`the last is told, not only ${it.told.length}`, () => it.told.at(-1)?.id === last);
        const found = it.told.map(({ id }) => id);
        t.ok(ids.length - found.length >= it.begun, `it begins with ${ids.length - found.length}, not before ${it.begun}`);
        t.equal(found, ids.slice(-found.length), "and is told of all that follow");
      }
    },
  },
  {
    name: "events: since and lastEventId begin in the past",
    async run(t) {
      const { client } = await t.enter();
      const name = unique("tick");
      const told = record(client.events({ name }));
      await t.open(client);
      await (await t.load(name, 100)).done();
      await t.until("all is told", () => told.length >= 100);
      t.equal(numbers(await read(client.events({ name }, { since: "10m" }), 99)).length, 100, "since");
      const lastEventId = told[49]!.id;
      const after = numbers(await read(client.events({ name }, { lastEventId }), 99));
      t.equal([after[0], after.length], [50, 50], "right behind that id");
    },
  },
  {
    name: "events: an AbortSignal, and close(), end a watch",
    async run(t) {
      const { client } = await t.enter();
      const name = unique("tick");
      const controller = new AbortController();
      const stopped = client.events({ name }, { signal: controller.signal });
      const [told, others] = [record(stopped), record(client.events({ name }))];
      const closed = client.events({ name });
      const reading = [read(stopped, -1), read(closed, -1)];
      await t.open(client);
      await (await t.load(name, 10)).done();
      await t.until("all is told", () => told.length === 10 && others.length === 10);
      controller.abort();
      closed.close();
      for (const events of reading) {
        const error = await Promise.race([events.then(() => null, (error) => error), pause(30_000).then(() => "late")]);
        t.ok(error === null || error.name === "AbortError", `an iterator ends, not: ${error}`);
      }
      await (await t.load(name, 10)).done();
      await t.until("the other is told", () => others.length === 20);
      t.equal(told.length, 10, "nothing more is told");
    },
  },
  {
    name: "events: an iterator that is read too slowly is told how many it missed",
    async run(t) {
      const { client } = await t.enter();
      const name = unique("tick");
      const told: Told[] = [];
      const slow = client.events({ name }, { onGap: (gap) => told.push(gap) });
      const all = record(client.events({ name }));
      const iterator = slow[Symbol.asyncIterator]();
      const first = iterator.next();
      await t.open(client);
      const count = MOST_HELD + 2_345;
      await (await t.load(name, count, { batch: 50, per_second: 10_000 })).done();
      await t.until("all has come", () => all.length === count);
      told.push((await first).value as Event);
      while (told.at(-1)!["n"] !== count - 1) told.push((await iterator.next()).value as Event);
      await iterator.return?.();
      t.equal(numbers(all).length, count, "a callback is told of all");
      const gaps = told.filter((item) => item["type"] === "gateway-gap");
      const lost = gaps.reduce((sum, gap) => sum + (gap["lost"] as number), 0);
      t.ok(gaps.length > 0 && gaps.every((gap) => gap["reason"] === "slow"), "it is told that it is slow");
      t.equal(told.length - gaps.length + lost, count, "what it read and what it is told to have lost");
      t.ok(lost >= count - MOST_HELD - 1 && lost <= count - MOST_HELD, `no more is lost than need be, not ${lost}`);
    },
  },
  {
    name: "events: a bad filter throws at once",
    async run(t) {
      const { client } = await t.enter();
      const bad: any[] = [
        { nome: "x" },
        { name: "" },
        { name: [""] },
        { uuid: Array.from({ length: 1_001 }, (_, n) => `u${n}`) },
        { name: Array.from({ length: 101 }, (_, n) => `a${n}.*`) },
      ];
      for (const filter of bad) {
        const error = thrown(() => client.events(filter));
        const what = JSON.stringify(filter).slice(0, 60);
        t.ok(error instanceof TypeError || error instanceof RangeError, `${what} throws, not: ${error}`);
      }
      t.equal(client.status, "idle", "nothing was asked");
    },
  },
  {
    name: "events: what the gateway refuses is a GatewayError",
    async run(t) {
      const { client } = await t.enter();
      const error = await t.rejects("bad since", read(client.events({}, { since: "the day before" }), -1));
      t.ok(error instanceof GatewayError, `a GatewayError, not ${error}`);
      t.equal(error.parameter, "since", "it names the parameter");
      if (t.transport === "sse") t.equal(error.status, 400, "and the status");
    },
  },
  {
    name: `events: ${WATCHES} watches share a connection`,
    async run(t) {
      const { client, door } = await t.enter();
      const name = unique("tick");
      const told: Event[][] = [];
      for (let index = 0; index < WATCHES / 2; index += 1) told.push(record(client.events({ name: `${name}.${index}` })));
      await t.open(client);
      for (let index = WATCHES / 2; index < WATCHES; index += 1) {
        told.push(record(client.events({ name: `${name}.${index}` })));
        if (index % 20 === 0) await pause(30); // so that they come in several requests
      }
      const tick = { type: "task-tick", uuid: name, hostname: "tick@host" };
      const isTold = () => told.every((events) => events.length > 0);
      // The last may be watched from a moment later on: it is published again until all were told.
      await t.until("each is told", async () => {
        const bodies = told.map((_, index) => ({ ...tick, name: `${name}.${index}`, timestamp: Date.now() / 1000 }));
        await t.command("/publish", { bodies });
        await pause(200);
        return isTold();
      });
      for (const [index, events] of told.entries()) {
        t.ok(events.every((event) => event.name === `${name}.${index}`), "and only of its own");
      }
      await t.until("there is one connection", async () => (await door.state()).open === 1);
      const { connects } = await door.state();
      t.ok(connects <= 20, `requests are shared, too: ${connects} connections were made`);
    },
  },
  {
    name: "close() ends everything",
    async run(t: Trial) {
      const { client, door } = await t.enter();
      const { uuid } = await t.run("canvas.add", 1, 2);
      const stream = client.events({ name: unique("tick") });
      const own = client.events({ name: unique("tick") }, { since: "1m" });
      const workflow = client.workflow(uuid);
      let told = 0;
      workflow.subscribe(() => {
        told += 1;
      });
      const readings = [read(stream, -1), read(own, -1)];
      const ready = client.task(unique("never")).ready;
      await t.open(client);
      await t.until("a value", () => workflow.value);
      client.close();
      t.equal(client.status, "closed", "status");
      for (const reading of readings) {
        const error = await Promise.race([reading.then(() => null, (error) => error), pause(30_000).then(() => "late")]);
        t.ok(error === null || error.name === "AbortError", `an iterator ends, not: ${error}`);
      }
      t.equal((await t.rejects("ready", ready)).name, "AbortError", "ready is rejected");
      await t.until("no connection is left", async () => (await door.state()).open === 0);
      const before = told;
      await t.run("canvas.add", 1, 2);
      t.equal(told, before, "nothing more is told");
      const { connects } = await door.state();
      client.close();
      await pause(700); // longer than it would wait to come back
      t.equal((await door.state()).connects, connects, "it does not come back");
    },
  },
];

function thrown(step: () => unknown): unknown {
  try {
    step();
  } catch (error) {
    return error;
  }
  return undefined;
}
