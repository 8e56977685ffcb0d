/**
 * One stream from the gateway for all that is watched through it, kept up across lost connections.
 *
 * - There is one request at a time. The next one waits for the last page of the snapshot that the one before began
 *   with, so no number of new watches can prevent that page.
 * - A member is `new` until it is requested, `asked` until that last page, then `live`: from there on it receives
 *   every event, and its state is that of the snapshot. A member that has missed something is `lost` until it is
 *   requested again.
 * - `position` is the id of the last message that was handled; null until the last page of the first snapshot. The
 *   gateway decides whether it can resume from an id, and reports if it cannot.
 */
import type { Connect, Control, Page, Reopen, StreamRequest, TaskRecord } from "./connection.js";
import { after, nothing, nowMs } from "./environment.js";
import { GatewayError, isFinal } from "./errors.js";
import { fits, type Patterns, union } from "./filter.js";
import type { ClientEvents, ClientOptions, Event, EventsOptions, Gap, Status } from "./types.js";

const enum Ms {
  /** How long to wait for more watches before a request. */
  GATHER = 10,
  /** Between two requests because of gaps. */
  REFRESH = 1_000,
  /** After this time a request leaves out what is no longer watched. */
  SHRINK = 5_000,
  BACKOFF = 500,
  MAX_BACKOFF = 30_000,
  STALE = 45_000,
  /** If a token expires within this time after the one before, the next one has to wait. */
  RENEW = 1_000,
  NEXT_RENEWAL = 5_000,
  DAY = 86_400_000,
}
const enum Max {
  REFUSALS = 3,
}

/** What a member needs beside events. */
export interface Wants extends Pick<StreamRequest, "view" | "workers" | "window"> {
  /** The interval between statistics, in milliseconds. */
  readonly statistics?: number;
}

/** Something that is watched. */
export interface Member {
  /** The events that it needs: any of these. It receives others, too. */
  readonly filters: readonly Patterns[];
  readonly wants?: Wants | undefined;
  /** Called with each message of the gateway's own, also before it is live. */
  control?: ((message: Control) => void) | undefined;
  event(event: Event, record?: TaskRecord | null): void;
  gap?: ((gap: Gap) => void) | undefined;
  /** It is live now. */
  begun?: (() => void) | undefined;
  /**
   * The snapshot of all members of a request; undefined for a member that needs events only. A member that wants
   * `workers` needs no tasks: all workers are in each snapshot.
   */
  refresh?: ((pages: readonly Page[]) => void) | undefined;
  /** It cannot be watched, and is no longer a member. */
  refuse(error: Error): void;
}

export interface Stream {
  readonly status: Status;
  /** The id of the last message that was handled. */
  readonly position: string | null;
  /** True if more members did not fit into a request. */
  readonly isFull: boolean;
  /** When something has arrived last, on the clock of `nowMs`; `-Infinity` while nothing is watched. */
  readonly heardAtMs: number;
  /** @param isLive true if it has handled all its events up to `position`, before the first request. */
  add(member: Member, isLive?: boolean): void;
  /** Stop requesting what a member needs. Events that still arrive for it are dropped. */
  remove(member: Member): void;
  /** Request a snapshot for a member that is live. */
  refetch(member: Member): void;
  close(): void;
}

export interface Listener {
  emit: <K extends keyof ClientEvents>(type: K, value: Parameters<ClientEvents[K]>[0]) => void;
  /** A retry cannot help; the stream is closed. */
  refused(error: Error): void;
  /** These members do not fit into the request; they are no longer members. */
  overflow(members: readonly Member[]): void;
  /** Called with each message of the gateway's own. */
  control?(message: Control): void;
  /** Something has arrived. */
  heard?(): void;
  /** Called with each message before it is handled, and with the record of an event's task. */
  message?(message: Control | Event, record?: TaskRecord | null): void;
}

/**
 * Return a stream that begins with its first member.
 *
 * @param begin where a stream without snapshots begins. Others begin with their snapshot.
 * @param position where a stream with snapshots resumes.
 */
export function stream(
  connect: Connect,
  options: ClientOptions,
  listener: Listener,
  begin?: EventsOptions,
  position: string | null = begin?.lastEventId ?? null,
): Stream {
  const { token, staleMs = Ms.STALE } = options;
  const { emit } = listener;
  const members = new Map<Member, "new" | "asked" | "live" | "lost">();
  let status: Status = "idle";
  let isFull = false;
  let pages: Page[] = [];
  /** Ends the connection. Messages of an ended connection are ignored. */
  let ending = new AbortController();
  let reopen: Reopen | undefined;
  /** False while a token is renewed, although the status is still `open`. */
  let isOpen = false;
  let hasShrunk = false;
  /** Whether the events of the request have the records of their tasks. */
  let hasRecords = false;
  let lastRequest: StreamRequest = {};
  let askedAtMs = -Infinity;
  let heardAtMs = -Infinity;
  let failures = 0;
  let refusals = 0;
  let expiredAtMs = -Infinity;
  let unplan = nothing;
  let unwatch = nothing;

  const become = (now: Status): void => {
    status = now;
    emit("status", now);
  };

  /** End the connection and all timers. */
  const drop = (): void => {
    ending.abort();
    reopen = undefined;
    isOpen = false;
    pages = [];
    unplan();
    unwatch();
    for (const [member, stage] of members) if (stage === "asked") members.set(member, "new");
  };

  /** Send the request after a delay; if the stream waits for a network, as soon as the browser is online. */
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

  /** Something has arrived: start the timeout for silence again. */
  const alive = (): void => {
    unwatch();
    unwatch = after(staleMs, () => fail());
  };
  const heard = (): void => {
    heardAtMs = nowMs();
    listener.heard?.();
    alive();
  };

  const ask = async (): Promise<void> => {
    unplan();
    askedAtMs = nowMs();
    if (status === "waiting") become("connecting");
    if (!members.size) return; // a listener has closed it
    alive();
    const wanted = request(); // before the token arrives: later members are for the next request
    if (reopen && isOpen) return reopen(wanted);
    ending.abort();
    const { signal } = (ending = new AbortController());
    const live =
      <A extends unknown[]>(call: (...values: A) => void) =>
      (...values: A): void => {
        if (!signal.aborted) call(...values);
      };
    const end = live(fail);
    try {
      const given = await (typeof token === "function" ? token() : token);
      if (!signal.aborted) reopen = connect(wanted, given, signal, { alive: live(heard), message: live(handle), end });
    } catch (error) {
      end(error as Error);
    }
  };

  /** Return the filters of all members. The youngest ones overflow if the gateway does not accept as many. */
  const filters = (): Patterns[] => {
    const all = [...members.keys()];
    const wanted = union(all);
    if (fits(wanted)) return wanted;
    isFull = true;
    let fit = 0;
    for (let step = 2 ** 20; (step /= 2) >= 1; ) {
      if (fit + step < all.length && fits(union(all.slice(0, fit + step)))) fit += step;
    }
    const rest = all.slice(fit);
    for (const member of rest) members.delete(member);
    listener.overflow(rest);
    return union(all.slice(0, fit));
  };

  const request = (): StreamRequest => {
    const any = filters();
    // Without `any` the gateway sends all events.
    const wants = [...members.keys()].flatMap((member) => member.wants ?? []);
    const intervals = wants.flatMap(({ statistics }) => statistics ?? []);
    const goesOn: StreamRequest = (lastRequest = {
      ...Object.assign({}, ...wants.reverse()), // the first member decides on the window
      any,
      last_event_id: position ?? undefined,
      statistics: intervals[0] && `${Math.min(...intervals)}ms`,
    });
    hasRecords = !!goesOn.view;
    hasShrunk = false;
    pages = [];
    if (begin) return { ...goesOn, max_rate: begin.maxRate, since: position === null ? begin.since : undefined };
    const asked: Member[] = [];
    for (const [member, stage] of members) {
      if (stage === "live" && (position !== null || !member.refresh)) continue;
      members.set(member, "asked");
      if (member.refresh && !member.wants?.workers) asked.push(member);
    }
    return { ...goesOn, snapshot: union(asked) };
  };

  const handle = (message: Control & { readonly record?: TaskRecord | null }): void => {
    let record: TaskRecord | null | undefined;
    if (hasRecords) ({ record, ...message } = message);
    listener.message?.(message, record);
    // Before the members get it: whatever they do, the message does not come again.
    if (position !== null && message.type !== "gateway-snapshot") position = message.id;
    if (message.type.startsWith("gateway-")) {
      listener.control?.(message);
      for (const member of [...members.keys()]) member.control?.(message);
    }
    switch (message.type) {
      case "gateway-open":
        refusals = 0;
        isOpen = true;
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
      case "gateway-close":
        fail(undefined, message.retry_ms, message.reason === "expired");
        break;
      case "gateway-error":
        // The gateway's limits are temporary, as a response 429.
        fail(new GatewayError(message.message, message.code === "limit" ? { ...message, status: 429 } : message));
        break;
      default:
        failures = 0;
        if (message.type.startsWith("gateway-")) break;
        for (const [member, stage] of members) if (stage === "live") member.event(message as Event, record);
    }
  };

  /** All members that were asked for are live from here on. */
  const begun = (id: string): void => {
    const snapshot = pages;
    position = id;
    pages = [];
    for (const [member, stage] of members) {
      if (stage !== "asked") continue;
      members.set(member, "live");
      member.begun?.();
      member.refresh?.(snapshot);
    }
    planNext();
  };

  /** The connection is lost: reconnect later, or close. After an expired token reconnect at once, with the next one. */
  const fail = (error?: Error, retryMs = 0, isExpired = false): void => {
    let delayMs = Math.min(Math.max(+retryMs || 0, 0), Ms.DAY); // a longer timer would fire at once
    drop();
    if (isExpired) {
      const isFirst = nowMs() - expiredAtMs > Ms.RENEW;
      expiredAtMs = nowMs();
      if (isFirst) return plan(0);
      delayMs = Ms.NEXT_RENEWAL;
    }
    if (error instanceof GatewayError && isHopeless(error)) {
      const { parameter = "" } = error;
      // Of several windows one was requested.
      const refused = [...members.keys()].filter(
        ({ wants = {} }) => Object.hasOwn(wants, parameter) && (parameter !== "window" || wants.window === lastRequest.window),
      );
      if (!refused[0]) return listener.refused(error);
      for (const member of refused) {
        remove(member);
        member.refuse(error);
      }
      if (members.size && status !== "closed") plan(0);
      return;
    }
    become("waiting");
    if (members.size) plan(delayMs + Math.random() * Math.min(Ms.MAX_BACKOFF, Ms.BACKOFF * 2 ** failures++));
    // Errors of neither the network nor the gateway: there is no token, or another server has answered.
    if (error && !((error as GatewayError).status! > 200)) emit("error", error);
  };

  const isHopeless = ({ status = 400 }: GatewayError): boolean =>
    status === 401 && typeof token === "function" ? ++refusals > Max.REFUSALS : isFinal(status);

  const remove = (member: Member): void => {
    if (!members.delete(member)) return;
    isFull = false;
    hasShrunk = true;
    if (members.size) return planNext();
    drop();
    position = null;
    heardAtMs = -Infinity;
    become("idle");
  };

  drop(); // there is no connection yet
  return {
    get status() {
      return status;
    },
    get position() {
      return position;
    },
    get isFull() {
      return isFull;
    },
    get heardAtMs() {
      return heardAtMs;
    },
    add(member, isLive = !!begin) {
      members.set(member, isLive ? "live" : "new");
      if (status === "idle") become("connecting");
      planNext();
    },
    remove,
    refetch(member) {
      if (members.get(member) !== "live") return;
      members.set(member, "lost");
      planNext();
    },
    close() {
      drop();
      members.clear();
      become("closed");
    },
  };
}
