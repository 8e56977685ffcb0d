/**
 * One stream from the gateway for all that is watched through it, kept up across lost connections.
 *
 * - The gateway is asked for one stream at a time, and for the next only when the last page of the snapshot has
 *   come that the one before began with. So no number of new watches can keep it from getting there.
 * - A member is `new` until it is asked for, `asked` until that last page, then `live`: from there on it gets
 *   every event, and what it knows is the snapshot's. One that has missed something is `lost` until it is asked
 *   for again.
 * - `position` is the id of the last message that was handled; null until the first snapshot's last page. The
 *   gateway knows which ids can be resumed from, and says so of those that cannot.
 */
import type { Connect, Control, Page, Reopen, StreamRequest } from "./connection.js";
import { after, nothing, nowMs } from "./environment.js";
import { GatewayError } from "./errors.js";
import { type Patterns, union } from "./filter.js";
import type { ClientEvents, ClientOptions, Event, EventsOptions, Gap, Status } from "./types.js";

const enum Ms {
  /** How long more watches are waited for before the gateway is asked. */
  GATHER = 10,
  /** From request to request because of gaps. */
  REFRESH = 1_000,
  /** What is watched no more is left out by then. */
  SHRINK = 5_000,
  BACKOFF = 500,
  MAX_BACKOFF = 30_000,
  STALE = 45_000,
}
const enum Max {
  REFUSALS = 3,
}

/** Something that is watched. */
export interface Member {
  /** Which events it wants: any of these. It gets others, too. */
  readonly filters: readonly Patterns[];
  event(event: Event): void;
  gap?: ((gap: Gap) => void) | undefined;
  /** How everything is that any member has asked for; left out if it needs events only. */
  refresh?: ((pages: readonly Page[]) => void) | undefined;
}

export interface Stream {
  readonly status: Status;
  add(member: Member): void;
  /** Ask no more for what a member wants. What comes for it meanwhile is for nobody. */
  remove(member: Member): void;
  close(): void;
}

/**
 * Return a stream that begins with its first member.
 *
 * @param emit is told how it goes.
 * @param refused is told that it is no use to try again; the stream is closed.
 * @param begin where it begins, for a stream without snapshots. Otherwise it begins with the snapshot.
 */
export function stream(
  connect: Connect,
  options: ClientOptions,
  emit: <K extends keyof ClientEvents>(type: K, told: Parameters<ClientEvents[K]>[0]) => void,
  refused: (error: Error) => void,
  begin?: EventsOptions,
): Stream {
  const { token, staleMs = Ms.STALE } = options;
  const members = new Map<Member, "new" | "asked" | "live" | "lost">();
  let status: Status = "idle";
  let position = begin?.lastEventId ?? null;
  let pages: Page[] = [];
  /** Ends the connection; what comes through an ended one is of the past. */
  let ending = new AbortController();
  let reopen: Reopen | undefined;
  let hasShrunk = false;
  let askedAtMs = -Infinity;
  let failures = 0;
  let refusals = 0;
  let unplan = nothing;
  let unwatch = nothing;

  const become = (now: Status): void => {
    status = now;
    emit("status", now);
  };

  /** Give up what is under way, and all timers. */
  const drop = (): void => {
    ending.abort();
    reopen = undefined;
    pages = [];
    unplan();
    unwatch();
    for (const [member, stage] of members) if (stage === "asked") members.set(member, "new");
  };

  /** Ask after a while; if it waits for a network, as soon as the browser has one. */
  const plan = (delayMs: number): void => {
    unplan();
    const cancel = after(delayMs, ask);
    const now = (): void => plan(0);
    if (status === "waiting") globalThis.addEventListener?.("online", now);
    unplan = () => {
      cancel();
      globalThis.removeEventListener?.("online", now);
    };
  };

  /** Plan the next request, if there is a reason for one and none is under way. */
  const planNext = (): void => {
    const stages = [...members.values()];
    if (stages.includes("asked") || !/^(connecting|open)$/.test(status)) return;
    if (ending.signal.aborted || stages.includes("new")) plan(Ms.GATHER);
    else if (stages.includes("lost")) plan(Math.max(Ms.GATHER, askedAtMs + Ms.REFRESH - nowMs()));
    else if (hasShrunk) plan(Ms.SHRINK);
  };

  /** The connection lives: wait for its next sign. */
  const heard = (): void => {
    unwatch();
    unwatch = after(staleMs, () => fail());
  };

  const ask = async (): Promise<void> => {
    unplan();
    askedAtMs = nowMs();
    if (status === "waiting") become("connecting");
    if (!members.size) return; // whoever was told that has closed it
    heard();
    if (reopen && status === "open") return reopen(request());
    ending.abort();
    const { signal } = (ending = new AbortController());
    const live =
      <A extends unknown[]>(call: (...told: A) => void) =>
      (...told: A): void => {
        if (!signal.aborted) call(...told);
      };
    const end = live(fail);
    try {
      const wanted = request(); // before the token is had: what is added meanwhile is for the next
      const given = await (typeof token === "function" ? token() : token);
      if (!signal.aborted) reopen = connect(wanted, given, signal, { heard: live(heard), message: live(take), end });
    } catch (error) {
      end(error as Error);
    }
  };

  const request = (): StreamRequest => {
    const goesOn = { any: union([...members.keys()]), last_event_id: position ?? undefined };
    hasShrunk = false;
    pages = [];
    if (begin) return position === null ? { ...goesOn, since: begin.since } : goesOn;
    const asked: Member[] = [];
    for (const [member, stage] of members) {
      if (stage === "live" && (position !== null || !member.refresh)) continue;
      members.set(member, "asked");
      if (member.refresh) asked.push(member);
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
        break;
      case "gateway-snapshot":
        pages.push(message);
        if (message.done) begun(message.id);
        break;
      case "gateway-gap":
        emit("gap", message);
        for (const [member, stage] of members) {
          if (stage !== "live") continue;
          if (member.refresh) members.set(member, "lost");
          member.gap?.(message);
        }
        planNext();
        break;
      case "gateway-status":
        emit("source", message.sources);
        break;
      case "gateway-close":
        fail(undefined, message.retry_ms);
        break;
      case "gateway-error":
        fail(new GatewayError(message.message, message));
        break;
      default:
        failures = 0;
        if (message.type.startsWith("gateway-")) break;
        for (const [member, stage] of members) if (stage === "live") member.event(message as Event);
    }
  };

  /** From here on all that was asked for is live. */
  const begun = (id: string): void => {
    const told = pages;
    position = id;
    pages = [];
    for (const [member, stage] of members) {
      if (stage !== "asked") continue;
      members.set(member, "live");
      member.refresh?.(told);
    }
    planNext();
  };

  /** The connection is lost: come back later, or never. */
  const fail = (error?: Error, retryMs = 0): void => {
    drop();
    if (error instanceof GatewayError && isHopeless(error)) return refused(error);
    become("waiting");
    if (members.size) plan(retryMs + Math.random() * Math.min(Ms.MAX_BACKOFF, Ms.BACKOFF * 2 ** failures++));
    // What is neither the network's nor the gateway's: a token that cannot be had, an answer of something else.
    if (error && !((error as GatewayError).status! > 200)) emit("error", error);
  };

  const isHopeless = ({ status = 400 }: GatewayError): boolean =>
    status === 401 || status === 403
      ? typeof token !== "function" || ++refusals > Max.REFUSALS
      : /^4(0[045]|13)$/.test(`${status}`);

  drop(); // there is no connection yet
  return {
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
}
