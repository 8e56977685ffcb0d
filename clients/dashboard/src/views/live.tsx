/** The tail: events as they happen. The address has the filter, as `/events` of the gateway has it. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Client, type Event, type EventStream, type Filter, type GatewayError } from "../../../js/src/index.ts";
import { matcher, parse } from "../../../js/src/filter.ts";
import { EventPanel } from "../components/event-panel.tsx";
import { copy, CopyButton, ErrorBox, ViewFrame } from "../components/layout.tsx";
import { SearchBox } from "../components/search-box.tsx";
import { lazy } from "../components/lazy.tsx";
import { TailList } from "../components/tail-list.ts";
import { access, isUtc, nowSeconds, tailClient } from "../gateway.ts";
import { useKeys } from "../keys.ts";
import { base, go, goQuery } from "../navigation.ts";
import { formatQuery, href, literal, type Query, type Route, valueOf, withValue } from "../route.ts";
import { EVENT_FIELDS, formatSearch } from "../search.ts";
import { use } from "../store.ts";
import { type Entry, entryOf, gapText, isReplayed, noteOf, skippedText, TailBuffer, type TailState } from "../tail.ts";
import { count, rate } from "../text.ts";
import type { View } from "./registry.ts";

const WatchIt = lazy(() => import("../components/watch-it.tsx").then(({ WatchIt }) => WatchIt));

/** Events a second that the gateway sends; more cannot be read. */
export const MAX_RATE = 200;
/** How far back the tail begins. */
const SINCE = "1m";
const HEARTBEATS = "!worker-heartbeat";
/** A tab that nobody has looked at for so long closes its stream, and resumes it later. */
const ASLEEP_MS = 600_000;
const RATE_MS = 1_000;

/** Return the filter of an address. Heartbeats are left out unless it names types to show. */
export function filterOf(query: Query): Filter {
  const filter: { [field: string]: string[] } = {};
  for (const [name, value] of query) {
    if (name !== "since") (filter[name] ??= []).push(...(value.match(/(?:\\[^]|[^,\\])+/g) ?? [value]));
  }
  const types = (filter["type"] ??= []);
  if (types.every((pattern) => pattern.startsWith("!"))) types.push(HEARTBEATS);
  return filter as Filter;
}

/** Return the command that shows the same events. */
function curl(query: Query): string {
  const header = access.value === "open" ? "" : '-H "Authorization: Bearer $TOKEN" ';
  const search = formatQuery(withValue(query, "type", String(filterOf(query).type)));
  return `curl -N ${header}'${new URL(`events${search}`, base).href.replaceAll("'", "%27")}'`;
}

const LiveView: View = ({ route }: { readonly route: Route }) => {
  const { query } = route;
  const box = useRef<HTMLDivElement>(null);
  const list = useRef<TailList | undefined>(undefined);
  const [{ isHeld, unseen }, setState] = useState<TailState>({ isHeld: false, unseen: 0 });
  const [selected, setSelected] = useState<Entry | null>(null);
  const [isWatching, watch] = useState(false);
  const buffer = useMemo(() => new TailBuffer(), []);
  const key = formatQuery(query);
  const latest = useRef(query);
  latest.current = query;

  const filterBy = (field: string, value: string, isWithout: boolean): void => {
    const pattern = (isWithout ? "!" : "") + literal(value);
    const given = valueOf(latest.current, field);
    const next = isWithout && given ? `${given},${pattern}` : given === pattern ? "" : pattern;
    goQuery(withValue(latest.current, field, next), { replace: false });
  };

  useEffect(() => {
    const made = new TailList(box.current!, buffer, () => isUtc.value, { changed: setState, selected: setSelected, filtered: filterBy });
    list.current = made;
    const unsubscribe = isUtc.subscribe(() => made.reset());
    return () => {
      unsubscribe();
      made.close();
    };
  }, []);
  const { error, speed, hasAnswered } = useTail(query, key, buffer, list);

  const toggle = (): void => list.current?.hold(!isHeld);
  const ofSelected = (act: (entry: Entry) => unknown) => () => {
    const entry = list.current?.selected;
    return entry ? act(entry) : false;
  };
  useKeys({
    next: () => list.current?.step(1),
    previous: () => list.current?.step(-1),
    failure: () => list.current?.step(1, (entry) => entry.isFailure),
    hold: toggle,
    open: ofSelected(({ uuid }) => (uuid ? go({ view: "task", id: uuid }) : false)),
    openTab: ofSelected(({ uuid }) => (uuid ? void open(new URL(href({ view: "task", id: uuid }), base), "_blank", "noopener") : false)),
    workflow: ofSelected(({ root_id }) => (root_id ? go({ view: "workflow", id: root_id }) : false)),
    copyId: ofSelected(({ uuid }) => void copy(uuid)),
    copyCurl: () => void copy(curl(query)),
    back: () => box.current?.scrollBy({ top: box.current.clientHeight * 0.9 }),
    forth: () => box.current?.scrollBy({ top: -box.current.clientHeight * 0.9 }),
    escape: () => (selected ? list.current?.select(null) : query.length ? goQuery([], { replace: false }) : false),
  });

  const isEmpty = buffer.length === 0;
  const clear = (): void => {
    buffer.clear();
    list.current?.reset();
  };
  return (
    <ViewFrame name="live" state={error ? "error" : isEmpty ? (hasAnswered ? "empty" : "loading") : "ready"} title="Live"
      tools={
        <>
          <span class="muted num">{rate(speed.seen)}{speed.skipped > 0 && ` of ${rate(speed.seen + speed.skipped)}`}</span>
          <button type="button" aria-pressed={isHeld} onClick={toggle} title="Space">
            {!isHeld ? "Hold" : unseen ? `Follow (${count(unseen)} new)` : "Follow"}
          </button>
          <button type="button" onClick={clear}>Clear</button>
          <button type="button" aria-expanded={isWatching} onClick={() => watch(!isWatching)}>Watch it</button>
          <CopyButton label="Copy curl" text={curl(query)} />
        </>
      }>
      <SearchBox label="Filter events" placeholder="Filter: name:shop.* state:FAILURE type:task-failed" value={formatSearch(query, EVENT_FIELDS)} fields={EVENT_FIELDS}
        onSearch={(found) => goQuery(found, { replace: false })} />
      {isWatching && <div class="card"><WatchIt kind="filter" query={query} /></div>}
      {error && <ErrorBox error={error} />}
      <div class="tail" ref={box} role="table" aria-label="Events, newest first">
        <div class="tail-head" role="rowgroup">
          <div role="row" class="tail-row">
            {[["time"], ["type"], ["name", "task"], ["state"], ["uuid"], ["root_id", "workflow"], ["hostname", "worker"], ["detail"]].map(([field, label = field]) => (
              <span key={field} role="columnheader" class={`cell ${field}`}>{label}</span>
            ))}
          </div>
        </div>
      </div>
      {isEmpty && !error && hasAnswered && <Nothing query={query} />}
      <p class="muted hint">Click a value to see only its events, Alt-click to see those without it. Nothing moves while the pointer is over the list, a row is selected, or the list is scrolled.</p>
      {selected && <EventPanel key={selected.id} entry={selected} onClose={() => list.current?.select(null)} onFilter={filterBy} />}
    </ViewFrame>
  );
};
export default LiveView;

function Nothing({ query }: { readonly query: Query }) {
  return (
    <p role="note">
      No event to show. New ones {query.length ? "that match this filter appear here." : <>appear here. Workers send events of tasks if they are started with <code>-E</code>.</>}
    </p>
  );
}

interface Tail {
  readonly error: Error | null;
  /** Events a second, over the last seconds; without those from before. */
  readonly speed: { readonly seen: number; readonly skipped: number };
  readonly hasAnswered: boolean;
}

/** Fill the buffer from the stream of a filter. Another client resumes where the one before has ended. */
function useTail(query: Query, key: string, buffer: TailBuffer, list: { readonly current: TailList | undefined }): Tail {
  const [error, setError] = useState<Error | null>(null);
  const [speed, setSpeed] = useState({ seen: 0, skipped: 0 });
  const [hasAnswered, setAnswered] = useState(false);
  const position = useRef<Position>({ key: null, id: "" });
  const tail = use(tailClient);
  useEffect(() => {
    setError(null);
    setAnswered(false);
    const numbers: Numbers = { seen: 0, skipped: 0, last: 0, openedMs: performance.now() };
    const isFirst = position.current.key === null;
    let filter: Filter;
    try {
      filter = filterOf(query);
      const passes = matcher(parse(filter));
      if (position.current.key !== key) {
        if (!isFirst) {
          buffer.keep(passes);
          buffer.push(noteOf("filter", `Filter: ${formatSearch(query, EVENT_FIELDS) || "none"}. Below are the matching rows of the filter before.`));
          list.current?.reset();
        }
        position.current = { key, id: position.current.id }; // nothing is missed between the two streams
      }
    } catch (problem) {
      return setError(problem as Error);
    }
    const add = (entry: Entry): void => {
      buffer.push(entry);
      list.current?.schedule();
    };
    const since = valueOf(query, "since") || SINCE;
    const opened = openTail(tail, filter, since, position.current, numbers, add);
    // Without a session the form for a token is shown.
    const unlisten = tail.on("error", (problem) => (problem as GatewayError).status !== 401 && setError(problem));
    const timer = setInterval(() => {
      setSpeed((before) => ({ seen: mean(before.seen, numbers.seen), skipped: mean(before.skipped, numbers.skipped) }));
      numbers.seen = numbers.skipped = 0;
      if (tail.health.status === "open") return setAnswered(true);
      numbers.last = 0;
      numbers.openedMs = performance.now();
    }, RATE_MS);
    return () => {
      opened.close();
      unlisten();
      clearInterval(timer);
    };
  }, [key, tail]);
  return { error, speed, hasAnswered };
}

/** The events since the last look. Those from before the stream was open are not counted. */
interface Numbers {
  seen: number;
  skipped: number;
  /** The time of the last event; 0 before the first one. */
  last: number;
  openedMs: number;
}

/** The filter that is shown, and the id of the last event of any filter. */
interface Position {
  readonly key: string | null;
  id: string;
}

/** Return a mean that forgets what is older than some seconds. */
function mean(before: number, now: number): number {
  const next = (before + now) / 2;
  return next < 0.05 ? 0 : next;
}

/** Open the stream; close it while nobody has looked for long. */
function openTail(tail: Client, filter: Filter, since: string, position: Position, numbers: Numbers, add: (entry: Entry) => void): { close(): void } {
  let stream: EventStream | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const isOld = (): boolean => isReplayed(numbers.last, nowSeconds(), performance.now() - numbers.openedMs);
  const start = (): void => {
    stream = tail.events(filter, {
      lastEventId: position.id || undefined, // before `since`
      since,
      maxRate: MAX_RATE,
      onGap: (gap) => add(noteOf("gap", gapText(gap))),
      onSkipped: (skipped) => {
        const wasBefore = isOld();
        if (!wasBefore) numbers.skipped += skipped.count;
        add(noteOf("skipped", skippedText(skipped, MAX_RATE, wasBefore)));
      },
    });
    stream.subscribe((event: Event) => {
      const entry = entryOf(event);
      numbers.last = entry.time;
      if (!isOld()) numbers.seen++;
      position.id = event.id;
      add(entry);
    });
  };
  const look = (): void => {
    clearTimeout(timer);
    if (!document.hidden && !stream) start();
    else if (document.hidden) {
      timer = setTimeout(() => {
        stream?.close();
        stream = undefined;
      }, ASLEEP_MS);
    }
  };
  start();
  document.addEventListener("visibilitychange", look);
  return {
    close() {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", look);
      stream?.close();
    },
  };
}
