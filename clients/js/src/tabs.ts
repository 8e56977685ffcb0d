/**
 * One connection for all tabs of a browser.
 *
 * - The tabs elect a leader with a Web Lock; when its tab is closed or crashes, the browser grants the lock to the next
 *   one. The leader runs the stream (the engine) with the members of all tabs.
 * - The leader sends each message once, over a BroadcastChannel, to all tabs. So all tabs have the same position, and
 *   the next leader resumes exactly there. A tab that has another position, or has missed a post, requests snapshots,
 *   and its event streams get a gap: lost events are never silent.
 * - A tab pings a leader that is silent. If it does not answer (its tab is frozen), the tab steals the lock.
 */
import type { Control, Page, TaskRecord } from "./connection.js";
import { after, nothing, nowMs } from "./environment.js";
import { GatewayError } from "./errors.js";
import type { Patterns } from "./filter.js";
import type { Listener, Member, Stream, Wants } from "./stream.js";
import type { Event, Gap, Shared, Status } from "./types.js";

const enum Ms {
  /** How long a new leader waits for the members of the other tabs. */
  GATHER = 200,
  /** After this silence a tab pings. The gateway sends keep-alives about every 15 s. */
  SILENCE = 30_000,
  /** How long a leader may take to answer; it may be busy. */
  ANSWER = 5_000,
  /** Between two posts because something was heard. */
  HEARD = 1_000,
}
/** The channel and the locks of tabs of another version have another name. */
const VERSION = 2;

/**
 * A member is `new` until the leader reports that it has begun, then `live`. It is `paused` between two leaders: the
 * next one resumes it, or it has missed events and is new again.
 */
type Stage = "new" | "live" | "paused";

/** A member as its tab describes it: its number there, what it needs, and whether it can resume. */
type Entry = readonly [
  id: number,
  filters: readonly Patterns[],
  wants: Wants | undefined,
  needsSnapshot: boolean,
  canResume: boolean,
];

/** From a tab to the leader, which always answers. */
interface Request {
  readonly tab: string;
  /** The tab's position. `add` has all its members; the leader drops those it had of this tab. */
  readonly hello?: string | null;
  readonly add?: readonly Entry[];
  readonly remove?: number;
  readonly refetch?: number;
}

/** From the leader to all tabs, or about members of one tab. */
type Item =
  | { readonly message: Control | Event; readonly record: TaskRecord | null | undefined }
  /** `heardMs`: the age of the last byte of the gateway. */
  | { readonly status: Status; readonly heardMs: number }
  /** These members are live; `id`: the position. */
  | { readonly tab: string; readonly begun: readonly number[]; readonly pages: readonly Page[]; readonly id: string | null }
  /** All paused members are live again; or, with a gap, they are not. */
  | { readonly tab: string; readonly gap: Gap | null }
  /** There are too many members for these. */
  | { readonly tab: string; readonly refused: readonly number[] }
  /** The gateway refuses what this member needs. */
  | { readonly tab: string; readonly failed: number; readonly error: Pick<GatewayError, "message" | "code" | "status" | "parameter"> };

interface Post {
  readonly leader: string;
  /** The posts of a leader are numbered. The first one has the number 0; all tabs answer it with their members. */
  readonly number: number;
  readonly items: readonly Item[];
}

/**
 * Return the option `shared` of `connect`. It needs Web Locks: a page of `https:` or of this machine. Elsewhere each
 * client has its own connection.
 *
 * @param name only tabs with an equal name share a connection: for example the id of the user.
 */
export function tabs(name = ""): Shared {
  return (key, begin, listener) =>
    globalThis.navigator?.locks && globalThis.location
      ? join(`celery-gateway ${[VERSION, key, name]}`, begin, listener)
      : undefined;
}

type Begin = Parameters<Shared>[1];

/** Return this tab's part: a stream that the leader feeds. */
function join(name: string, begin: Begin, { emit, refused, overflow, control }: Listener): Stream {
  const { locks } = navigator;
  const tab = crypto.randomUUID();
  const members = new Map<Member, { readonly id: number; stage: Stage }>();
  const closing = new AbortController();
  const { signal } = closing;
  let channel: BroadcastChannel | undefined;
  let isKnown = false;
  let count = 0;
  let status: Status = "idle";
  let position: string | null = null;
  let isFull = false;
  let heardAtMs = -Infinity;
  /** The leader that this tab follows, and the number of its last post. */
  let leader: string | undefined;
  let number = 0;
  const formerLeaders = new Set<string>();
  let lead: Lead | undefined;
  let election = new AbortController();
  let isAnswerDue = false;
  let unwatch = nothing;

  const become = (now: Status): void => {
    status = now;
    emit("status", now);
  };
  const untilClosed = (): Promise<unknown> =>
    new Promise<unknown>((resolve) => (signal.aborted ? resolve(0) : signal.addEventListener("abort", resolve)));

  /** Queue for the leader's lock, or steal it. */
  const elect = (steal = false): void => {
    election.abort();
    const mine = (election = new AbortController());
    const isOver = (): boolean => signal.aborted || mine !== election;
    const held = async (): Promise<unknown> => {
      if (isOver()) return;
      unwatch();
      lead = makeLead(name, begin, position, flush, emit, refused);
      lead.start();
      return untilClosed();
    };
    void locks
      .request(name, steal ? { steal } : { signal: mine.signal }, held)
      .catch(nothing)
      .then(() => {
        if (isOver()) return;
        resign(); // another tab has stolen the lock
        elect();
      });
  };
  const resign = (): void => {
    lead?.close();
    lead = undefined;
  };

  /** Ping the leader after a silence; steal its lock if it does not answer. */
  const watch = (): void => {
    unwatch();
    if (lead || signal.aborted) return;
    unwatch = isAnswerDue
      ? after(Ms.ANSWER + 1_000 * Math.random(), () => elect(true))
      : after(Ms.SILENCE, () => members.size && send({}));
  };
  const send = (request: Omit<Request, "tab">): void => {
    if (!isKnown) return; // all members follow in its hello
    const whole = { tab, ...request };
    if (lead) return lead.onRequest(whole);
    channel!.postMessage(whole);
    if (isAnswerDue) return;
    isAnswerDue = true;
    watch();
  };
  const hello = (): void => {
    const add = [...members].map(([{ filters, wants, refresh }, { id, stage }]): Entry => [
      id,
      filters,
      wants,
      !!refresh,
      stage === "paused",
    ]);
    send({ hello: position, add });
  };

  /** Send a post of this tab, as the leader, to all tabs. */
  const flush = (post: Post, hasOthers: boolean): void => {
    if (hasOthers) channel!.postMessage(post);
    onPost(post);
  };

  const onPost = (post: Post): void => {
    if (formerLeaders.has(post.leader)) return;
    const isNext = post.leader === leader && post.number === number + 1;
    const isFirst = leader === undefined;
    isAnswerDue = false;
    if (!isNext) {
      const isOther = post.leader !== leader;
      if (isOther && leader) formerLeaders.add(leader);
      leader = post.leader;
      if (lead && !lead.is(leader)) resign();
      for (const own of members.values()) if (own.stage === "live") own.stage = "paused";
      if (post.number && !isFirst) missed(); // a post of this leader
    }
    number = post.number;
    watch();
    if (!isNext && !(isFirst && post.number)) return hello();
    post.items.forEach(handle);
  };

  const handle = (item: Item): void => {
    if ("message" in item) return onMessage(item.message as Control, item.record);
    if ("status" in item) {
      heardAtMs = members.size ? nowMs() - item.heardMs : -Infinity;
      return void (members.size && item.status !== status && become(item.status));
    }
    if ("begun" in item) position = item.id;
    if (item.tab !== tab) return;
    if ("gap" in item) {
      if (item.gap) return missed(item.gap);
      for (const own of members.values()) if (own.stage === "paused") own.stage = "live";
    } else if ("begun" in item) {
      for (const [member, own] of [...members]) {
        if (!item.begun.includes(own.id)) continue;
        own.stage = "live";
        member.begun?.();
        member.refresh?.(item.pages);
      }
    } else if ("failed" in item) {
      const member = [...members].find(([, { id }]) => id === item.failed)?.[0];
      if (member) members.delete(member);
      member?.refuse(new GatewayError(item.error.message, item.error));
      if (!members.size) become("idle");
    } else {
      const rest = [...members].filter(([, { id }]) => item.refused.includes(id)).map(([member]) => member);
      for (const member of rest) members.delete(member);
      isFull = true;
      overflow(rest);
    }
  };

  /** Handle a message of the gateway, by the rules of `stream`. */
  const onMessage = (message: Control, record?: TaskRecord | null): void => {
    missed(); // the leader has begun without the paused members
    if (position !== null) position = message.id;
    if (message.type.startsWith("gateway-")) {
      control?.(message);
      for (const member of [...members.keys()]) member.control?.(message);
    }
    if (message.type === "gateway-gap") {
      emit("gap", message);
      for (const [member, own] of members) {
        if (own.stage !== "live") continue;
        if (member.refresh) own.stage = "new"; // the leader requests its snapshot
        member.gap?.(message);
      }
    } else if (!message.type.startsWith("gateway-")) {
      for (const [member, { stage }] of members) if (stage === "live") member.event(message as Event, record);
    }
  };

  /** The paused members have missed events. */
  const missed = (gap: Gap = { type: "gateway-gap", id: `${position}`, reason: "unknown-id", lost: null }): void => {
    const paused = [...members].filter(([, { stage }]) => stage === "paused");
    if (paused.length) emit("gap", gap);
    for (const [member, own] of paused) {
      own.stage = "new";
      member.gap?.(gap);
    }
  };

  /** Enter the election. The leader waits for a lock of this tab: it is free when the tab is gone. */
  const enter = (): void => {
    channel = new BroadcastChannel(name);
    channel.onmessage = ({ data }: MessageEvent<Post & Request>) => (data.leader ? onPost(data) : lead?.onRequest(data));
    const held = (): Promise<unknown> => {
      isKnown = true;
      elect();
      hello();
      return untilClosed();
    };
    void locks.request(name + tab, { signal }, held).catch(nothing);
  };

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
    add(member) {
      const id = ++count;
      members.set(member, { id, stage: "new" });
      if (status === "idle") become("connecting");
      if (channel) send({ add: [[id, member.filters, member.wants, !!member.refresh, false]] });
      else enter();
    },
    remove(member) {
      const own = members.get(member);
      if (!own) return;
      members.delete(member);
      isFull = false;
      send({ remove: own.id });
      if (members.size) return;
      heardAtMs = -Infinity;
      become("idle");
    },
    refetch(member) {
      const own = members.get(member);
      if (own) send({ refetch: own.id });
    },
    close() {
      closing.abort();
      election.abort();
      resign();
      unwatch();
      channel?.close();
      members.clear();
      become("closed");
    },
  };
}

interface Lead {
  is(leader: string): boolean;
  start(): void;
  onRequest(request: Request): void;
  close(): void;
}

/**
 * Return the leader's part: the engine, with a proxy for each member of each tab.
 *
 * @param position the leader's, where the engine resumes.
 * @param flush handles a post in this tab, and sends it to the others if there are any.
 */
function makeLead(
  name: string,
  begin: Begin,
  position: string | null,
  flush: (post: Post, hasOthers: boolean) => void,
  emit: Listener["emit"],
  refused: Listener["refused"],
): Lead {
  const leader = crypto.randomUUID();
  const closing = new AbortController();
  const { signal } = closing;
  const proxies = new Map<string, Map<number, Member>>();
  let engine: Stream | undefined;
  let waiting: Request[] = [];
  let batch: Item[] = [];
  let number = 0;
  let toldAtMs = -Infinity;
  /** Whether the next post is also for tabs that are not known: they have missed the posts of a tab that was alone. */
  let isForAll = true;

  const post = (item: Item): void => {
    if (batch.push(item) === 1) queueMicrotask(send);
  };
  const send = (): void => {
    if (signal.aborted) return;
    const items = batch;
    batch = [];
    const hasOthers = isForAll || proxies.size > 1;
    isForAll = false;
    flush({ leader, number: number++, items }, hasOthers);
  };

  const tellStatus = (status: Status): void => {
    toldAtMs = nowMs();
    post({ status, heardMs: engine ? toldAtMs - engine.heardAtMs : Infinity });
  };

  const proxy = (tab: string, [id, filters, wants, needsSnapshot]: Entry): Member => {
    const begun = (pages: readonly Page[]): void => {
      const before = batch.at(-1);
      const item = { tab, begun: [id], pages, id: engine!.position };
      // Members that begin together share their pages.
      if (!before || !("begun" in before) || before.tab !== tab || (before.pages !== pages && pages.length)) return post(item);
      batch[batch.length - 1] = { ...before, begun: [...before.begun, id] };
    };
    return {
      filters,
      wants,
      event: nothing, // each message is posted once, for all
      begun: needsSnapshot ? undefined : () => begun([]),
      refresh: needsSnapshot ? begun : undefined,
      refuse({ message, code, status, parameter }: GatewayError) {
        proxies.get(tab)?.delete(id);
        post({ tab, failed: id, error: { message, code, status, parameter } });
      },
    };
  };

  const drop = (tab: string): void => {
    for (const member of proxies.get(tab)?.values() ?? []) engine!.remove(member);
    proxies.delete(tab);
    if (engine!.status === "idle") post({ tab, begun: [], pages: [], id: null });
  };

  const handle = ({ tab, hello, add = [], remove, refetch }: Request): void => {
    let own = proxies.get(tab);
    isForAll ||= !own;
    if (hello !== undefined) {
      for (const member of own?.values() ?? []) engine!.remove(member);
      if (!own) void navigator.locks.request(name + tab, { signal }, () => drop(tab)).catch(nothing);
      proxies.set(tab, (own = new Map()));
    }
    own ??= new Map(); // its hello follows
    const canResume = waiting.length > 0 && hello === position;
    if (add.some((entry) => entry[4])) {
      post({ tab, gap: canResume ? null : { type: "gateway-gap", id: `${hello}`, reason: "unknown-id", lost: null } });
    }
    for (const entry of proxies.has(tab) ? add : []) {
      const member = proxy(tab, entry);
      own.set(entry[0], member);
      engine!.add(member, canResume && entry[4]);
    }
    const old = own.get(remove ?? refetch ?? 0);
    if (old && remove) {
      own.delete(remove);
      engine!.remove(old);
      if (engine!.status === "idle") post({ tab, begun: [], pages: [], id: null });
    } else if (old) engine!.refetch(old);
    tellStatus(engine!.status); // the answer
  };

  const start = (): void => {
    if (signal.aborted) return;
    // Without members to resume there is no reason to begin in the past.
    if (!waiting.some(({ hello, add }) => hello === position && add?.some((entry) => entry[4]))) position = null;
    engine = begin(
      {
        emit(type, value) {
          if (type === "status") tellStatus(value as Status);
          if (type === "error") emit(type, value);
        },
        refused,
        heard() {
          if (engine && nowMs() - toldAtMs >= Ms.HEARD) tellStatus(engine.status);
        },
        overflow(members) {
          for (const [tab, own] of proxies) {
            const ids = [...own].filter(([, member]) => members.includes(member)).map(([id]) => id);
            for (const id of ids) own.delete(id);
            if (ids.length) post({ tab, refused: ids });
          }
        },
        message(message, record) {
          if (message.type !== "gateway-snapshot") post({ message, record });
        },
      },
      position,
    );
    waiting.forEach(handle);
    waiting = [];
  };

  return {
    is: (other) => other === leader,
    start() {
      send();
      after(Ms.GATHER, start);
    },
    onRequest(request) {
      if (engine) handle(request);
      else waiting.push(request);
    },
    close() {
      closing.abort();
      engine?.close();
    },
  };
}
