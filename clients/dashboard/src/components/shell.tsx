/** What is around each view: navigation, status, search, and the notes of the gateway. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { access, asksForToken, away, client, health, isUtc, may, now, refusal, setClock, useWatch } from "../gateway.ts";
import { useKeys } from "../keys.ts";
import { go, route } from "../navigation.ts";
import { formatSearch, isUuid } from "../search.ts";
import { type Shown, shownStatus } from "../status.ts";
import { endedPerMinute } from "../overview.ts";
import { useStatistics } from "../statistics.ts";
import { use, useComputed } from "../store.ts";
import { count, plural, rate, visible } from "../text.ts";
import { duration } from "../time.ts";
import { NAV } from "../views/registry.ts";
import { awayOf } from "../workers.ts";
import { Link } from "./link.tsx";
import { SearchBox } from "./search-box.tsx";

/** What the status line shows now, computed once a second and at each change. */
export function useStatus(): Shown {
  useConnection();
  const text = useComputed(() => {
    const refused = asksForToken(refusal.value) ? "" : may.value.includes("events") ? (refusal.value?.message ?? null) : 'This token does not allow the stream: its scope must have "events" in "may".';
    return JSON.stringify(shownStatus(health.value, refused, now.value));
  }, access, may, refusal, health, now);
  return useMemo(() => JSON.parse(text) as Shown, [text]);
}

/** Keep the stream open, also while the view watches nothing: the status is about it. */
function useConnection(): void {
  const current = use(client);
  const isAllowed = use(may).includes("events");
  useEffect(() => (isAllowed ? current.events({ type: "!*" }).subscribe(() => {}) : undefined), [current, isAllowed]);
}

const SHAPES = { ok: "●", quiet: "○", warn: "▲", bad: "■" } as const;

export function Header({ status }: { readonly status: Shown }) {
  const head = useRef<HTMLElement>(null);
  useHeight(head);
  const { view } = use(route);
  useKeys(Object.fromEntries(NAV.map(({ view }) => [view, () => go({ view })])));
  return (
    <header ref={head} class="shell">
      <div class="shell-row">
        <Link to={{ view: "overview" }} class="brand">Celery Gateway</Link>
        <nav aria-label="Views">
          <ul>
            {NAV.map(({ view: target, label, key, also }) => (
              <li key={target}>
                <Link to={{ view: target }} current={view === target || also.some((one) => one === view)} title={`${label}: key ${key}`}>{label}</Link>
              </li>
            ))}
          </ul>
        </nav>
        <Search />
        <Switches />
      </div>
      <StatusLine status={status} />
    </header>
  );
}

function Search() {
  const { view, query } = use(route);
  return (
    <SearchBox hasKeys label="Search tasks" placeholder="Search: id, text, state:FAILURE, runtime>5    /" value={view === "tasks" ? formatSearch(query) : ""}
      onSearch={(query, text) => (isUuid(text) ? go({ view: "task", id: text.trim() }) : go({ view: "tasks", query }))} />
  );
}

function Switches() {
  const [problem, setProblem] = useState("");
  const utc = use(isUtc);
  return (
    <div class="switches">
      <button type="button" aria-pressed={utc} title="Show times in UTC" onClick={() => (isUtc.value = !utc)}>UTC</button>
      {use(access) === "session" && (
        <button type="button" onClick={() => void import("./login.tsx").then(({ signOut }) => signOut()).then(setProblem)}>Sign out</button>
      )}
      {problem && <span role="alert" class="bad">{problem}</span>}
    </div>
  );
}

/** The status, what the workers do, and a band for what is wrong. */
function StatusLine({ status }: { readonly status: Shown }) {
  const { level, text, details } = status;
  const heardMs = use(health)?.heardMs;
  const allowed = use(may);
  const { value: workers } = useWatch((client) => (allowed.includes("workers") && allowed.includes("events") ? client.workers() : null), `workers ${allowed}`);
  const { value: statistics, sent } = useStatistics(allowed.includes("state") && allowed.includes("events") ? { window: "1h" } : null);
  useEffect(() => void (sent && setClock(sent.time)), [sent]);
  const alive = workers?.filter((worker) => worker.alive).length;
  useEffect(() => void (away.value = awayOf(workers ?? [])), [workers]);
  return (
    <div class={`status level-${level}`}>
      <p class="status-line">
        <strong class="level"><span aria-hidden="true">{SHAPES[level]}</span> {visible(text)}</strong>
        {workers && <span>{plural(alive ?? 0, "worker")}{alive !== workers.length && <span class="muted"> of {count(workers.length)}</span>}</span>}
        {statistics && <span>{rate(endedPerMinute(statistics.total, statistics) / 60)} done</span>}
        {statistics && <span class={statistics.total.failed ? "bad" : "muted"}>{plural(statistics.total.failed, "failure")} in 1 h</span>}
        {heardMs != null && <span class="muted">heard {heardMs < 1_000 ? "now" : `${duration(Math.floor(heardMs / 1_000))} ago`}</span>}
      </p>
      {details.length > 0 && <div class="band">{details.map((sentence) => <p key={sentence}><bdi>{visible(sentence)}</bdi></p>)}</div>}
      <Announcement text={[text, ...details].join(". ")} isGood={level === "ok"} />
    </div>
  );
}

const ANNOUNCE_MS = 5_000;

/**
 * The status for screen readers: at most one message in five seconds, and no ages, which change each second. A good one
 * replaces the one before at once, which would be read as that of now.
 */
function Announcement({ text, isGood }: { readonly text: string; readonly isGood: boolean }) {
  const steady = text.replace(/\d[\d.,]* ?(ms|s|min|h|d)\b/g, "").replace(/\s+/g, " ");
  const [said, say] = useState("");
  const saidAt = useRef(-Infinity);
  useEffect(() => {
    const wait = isGood ? 0 : Math.max(0, saidAt.current + ANNOUNCE_MS - performance.now());
    const timer = setTimeout(() => {
      saidAt.current = performance.now();
      say(text);
    }, wait);
    return () => clearTimeout(timer);
  }, [steady]);
  return <p role="status" class="visually-hidden">{visible(said)}</p>;
}

/** Keep the height of the header in `--head`, for what sticks below it. */
function useHeight(head: { readonly current: HTMLElement | null }): void {
  useEffect(() => {
    const observer = new ResizeObserver(() => {
      const isSticky = getComputedStyle(head.current!).position === "sticky";
      document.documentElement.style.setProperty("--head", isSticky ? `${head.current!.offsetHeight}px` : "0px");
    });
    observer.observe(head.current!);
    return () => observer.disconnect();
  }, []);
}

