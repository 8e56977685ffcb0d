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
import type { Connect, Connection, Control, Page, Receiver, StreamRequest } from "./connection.js";
import { after, nothing, nowMs } from "./environment.js";
import { GatewayError } from "./errors.js";
import { type Patterns, union } from "./filter.js";
import type { ClientEvents, ClientOptions, Event, EventsOptions, Gap, Status } from "./types.js";

/** How long more watches are waited for before the gateway is asked. */
const GATHER_MS = 10;
/** From request to request because of gaps. */
const REFRESH_MS = 1_000;
/** What is watched no more is left out by then. */
const SHRINK_MS = 5_000;
const [BACKOFF_MS, MAX_BACKOFF_MS] = [500, 30_000];
const STALE_MS = 45_000;
const MAX_REFUSALS = 3;
/** So that the gateway takes the snapshot's filters. */
const MAX_ASKED = 1_000;

/** Something that is watched. */
export interface Member {
  /** Which events it wants: any of these. It gets others, too. */
  readonly filters: readonly Patterns[];
  /** Of which tasks it has to know how they are; left out if it needs events only. */
  readonly snapshot?: readonly Patterns[] | undefined;
  event(event: Event): void;
  gap(gap: Gap): void;
  /** How everything is that any member has asked for. */
  refresh(pages: readonly Page[]): void;
}

/** Whom a stream tells how it goes. */
export interface Host {
  emit<K extends keyof ClientEvents>(type: K, told: Parameters<ClientEvents[K]>[0]): void;
  /** It is no use to try again; the stream is closed. */
  refused(error: Error): void;
}

export interface Stream {
  readonly status: Status;
  add(member: Member): void;
  /** Ask no more for what a member wants. What comes for it meanwhile is for nobody. */
  remove(member: Member): void;
  close(): void;
}

/** @param begin where it begins, for a stream without snapshots. Otherwise it begins with the snapshot. */
export function stream(connect: Connect, options: ClientOptions, host: Host, begin?: EventsOptions): Stream {
  const { token, staleMs = STALE_MS } = options;
  const members = new Map<Member, "new" | "asked" | "live" | "lost">();
  let status: Status = "idle";
  let position = begin?.lastEventId ?? null;
  let pages: Page[] = [];
  let connection: Connection | undefined;
  /** Whom the connection tells; what others are told is of the past. */
  let receiver: Receiver | undefined;
  let isAsking = false;
  let hasShrunk = false;
  let askedAtMs = -Infinity;
  let failures = 0;
  let refusals = 0;
  let plannedAtMs = Infinity;
  let unplan = nothing;
  let unwatch = nothing;

  const become = (now: Status): void => {
    if (now === status) return;
    status = now;
    host.emit("status", now);
  };

  /** Give up what is under way, and all timers. */
  const drop = (): void => {
    isAsking = false;
    connection?.close();
    connection = receiver = undefined;
    pages = [];
    unplan();
    unwatch();
    for (const [member, stage] of members) if (stage === "asked") members.set(member, "new");
  };

  /** Ask after a while, or earlier if that is planned. */
  const plan = (delayMs: number, holds = true): void => {
    const atMs = nowMs() + delayMs;
    if (atMs >= plannedAtMs) return;
    unplan();
    plannedAtMs = atMs;
    const cancel = after(delayMs, ask, holds);
    const now = (): void => plan(0);
    if (status === "waiting") globalThis.addEventListener?.("online", now);
    unplan = () => {
      cancel();
      globalThis.removeEventListener?.("online", now);
      plannedAtMs = Infinity;
    };
  };

  /** Plan the next request, if there is a reason for one and none is under way. */
  const planNext = (): void => {
    if (isAsking || !/^(connecting|open)$/.test(status)) return;
    const stages = [...members.values()];
    if (!connection || stages.includes("new")) plan(GATHER_MS);
    else if (stages.includes("lost")) plan(Math.max(GATHER_MS, askedAtMs + REFRESH_MS - nowMs()));
    else if (hasShrunk) plan(SHRINK_MS, false);
  };

  /** The connection lives: wait for its next sign. */
  const heard = (): void => {
    unwatch();
    unwatch = after(staleMs, () => fail());
  };

  const ask = async (): Promise<void> => {
    unplan();
    isAsking = true;
    askedAtMs = nowMs();
    if (status !== "open") become("connecting");
    if (!members.size) return; // whoever was told that has closed it
    heard();
    if (connection?.reopen) return connection.reopen(request());
    connection?.close();
    const live =
      <A extends unknown[]>(call: (...told: A) => void) =>
      (...told: A): void => {
        if (receiver === own) call(...told);
      };
    const own: Receiver = { heard: live(heard), message: live(take), end: live(fail) };
    receiver = own;
    try {
      const given = await (typeof token === "function" ? token() : token);
      if (receiver === own) connection = connect(request(), given, own);
    } catch (error) {
      own.end(error as Error);
    }
  };

  const request = (): StreamRequest => {
    const any = union([...members.keys()].flatMap(({ filters }) => filters));
    const goesOn = { any, last_event_id: position ?? undefined };
    hasShrunk = false;
    pages = [];
    if (begin) return { ...goesOn, ...(position === null && { since: begin.since }) };
    const asked: Patterns[] = [];
    for (const [member, stage] of members) {
      const { snapshot } = member;
      if (stage === "live" && (position !== null || !snapshot)) continue;
      const fits = asked.length < MAX_ASKED;
      members.set(member, fits ? "asked" : "new");
      if (fits && snapshot) asked.push(...snapshot);
    }
    return { ...goesOn, snapshot: union(asked) ?? [{}] };
  };

  const take = (message: Control): void => {
    // Before it is told: whatever that does, the message does not come again.
    if (position !== null && message.type !== "gateway-snapshot") position = message.id;
    switch (message.type) {
      case "gateway-open":
        refusals = 0;
        become("open");
        if (begin) begun(message.id);
        else if (message.resume === "resumed") failures = 0;
        else position = null;
        break;
      case "gateway-snapshot":
        pages.push(message);
        if (message.done) begun(message.id);
        break;
      case "gateway-gap":
        host.emit("gap", message);
        for (const [member, stage] of members) {
          if (stage !== "live") continue;
          if (member.snapshot) members.set(member, "lost");
          member.gap(message);
        }
        planNext();
        break;
      case "gateway-close":
        fail(undefined, message.retry_ms);
        break;
      case "gateway-error":
        fail(new GatewayError(message.message, message));
        break;
      default:
        if (message.type.startsWith("gateway-")) break;
        for (const [member, stage] of members) if (stage === "live") member.event(message as Event);
    }
  };

  /** From here on all that was asked for is live. */
  const begun = (id: string): void => {
    const told = pages;
    position = id;
    pages = [];
    isAsking = false;
    failures = 0;
    for (const [member, stage] of members) {
      if (stage !== "asked") continue;
      members.set(member, "live");
      member.refresh(told);
    }
    planNext();
  };

  /** The connection is lost: come back later, or never. */
  const fail = (error?: Error, retryMs?: number): void => {
    drop();
    if (error instanceof GatewayError && isHopeless(error)) {
      self.close();
      host.refused(error);
      return;
    }
    become("waiting");
    if (members.size) plan(retryMs ?? Math.random() * Math.min(MAX_BACKOFF_MS, BACKOFF_MS * 2 ** failures++));
    // What is neither the network's nor the gateway's: a token that cannot be had, an answer of something else.
    if (error && !((error as GatewayError).status! > 200)) host.emit("error", error);
  };

  const isHopeless = ({ status = 400 }: GatewayError): boolean =>
    status === 401 || status === 403
      ? typeof token !== "function" || ++refusals > MAX_REFUSALS
      : [400, 404, 405, 413].includes(status);

  const self: Stream = {
    get status() {
      return status;
    },
    add(member) {
      members.set(member, begin ? "live" : "new");
      if (status === "idle") become("connecting");
      planNext();
    },
    remove(member) {
      members.delete(member);
      hasShrunk = true;
      if (members.size) return planNext();
      drop();
      position = null;
      become("idle");
    },
    close() {
      drop();
      members.clear();
      become("closed");
    },
  };
  return self;
}
