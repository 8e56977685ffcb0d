import assert from "node:assert/strict";
import { test } from "node:test";
import type { Health, Source } from "../../js/src/index.ts";
import { AWAY_SECONDS, BAD_SECONDS, documentTitle, shownStatus, WARN_SECONDS } from "../src/status.ts";

const NOW = 1_000_000;
const source = (consuming: boolean, more: Partial<Source> = {}): Source => ({ cluster: null, consuming, reason: consuming ? "consuming" : "nothing listens at 10.0.0.1:5672", since: NOW - 5, ...more });
const health = (more: Partial<Health> = {}): Health => ({ status: "open", heardMs: 200, sources: [source(true)], version: "1", started: NOW - 100, control: false, actions: [], ...more });
const level = (value: Health | null, refusal: string | null = null): string => shownStatus(value, refusal, NOW).level;

test("it is green only if the gateway was heard lately and has all its brokers", () => {
  const statuses = ["idle", "connecting", "open", "waiting", "closed"] as const;
  const sourceLists = [[], [source(true)], [source(false)], [source(true), source(false)], [source(false), source(false)]];
  for (const status of statuses) {
    for (const heardMs of [null, 0, 14_999, 19_999, 20_000, 44_999, 45_000, 1e9]) {
      for (const sources of sourceLists) {
        for (const refusal of [null, "no token"]) {
          const isGreen = refusal === null && status === "open" && heardMs !== null && heardMs < 1_000 * WARN_SECONDS && sources.length > 0 && sources.every(({ consuming }) => consuming);
          const shown = shownStatus(health({ status, heardMs, sources }), refusal, NOW);
          assert.equal(shown.level === "ok", isGreen, JSON.stringify([status, heardMs, sources, refusal]));
          assert.ok(shown.text);
          assert.ok(shown.level === "ok" || shown.level === "quiet" || shown.details.length > 0, "it says what is wrong");
        }
      }
    }
  }
});

test("a refusal that is shown elsewhere is not repeated", () => {
  assert.deepEqual(shownStatus(health(), "", NOW), { level: "bad", text: "not connected", details: [] });
});

test("silence becomes amber, then red", () => {
  assert.equal(level(health({ heardMs: 1_000 * WARN_SECONDS })), "warn");
  assert.equal(level(health({ heardMs: 1_000 * BAD_SECONDS })), "bad");
  assert.equal(level(health({ status: "waiting", heardMs: 1_000 })), "warn");
  assert.equal(level(health({ status: "connecting", heardMs: 1_000 * BAD_SECONDS })), "bad");
  assert.match(shownStatus(health({ status: "waiting", heardMs: 12_345 }), null, NOW).text, /last heard 12 s ago/);
});

test("before the first byte it is neither green nor red", () => {
  assert.equal(level(null), "quiet");
  assert.equal(level(health({ status: "connecting", heardMs: null, sources: [] })), "quiet");
  assert.equal(level(health({ status: "waiting", heardMs: null, sources: [] })), "warn");
});

test("a broker that is away is amber, and red if all are away for long", () => {
  const long = { since: NOW - AWAY_SECONDS };
  assert.equal(level(health({ sources: [source(false)] })), "warn");
  assert.equal(level(health({ sources: [source(false, long)] })), "bad");
  assert.equal(level(health({ sources: [source(false, long), source(true)] })), "warn");
  assert.equal(level(health({ sources: [source(false, long), source(false)] })), "warn");
  const { text, details } = shownStatus(health({ sources: [source(false, { cluster: "eu" }), source(true, { cluster: "us" })] }), null, NOW);
  assert.equal(text, "broker away: eu");
  assert.deepEqual(details, ["eu: nothing listens at 10.0.0.1:5672 (for 5 s)"]);
});

test("a reason that is a code is a sentence", () => {
  const away = (code: string) => shownStatus(health({ sources: [source(false, { reason: `${code}; the gateway's log has the details` })] }), null, NOW).details;
  const more = "(for 5 s). The gateway's log has the details; --verbose-health shows them here.";
  assert.deepEqual(away("unreachable"), [`The broker cannot be reached ${more}`]);
  assert.deepEqual(away("not-connected-yet"), [`The broker is away: not connected yet ${more}`]);
});

test("a refusal is shown in the gateway's words", () => {
  assert.deepEqual(shownStatus(health(), "the token has expired", NOW), { level: "bad", text: "not connected", details: ["the token has expired"] });
});

test("the title has new failures and the status", () => {
  assert.equal(documentTitle("Tasks", 3, "ok"), "(3) Tasks · Celery Gateway");
  assert.equal(documentTitle("", 0, "ok"), "Celery Gateway");
  assert.equal(documentTitle("Live", 0, "bad"), "⚠ Live · Celery Gateway");
  assert.equal(documentTitle("Live", 12_345, "bad"), "(999+) Live · Celery Gateway");
});
