/**
 * What a test of the list is given: commands of the lab (`tests/support/client_lab.py`), clients and doors that end
 * with the test, and conditions that are waited for until a deadline. The same in Node and in a browser.
 */
import { type Client, type ClientOptions, connect } from "../../dist/index.js";
import { differences } from "./differences.js";

/** Where a list runs. `freeze`: the browser stops the page's tasks for so long, as it does with a tab in the back. */
export interface Surroundings {
  readonly name: "node" | "chromium";
  readonly transport: "sse" | "websocket";
  readonly labUrl: string;
  readonly WebSocket?: typeof globalThis.WebSocket;
  readonly freeze?: (ms: number) => Promise<void>;
}

/** An event with its number `n`, or a gap. */
export type Told = Record<string, any>;

/** How long a condition is waited for. Only a failing test waits so long, so it is enough for a busy machine. */
const WAIT_MS = 60_000;
/** How often a condition of this process is checked. */
const POLL_MS = 20;
/** How often the lab or the gateway is asked: each request takes them some milliseconds of CPU. */
const ASK_MS = 100;

export class Trial {
  readonly name: Surroundings["name"];
  readonly transport: Surroundings["transport"];
  readonly #ends: (() => unknown)[] = [];

  constructor(readonly surroundings: Surroundings) {
    this.name = surroundings.name;
    this.transport = surroundings.transport;
  }

  /** Ends what the test began, the last first. */
  async end(): Promise<void> {
    for (const end of this.#ends.reverse()) await end();
  }

  /** A client that is closed when the test ends. */
  connect(options: ClientOptions): Client {
    const { transport, WebSocket } = this.surroundings;
    const client = connect({ transport, ...(WebSocket && { WebSocket }), ...options });
    this.#ends.push(() => client.close());
    return client;
  }

  /** A way to the gateway that nobody else takes; with `auth` to the one with authentication. */
  async door(options: { tokens?: string[] | null; pages?: boolean; auth?: boolean } = {}): Promise<Door> {
    const { id, url } = await this.command<{ id: string; url: string }>("/doors", options);
    const door = new Door(this, id, url);
    this.#ends.push(() => fetch(`${this.surroundings.labUrl}/doors/${id}`, { method: "DELETE" }));
    return door;
  }

  /** A door, and a client that goes through it. */
  async enter(options: Partial<ClientOptions> = {}): Promise<{ door: Door; client: Client }> {
    const door = await this.door();
    return { door, client: this.connect({ url: door.url, ...options }) };
  }

  async command<Answer = unknown>(path: string, body: object = {}): Promise<Answer> {
    const response = await fetch(this.surroundings.labUrl + path, {
      method: "POST",
      body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${path}: ${await response.text()}`);
    return response.json();
  }

  /** A JSON Web Token of the gateway with authentication. */
  async sign(seconds: number, ...any: object[]): Promise<string> {
    return (await this.command<{ token: string }>("/tokens/sign", { seconds, any })).token;
  }

  /** Starts a task by its name, or a chain of additions. */
  run(kind: string, ...args: unknown[]): Promise<{ uuid: string; root_id: string }> {
    return this.command("/run", { kind, args });
  }

  /** Publishes numbered events `task-tick` of one task with this name. */
  async load(name: string, count: number, options: LoadOptions = {}): Promise<Load> {
    const { id } = await this.command<{ id: string }>("/load", { name, count, ...options });
    const load = new Load(this, `${this.surroundings.labUrl}/load/${id}`);
    if (options.per_second) this.#ends.push(() => load.stop());
    return load;
  }

  /** Polls until the condition gives something; fails with `what`, or what that gives, when the time is up. */
  async until<Value>(
    what: string | (() => string),
    condition: () => Value | Promise<Value>,
  ): Promise<Exclude<Value, null | undefined | false>> {
    const deadline = performance.now() + WAIT_MS;
    for (;;) {
      const given = condition();
      const value = await given;
      if (value) return value as Exclude<Value, null | undefined | false>;
      if (performance.now() > deadline) {
        throw new Error(`not within ${WAIT_MS} ms: ${typeof what === "string" ? what : what()}`);
      }
      await pause(given instanceof Promise ? ASK_MS : POLL_MS);
    }
  }

  /** Waits until both are deeply equal, as JSON; fails with where they differ. */
  async same(what: string, ours: () => unknown, theirs: () => Promise<unknown>): Promise<void> {
    const deadline = performance.now() + WAIT_MS;
    for (;;) {
      const found = await Promise.resolve(theirs()).then(
        (value) => differences(ours(), value),
        (error: Error) => [error.message],
      );
      if (found.length === 0) return;
      if (performance.now() > deadline) throw new Error(`${what}: ours is not theirs:\n${found.join("\n")}`);
      await pause(ASK_MS);
    }
  }

  /** Waits until a client is connected. */
  async open(client: Client): Promise<void> {
    await this.until("the client is connected", () => client.status === "open");
  }

  equal(ours: unknown, expected: unknown, what: string): void {
    const found = differences(ours, expected);
    if (found.length > 0) throw new Error(`${what}:\n${found.join("\n")}`);
  }

  ok(condition: unknown, what: string): void {
    if (!condition) throw new Error(`not so: ${what}`);
  }

  /** What a promise rejects with. */
  async rejects(what: string, promise: Promise<unknown>): Promise<any> {
    const late = Symbol();
    const outcome = await Promise.race([
      promise.then(
        () => undefined,
        (error: unknown) => ({ error }),
      ),
      pause(WAIT_MS).then(() => late),
    ]);
    if (outcome === late) throw new Error(`not settled within ${WAIT_MS} ms: ${what}`);
    if (outcome === undefined) throw new Error(`not rejected: ${what}`);
    return (outcome as { error: unknown }).error;
  }
}

export interface LoadOptions {
  readonly per_second?: number;
  readonly batch?: number;
  readonly padding?: number;
  /** A `task-received` comes first. Otherwise no scope with a name allows the events. */
  readonly is_task?: boolean;
}

/** Events that are being published. */
export class Load {
  constructor(
    private readonly t: Trial,
    private readonly url: string,
  ) {}

  async state(): Promise<{ sent: number; done: boolean }> {
    return (await fetch(this.url)).json();
  }

  /** Publishes no more; how many there were. */
  async stop(): Promise<number> {
    await fetch(`${this.url}/stop`, { method: "POST" });
    await this.done();
    return (await this.state()).sent;
  }

  async done(): Promise<void> {
    await this.t.until("all is published", async () => (await this.state()).done);
  }
}

/** A network between a client and the gateway. */
export class Door {
  constructor(
    private readonly t: Trial,
    private readonly id: string,
    readonly url: string,
  ) {}

  cut = () => this.t.command(`/doors/${this.id}/cut`);
  hangUp = () => this.t.command(`/doors/${this.id}/hang-up`);
  stall = () => this.t.command(`/doors/${this.id}/stall`);
  refuse = () => this.t.command(`/doors/${this.id}/refuse`);
  resume = () => this.t.command(`/doors/${this.id}/resume`);

  /** What the guard says from now on. */
  answer(how: { statuses?: number[]; retry_after?: string; tokens?: string[] }): Promise<unknown> {
    return this.t.command(`/doors/${this.id}/answers`, how);
  }

  /** How many connections there were, and are, and which tokens they brought. */
  async state(): Promise<{ connects: number; open: number; tokens: (string | null)[] }> {
    return (await fetch(`${this.t.surroundings.labUrl}/doors/${this.id}`)).json();
  }

  /** The gateway's own answer. */
  async get<Answer = any>(path: string): Promise<Answer> {
    const response = await fetch(this.url + path);
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

let names = 0;

/** A name that no other test has, in any of the runs. */
export function unique(word: string): string {
  names += 1;
  return `${word}.${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}.${names}`;
}

/** The numbers of all events in order; fails where one is missing, or came twice, and no gap was told. */
export function numbers(told: readonly Told[]): number[] {
  const found: number[] = [];
  let isBroken = true;
  for (const item of told) {
    if (item["type"] === "gateway-gap") {
      isBroken = true;
      continue;
    }
    const n: number = item["n"];
    const before = found.at(-1);
    if (before !== undefined && (isBroken ? n <= before : n !== before + 1)) {
      throw new Error(`after ${before} came ${n}${isBroken ? ", behind a gap" : ""}`);
    }
    isBroken = false;
    found.push(n);
  }
  return found;
}
