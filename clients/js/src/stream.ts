/**
 * One stream from the gateway for all that is watched through it, kept up across lost connections.
 *
 * - The gateway is asked for one stream at a time, and for the next only when the last page of the snapshot has
 *   come that the one before began with. So no number of new watches can keep it from getting there.
 * - A member is `new` until it is asked for, `asked` until that last page, then `live`: from there on it gets
 *   every event, and what it knows is the snapshot's. One that has missed something is `lost` until it is asked
 *   for again.
 * - `position` is the id of the last message that was handled. It is null from the beginning of a stream that
 *   is not a continuation until the last page: that far such a stream cannot be resumed.
 */
import type { Connect, Connection, Control, Message, Receiver } from "./connection.js";
import { after, nowMs, whenOnline } from "./environment.js";
import { GatewayError } from "./errors.js";
import type { Patterns } from "./filter.js";
import { type StreamRequest, union } from "./request.js";
import type { Event, EventsOptions, Gap, Status, Task, Worker } from "./types.js";

/** How long more watches are waited for before the gateway is asked. */
const GATHER_MS = 10;
/** From request to request because of gaps. */
const REFRESH_MS = 1_000;
/** What is watched no more is left out by then. */
const SHRINK_MS = 5_000;
const [BACKOFF_MS, MAX_BACKOFF_MS] = [500, 30_000];
const MAX_REFUSALS = 3;
/** So that the gateway takes the snapshot's filters. */
const MAX_ASKED = 1_000;
const HOPELESS = [400, 404, 405, 413];

type Stage = "new" | "asked" | "live" | "lost";

/** Something that is watched. */
export interface Member {
  /** Which events it wants: any of these. It gets others, too. */
  readonly filters: readonly Patterns[];
  /** Of which tasks it has to know how they are; undefined if it needs events only. */
  readonly snapshot?: readonly Patterns[];
  event(event: Event): void;
  gap(gap: Gap): void;
  /** How everything is that any member has asked for: the tasks, and all workers. */
  refresh?(tasks: readonly Task[], workers: readonly Worker[]): void;
}

/** Whom a stream tells how it goes. */
export interface Host {
  changed(): void;
  gap(gap: Gap): void;
  /** Something went wrong that may be mended by trying again, which the stream does. */
  troubled(error: Error): void;
  /** It is no use; the stream is closed. */
  refused(error: GatewayError): void;
}

export interface StreamOptions {
  readonly token: string | (() => string | Promise<string>) | undefined;
  readonly staleMs: number;
  /** Where it begins, for a stream without snapshots. Otherwise it begins with the snapshot. */
  readonly begin?: Pick<EventsOptions, "since" | "lastEventId">;
}

export class Stream {
  readonly #connect: Connect;
  readonly #options: StreamOptions;
  readonly #host: Host;
  readonly #members = new Map<Member, Stage>();
  #status: Status = "idle";
  #position: string | null;
  #tasks: Task[] = [];
  #workers: Worker[] = [];
  #connection: Connection | undefined;
  #receiver: Receiver | undefined;
  #isAsking = false;
  #hasShrunk = false;
  /** Goes up with everything that makes what is under way pointless. */
  #turn = 0;
  #askedAtMs = -Infinity;
  #failures = 0;
  #refusals = 0;
  #plannedAtMs = Infinity;
  #unplan = (): void => {};
  #unwatch = (): void => {};
  #unlisten = (): void => {};

  constructor(connect: Connect, options: StreamOptions, host: Host) {
    this.#connect = connect;
    this.#options = options;
    this.#host = host;
    this.#position = options.begin?.lastEventId ?? null;
  }

  get status(): Status {
    return this.#status;
  }

  add(member: Member): void {
    this.#members.set(member, this.#options.begin ? "live" : "new");
    if (this.#status === "idle") this.#become("connecting");
    this.#planNext();
  }

  /** Ask no more for what a member wants. What comes for it meanwhile is for nobody. */
  remove(member: Member): void {
    this.#members.delete(member);
    if (this.#status === "closed") return;
    if (!this.#members.size) {
      this.#drop();
      this.#position = null;
      this.#become("idle");
      return;
    }
    this.#hasShrunk = true;
    this.#planNext();
  }

  close(): void {
    this.#drop();
    this.#members.clear();
    this.#become("closed");
  }

  #become(status: Status): void {
    if (status === this.#status) return;
    this.#status = status;
    this.#host.changed();
  }

  /** Give up what is under way, and all timers. */
  #drop(): void {
    this.#turn++;
    this.#isAsking = false;
    this.#receiver = undefined;
    this.#connection?.close();
    this.#connection = undefined;
    this.#tasks = [];
    this.#workers = [];
    this.#unplan();
    this.#plannedAtMs = Infinity;
    this.#unwatch();
    this.#unlisten();
    for (const [member, stage] of this.#members) if (stage === "asked") this.#members.set(member, "new");
  }

  /** Plan the next request, if there is a reason for one and none is under way. */
  #planNext(): void {
    if (this.#isAsking || (this.#status !== "connecting" && this.#status !== "open")) return;
    const stages = [...this.#members.values()];
    if (!this.#connection || stages.includes("new")) this.#plan(GATHER_MS);
    else if (stages.includes("lost")) this.#plan(Math.max(GATHER_MS, this.#askedAtMs + REFRESH_MS - nowMs()));
    else if (this.#hasShrunk) this.#plan(SHRINK_MS, false);
  }

  /** Ask after a while, or earlier if that is planned. */
  #plan(delayMs: number, holds = true): void {
    const atMs = nowMs() + delayMs;
    if (atMs >= this.#plannedAtMs) return;
    this.#unplan();
    this.#plannedAtMs = atMs;
    this.#unplan = after(delayMs, () => void this.#ask(), holds);
  }

  async #ask(): Promise<void> {
    const turn = ++this.#turn;
    this.#unplan();
    this.#plannedAtMs = Infinity;
    this.#unlisten();
    this.#isAsking = true;
    this.#askedAtMs = nowMs();
    if (this.#status !== "open") this.#become("connecting");
    this.#heard();
    const connection = this.#connection;
    if (connection?.reopen) {
      connection.reopen(this.#request());
      return;
    }
    let token: string | undefined;
    try {
      const { token: given } = this.#options;
      token = await (typeof given === "function" ? given() : given);
    } catch (error) {
      if (turn === this.#turn) this.#fail(undefined, undefined, error instanceof Error ? error : new Error(`${error}`));
      return;
    }
    if (turn !== this.#turn) return;
    connection?.close();
    const receiver: Receiver = {
      heard: () => this.#receiver === receiver && this.#heard(),
      message: (message) => this.#receiver === receiver && this.#take(message),
      end: (error, retryMs) => this.#receiver === receiver && this.#fail(error, retryMs),
    };
    this.#receiver = receiver;
    const request = this.#request();
    try {
      this.#connection = this.#connect(request, token, receiver);
    } catch (error) {
      this.#fail(undefined, undefined, error as Error);
    }
  }

  #request(): StreamRequest {
    const { begin } = this.#options;
    const members = [...this.#members];
    const any = union(members.flatMap(([member]) => member.filters));
    const goesOn: StreamRequest = { any, last_event_id: this.#position ?? undefined };
    if (begin) return this.#position === null ? { any, since: begin.since } : goesOn;
    this.#hasShrunk = false;
    this.#tasks = [];
    this.#workers = [];
    const asked: Patterns[] = [];
    for (const [member, stage] of members) {
      const { snapshot } = member;
      if (stage === "live" && (this.#position !== null || !snapshot)) continue;
      const isAsked = asked.length < MAX_ASKED;
      this.#members.set(member, isAsked ? "asked" : "new");
      if (isAsked) asked.push(...(snapshot ?? []));
    }
    return { ...goesOn, snapshot: union(asked) ?? [{}] };
  }

  /** The connection lives: wait for its next sign. */
  #heard(): void {
    this.#unwatch();
    this.#unwatch = after(this.#options.staleMs, () => this.#fail());
  }

  #take(message: Message): void {
    if (!message.type.startsWith("gateway-")) {
      const event = message as Event;
      this.#move(event.id); // before they are told: whatever they do, it does not come again
      for (const [member, stage] of this.#members) if (stage === "live") member.event(event);
      return;
    }
    const control = message as Control;
    switch (control.type) {
      case "gateway-open":
        this.#refusals = 0;
        if (this.#options.begin) {
          this.#position = control.id;
          this.#begun();
        } else if (control.resume === "resumed") this.#failures = 0;
        else this.#position = null;
        this.#become("open");
        break;
      case "gateway-snapshot":
        this.#tasks.push(...control.tasks);
        this.#workers.push(...control.workers);
        if (control.done) {
          this.#position = control.id;
          this.#begun();
        }
        break;
      case "gateway-gap":
        this.#move(control.id);
        this.#gap(control);
        break;
      case "gateway-bookmark":
        this.#move(control.id);
        break;
      case "gateway-close":
        this.#move(control.id);
        this.#fail(undefined, control.retry_ms);
        break;
      case "gateway-error":
        this.#fail(new GatewayError(control.code, control.message, undefined, control.parameter));
    }
  }

  #move(id: string): void {
    if (this.#position !== null) this.#position = id;
  }

  /** From here on all that was asked for is live. */
  #begun(): void {
    const [tasks, workers] = [this.#tasks, this.#workers];
    this.#tasks = [];
    this.#workers = [];
    this.#isAsking = false;
    this.#failures = 0;
    const asked = [...this.#members].filter(([, stage]) => stage === "asked");
    for (const [member] of asked) this.#members.set(member, "live");
    for (const [member] of asked) member.refresh?.(tasks, workers);
    this.#planNext();
  }

  /** Tell of a gap; what has missed something needs another snapshot. */
  #gap(gap: Gap): void {
    this.#host.gap(gap);
    for (const [member, stage] of [...this.#members]) {
      if (stage !== "live" || !this.#members.has(member)) continue;
      member.gap(gap);
      if (member.snapshot && this.#members.has(member)) this.#members.set(member, "lost");
    }
    this.#planNext();
  }

  /** The connection is lost: come back later, or never. */
  #fail(error?: GatewayError, retryMs?: number, trouble?: Error): void {
    this.#drop();
    if (error && this.#isHopeless(error)) {
      this.close();
      this.#host.refused(error);
      return;
    }
    const backoffMs = Math.random() * Math.min(MAX_BACKOFF_MS, BACKOFF_MS * 2 ** this.#failures++);
    this.#plan(retryMs ?? backoffMs);
    this.#unlisten = whenOnline(() => this.#plan(0));
    this.#become("waiting");
    if (error?.code === "no-stream") trouble = error;
    if (trouble) this.#host.troubled(trouble);
  }

  #isHopeless({ status }: GatewayError): boolean {
    if (status === 401 || status === 403) {
      return typeof this.#options.token !== "function" || ++this.#refusals > MAX_REFUSALS;
    }
    return status === undefined || HOPELESS.includes(status);
  }
}
