/** What is shown in place of a task or a workflow that the gateway does not have. The page goes on watching. */
import type { ComponentChildren } from "preact";
import type { GatewayError, Task } from "../../../js/src/index.ts";
import { useFetched } from "../gateway.ts";
import { Empty, ErrorBox, Skeleton } from "./layout.tsx";
import { Link, WorkflowLink } from "./link.tsx";
import { Text } from "./text.tsx";

export interface UnknownProps {
  readonly what: "task" | "workflow";
  readonly id: string;
  readonly cluster: string | undefined;
}

/** Asks the gateway why: it was evicted, it was never seen, or several brokers have it. */
export function Unknown({ what, id, cluster }: UnknownProps) {
  const { error } = useFetched(`/${what}s/${encodeURIComponent(id)}`, { cluster, fields: "state" }, 10);
  const { code, message, allowed } = (error ?? {}) as Partial<GatewayError>;
  const isOfOther = what === "workflow" && code === "workflow-unknown";
  const { value: task } = useFetched<Task>(isOfOther ? `/tasks/${encodeURIComponent(id)}` : null, { cluster, fields: "root_id" });
  if (!error) return <Skeleton rows={4} />;
  const waiting = <p class="muted">This page goes on watching, and shows the {what} as soon as an event of it arrives.</p>;
  const titles: Readonly<Record<string, ComponentChildren>> = {
    [`${what}-unknown`]: `No event of this ${what} has arrived`,
    [`${what}-evicted`]: `The gateway no longer has this ${what}: it was evicted`,
  };
  if (code === "ambiguous") {
    return (
      <Empty title={`Several brokers have this ${what}`}>
        <ul>{(allowed ?? []).map((name) => <li key={name}><Link to={{ view: what, id, query: [["cluster", name]] }}><Text value={name} /></Link></li>)}</ul>
      </Empty>
    );
  }
  const title = task ? "This is not the root of a workflow" : titles[code ?? ""];
  if (title === undefined) return <ErrorBox error={error} />;
  return (
    <Empty title={title}>
      <p class="server-says" data-code={code}><Text value={message} max={500} /></p>
      {task?.root_id != null && <p>It is a task of the workflow <WorkflowLink rootId={task.root_id} cluster={cluster} />.</p>}
      <p class="mono"><Text value={id} max={300} /></p>
      {waiting}
    </Empty>
  );
}
