/** What the status line shows. It is green only if the gateway was heard lately and has all its brokers. Pure. */
import type { Health, Source } from "../../js/src/index.ts";
import { duration } from "./time.ts";

export interface Shown {
  /** `quiet`: not known yet. */
  readonly level: "ok" | "quiet" | "warn" | "bad";
  /** Some words. */
  readonly text: string;
  /** Sentences: one for each broker that is away, or what is wrong with the connection. */
  readonly details: readonly string[];
}

/** Seconds without a byte of the gateway; it sends a keep-alive about every 15 s. */
export const WARN_SECONDS = 20;
export const BAD_SECONDS = 45;
/** Seconds without any broker until that is red. */
export const AWAY_SECONDS = 45;

/**
 * Return what is shown.
 *
 * @param health of the client; null before the first one.
 * @param refusal why the gateway has refused the client; empty if that is shown elsewhere, null if it has not.
 * @param now epoch seconds.
 */
export function shownStatus(health: Health | null, refusal: string | null, now: number): Shown {
  if (refusal !== null) return { level: "bad", text: "not connected", details: refusal ? [refusal] : [] };
  if (!health || health.status === "idle") return { level: "quiet", text: "connecting …", details: [] };
  const { status, heardMs } = health;
  const heard = heardMs === null ? null : heardMs / 1_000;
  if (status === "closed") return { level: "bad", text: "not connected", details: ["The gateway has refused the connection."] };
  if (heard === null) {
    if (status !== "waiting") return { level: "quiet", text: "connecting …", details: [] };
    return { level: "warn", text: "no answer", details: ["The gateway does not answer. The page tries again."] };
  }
  const silence = silent(heard, status === "open");
  if (silence) return silence;
  return ofSources(health.sources, now);
}

/** Return what is shown if the connection is lost, or nothing was heard for long. */
function silent(heard: number, isOpen: boolean): Shown | undefined {
  const level = heard >= BAD_SECONDS ? "bad" : "warn";
  const last = `last heard ${duration(Math.floor(heard))} ago`;
  if (!isOpen) {
    return { level, text: `reconnecting · ${last}`, details: [`The connection to the gateway is lost: what is shown is from ${duration(Math.floor(heard))} ago.`] };
  }
  if (heard < WARN_SECONDS) return undefined;
  return { level, text: last, details: ["The gateway sends nothing, not even its keep-alives: it hangs, or the connection is dead."] };
}

/** Without `--verbose-health` a reason is a code. */
const CODE = /^([\w-]+); the gateway's log has the details$/;

function ofSources(sources: readonly Source[], now: number): Shown {
  const away = sources.filter(({ consuming }) => !consuming);
  if (!sources.length) return { level: "quiet", text: "connected", details: [] };
  if (!away.length) return { level: "ok", text: "live", details: [] };
  const isLong = away.length === sources.length && away.every(({ since }) => now - since >= AWAY_SECONDS);
  const names = away.flatMap(({ cluster }) => (cluster === null ? [] : [cluster]));
  return {
    level: isLong ? "bad" : "warn",
    text: names.length ? `broker away: ${names.join(", ")}` : "broker away",
    details: away.map(({ cluster, reason, since }) => {
      const age = `(for ${duration(Math.max(0, Math.floor(now - since)))})`;
      const [, code] = CODE.exec(reason) ?? [];
      const what = code === "unreachable" ? "The broker cannot be reached" : `The broker is away: ${code?.replaceAll("-", " ")}`;
      return `${cluster === null ? "" : `${cluster}: `}${code ? `${what} ${age}. The gateway's log has the details; --verbose-health shows them here.` : `${reason} ${age}`}`;
    }),
  };
}

/** Return the title of the document. */
export function documentTitle(name: string, newFailures: number, level: Shown["level"]): string {
  const mark = newFailures ? `(${newFailures > 999 ? "999+" : newFailures}) ` : level === "bad" || level === "warn" ? "⚠ " : "";
  return `${mark}${name ? `${name} · ` : ""}Celery Gateway`;
}
