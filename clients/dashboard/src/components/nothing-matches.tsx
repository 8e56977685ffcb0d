/** What is shown in place of an empty list of tasks: why it is empty. */
import type { Counts } from "../../../js/src/types.ts";
import { health, useFetched, useWatch } from "../gateway.ts";
import { goQuery } from "../navigation.ts";
import { literal, type Query, withValue } from "../route.ts";
import { use } from "../store.ts";
import { partsOf, suggestion } from "../task-query.ts";
import { count, plural, visible } from "../text.ts";
import { mute, muteAdvice } from "../workers.ts";
import { Empty, StartWorker } from "./layout.tsx";
import { Text } from "./text.tsx";

const SUGGESTED = ["state", "name", "queue", "hostname"] as const;

/** No task matches the filter, or the gateway has refused it: which value may be meant, and the parts to take away. */
export function NothingMatches({ query, isRefused }: { readonly query: Query; readonly isRefused: boolean }) {
  const { value } = useFetched<Counts>("/tasks/counts", { by: SUGGESTED.join(",") }, 5);
  const parts = partsOf(query);
  if (!value && !isRefused) return <Empty title="No task matches the filter" />;
  const { total = 0, counts = {} } = value ?? {};
  if (!total && !isRefused) return <NoTasks />;
  const isAboutFailures = parts.length === 1 && parts[0]!.label === "state:FAILURE";
  if (isAboutFailures && !counts.state?.["FAILURE"]) return <Empty title={`No task has failed: none of ${plural(total, "known task")}`} />;
  const found = SUGGESTED.flatMap((field) => {
    const known = counts[field] ?? {};
    return parts
      .filter((part) => part.name === field && !Object.hasOwn(known, part.value) && !part.value.startsWith("!"))
      .flatMap((part) => {
        const meant = suggestion(part.value, known);
        return meant === null || literal(meant) === part.value ? [] : [{ field, meant, number: known[meant]! }];
      });
  });
  return (
    <Empty title={isRefused ? "The gateway does not accept this filter." : <>None of {count(total)} tasks matches <b><Text value={parts.map(({ label }) => label).join(" ")} max={200} /></b>.</>}>
      {found.map(({ field, meant, number }) => (
        <p key={field}>
          Did you mean{" "}
          <button type="button" class="plain link" onClick={() => goQuery(withValue(query, field, literal(meant)), { replace: false })}>
            <Text value={meant} max={120} /> ({count(number)})
          </button>
          ?
        </p>
      ))}
      {parts.map(({ label, rest }, at) => (
        <button key={at} type="button" onClick={() => goQuery(rest, { replace: false })}>Without {visible(label.slice(0, 60))}</button>
      ))}
    </Empty>
  );
}

/** The gateway has no task at all: whether workers are there, and which of them send no task events. */
export function NoTasks() {
  const { value: workers, status } = useWatch((client) => client.workers(), "workers");
  const isControlled = use(health)?.control ?? false;
  const silent = mute(workers ?? []);
  const processed = silent.reduce((sum, worker) => sum + (worker.processed ?? 0), 0);
  if (silent.length) {
    return (
      <Empty title={<><Text value={silent[0]!.hostname} max={80} />{silent.length > 1 && ` and ${count(silent.length - 1)} more`} {silent.length > 1 ? "have" : "has"} processed {plural(processed, "task")} and {silent.length > 1 ? "send" : "sends"} no task events.</>}>
        <p>{muteAdvice(silent.length, isControlled)}</p>
      </Empty>
    );
  }
  const isAlone = status !== "error" && workers !== null && !workers.length;
  return (
    <Empty title={isAlone ? "No worker has been heard." : "The gateway has not seen any task."}>
      <StartWorker />
    </Empty>
  );
}
