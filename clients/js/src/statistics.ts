/** Numbers by task name: from `gateway-statistics`; or fetched, if the stream has those of another window. */
import type { Live, Model } from "./feed.js";
import type { Request } from "./http.js";
import { intervalOf, polled } from "./poll.js";
import { paramsOf } from "./select.js";
import type { Statistics, StatisticsItem, StatisticsOptions } from "./types.js";
import { keyOf, seconds } from "./values.js";

const enum Max {
  /** The gateway's longest interval. */
  INTERVAL_MS = 300_000,
}

/** Return a function that returns a model of the statistics of a window. */
export function statistics(get: Request, options: StatisticsOptions): () => Model<Statistics> {
  const { window = "1h", name, cluster } = options;
  const isPart = name ?? cluster;
  const intervalMs = Math.min(Max.INTERVAL_MS, Math.max(1_000, intervalOf(options.intervalMs)));
  return () => {
    let value: Statistics | null = null;
    const items = new Map<string, StatisticsItem>();
    /** False until a message with all names. */
    let hasAll = false;
    let isFirst = false;
    let live: Live;
    let end: (() => void) | undefined;
    const fetched = polled<Statistics>(async (signal) => {
      const { id, ...answer } = await get("/statistics", { window, ...paramsOf({ name, cluster }, {}) }, signal);
      return answer;
    }, intervalMs)();
    const fetch = (): void => void (end ??= fetched.start!(live));

    return {
      filters: [],
      wants: isPart ? undefined : { statistics: intervalMs, window },
      start(given) {
        live = given;
        if (isPart) fetch();
        return () => end?.();
      },
      control(message) {
        if (message.type === "gateway-open") isFirst = true;
        if (message.type !== "gateway-statistics" || isPart) return;
        if (message.window !== seconds(window)) return fetch();
        end = end?.() as undefined; // the stream has them
        if (isFirst) items.clear();
        hasAll ||= isFirst;
        isFirst = false;
        if (!hasAll) return;
        const { type, id, names, done, ...rest } = message;
        for (const item of names) items.set(keyOf(item.cluster, item.name), item);
        if (!done) return; // more parts of this report follow
        value = { ...rest, names: [...items.values()].sort(order) };
        live.answered();
      },
      make: () => (end ? (fetched.make!() ?? value) : value),
    };
  };
}

/** Most ended tasks first, then by name, as in the gateway. */
function order(a: StatisticsItem, b: StatisticsItem): number {
  return ended(b) - ended(a) || (a.name! < b.name! ? -1 : 1);
}

function ended({ succeeded, failed, revoked }: StatisticsItem): number {
  return succeeded + failed + revoked;
}
