/** Gaps of the stream, as far as the page has seen them. */
import { useEffect, useRef, useState } from "preact/hooks";
import { client, nowSeconds } from "./gateway.ts";
import { use } from "./store.ts";
import { plural } from "./text.ts";

/** A time in which events were lost, or may have been, while the page was open: epoch seconds. */
export interface SeenGap {
  readonly range: readonly [from: number, to: number];
  readonly reason: string;
  readonly lost: number | null;
}

const MAX_GAPS = 100;

/** Return the gaps since the component was mounted. One begins at the change before it, and ends when it is reported. */
export function useGaps(changed: unknown): readonly SeenGap[] {
  const [gaps, setGaps] = useState<readonly SeenGap[]>([]);
  const last = useRef(nowSeconds());
  useEffect(() => {
    last.current = nowSeconds();
  }, [changed]);
  const current = use(client);
  useEffect(
    () =>
      current.on("gap", ({ reason, lost }) => {
        const to = nowSeconds();
        const range = [Math.min(last.current, to - 0.05), to] as const;
        setGaps((before) => [...before.slice(1 - MAX_GAPS), { range, reason, lost }]);
      }),
    [current],
  );
  return gaps;
}

const REASONS: Readonly<Record<string, string>> = {
  evicted: "events were no longer in the gateway's history",
  slow: "events were not read in time",
  broker: "the gateway was not connected to its broker",
  "unknown-id": "the gateway was restarted",
};

export function gapTitle({ reason, lost }: SeenGap): string {
  return `Gap: ${REASONS[reason] ?? reason}${lost === null ? "" : `, ${plural(lost, "event")} lost`}`;
}
