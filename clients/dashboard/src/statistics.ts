/** The statistics of the gateway, as of now: they are sent only when they change. */
import type { Known, Statistics, StatisticsOptions } from "../../js/src/index.ts";
import { now, useWatch } from "./gateway.ts";
import { asOf } from "./overview.ts";
import { useComputed } from "./store.ts";

/** The shortest buckets, in seconds. */
const STEP = 10;

/** Watch statistics; null: none. The numbers of buckets are drawn again as time passes. */
export function useStatistics(options: StatisticsOptions | null): Known<Statistics> & { readonly sent: Statistics | null } {
  const { value: sent, ...known } = useWatch((client) => options && client.statistics(options), `statistics ${JSON.stringify(options)}`);
  const at = useComputed(() => Math.floor(now.value / STEP) * STEP, now);
  return { ...known, sent, value: sent && asOf(sent, at) };
}
