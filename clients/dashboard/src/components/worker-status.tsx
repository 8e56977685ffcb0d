/** The status of a worker by colour, shape and word, with the time of its silence. */
import type { Worker } from "../../../js/src/index.ts";
import { lookOfStatus } from "../workers.ts";
import { Text } from "./text.tsx";
import { Since } from "./values.tsx";

export function WorkerStatus({ worker }: { readonly worker: Worker }) {
  const { status, since } = worker;
  const { kind, shape, title } = lookOfStatus(status);
  return (
    <span class={`state state-${kind}`} title={title} data-status={status}>
      <span aria-hidden="true" class="shape">{shape}</span>
      <Text value={status} max={24} />
      {status !== "online" && since !== null && <> for <Since value={since} /></>}
    </span>
  );
}
