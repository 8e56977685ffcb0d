/** What a task was called with, and what came of it. Also in the panel of a workflow. */
import type { Task } from "../../../js/src/types.ts";
import { exceptionText } from "../text.ts";
import { Repr } from "./repr-tree.tsx";
import { useTaskEvents } from "./task-events.tsx";
import { LongText, Text } from "./text.tsx";
import { Traceback } from "./traceback.tsx";
import { Time } from "./values.tsx";

/** The exception and the traceback of a task that has failed or is tried again. */
export function Failure({ task }: { readonly task: Task }) {
  const { traceback } = task;
  const exception = exceptionText(task);
  if (!exception && traceback === null) return null;
  return (
    <section class="card stack failure" aria-label="Exception">
      {exception && (exception.length > 300 || exception.includes("\n") ? <LongText value={exception} maxLines={20} maxChars={2_000} /> : <p class="exception mono"><Text value={exception} max={300} /></p>)}
      {traceback !== null && <Traceback text={traceback} />}
    </section>
  );
}

/** Why a task is lost: the gateway's sentence, as long as its history has it. */
export function Lost({ task }: { readonly task: Task }) {
  return task.lost === null ? null : <Reason task={task} />;
}

function Reason({ task }: { readonly task: Task }) {
  const { uuid, cluster, worker, pid, lost } = task;
  const reason = useTaskEvents(uuid, cluster, "task-lost").events.at(-1)?.["reason"];
  return (
    <div class="note" role="note">
      <p><b>Lost</b> <Time value={lost} as="both" />: {typeof reason !== "string" ? <>the process of <Text value={worker ?? "its worker"} max={80} />{pid !== null && ` (pid ${pid})`} is gone.</> : <Text value={reason} max={500} />}</p>
      <p class="muted">If the broker delivers the task again, its next attempt appears here.</p>
    </div>
  );
}

/** Arguments, result and custom fields. */
export function Values({ task }: { readonly task: Task }) {
  const { args, kwargs, result, custom, custom_at, state } = task;
  return (
    <section class="card" aria-label="Arguments and result">
      <dl class="fields values">
        <dt>args</dt>
        <dd><Repr text={args} /></dd>
        <dt>kwargs</dt>
        <dd><Repr text={kwargs} /></dd>
        {(result !== null || state === "SUCCESS") && <><dt>result</dt><dd><Repr text={result} /></dd></>}
        {custom !== null && Object.entries(custom).slice(0, 100).map(([field, value]) => (
          <Custom key={field} field={field} value={value} />
        ))}
        {custom_at !== null && <><dt class="muted">as of</dt><dd><Time value={custom_at} as="both" /></dd></>}
      </dl>
    </section>
  );
}

function Custom({ field, value }: { readonly field: string; readonly value: unknown }) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 1);
  return (
    <>
      <dt title="set by the task"><Text value={field} max={60} /></dt>
      <dd>{text.length > 200 || text.includes("\n") ? <LongText value={text} maxLines={20} maxChars={2_000} /> : <Text value={text} />}</dd>
    </>
  );
}
