/** Revoke or terminate a task, or the tasks of a workflow. Nothing is shown unless the gateway allows it. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { Action, Task, Workflow, WorkflowTask } from "../../../js/src/index.ts";
import { actions, client } from "../gateway.ts";
import { useKeys } from "../keys.ts";
import { describe, flattened, outcome, question, type Revocable, unready } from "../revocation.ts";
import { use } from "../store.ts";
import { ErrorBox } from "./layout.tsx";
import { Time } from "./values.tsx";

export interface ActionsProps {
  readonly task?: Task | WorkflowTask | undefined;
  readonly workflow?: Workflow | undefined;
}

export function Actions({ task, workflow }: ActionsProps) {
  const [asked, ask] = useState<"revoke" | "terminate" | null>(null);
  const [uuids, setUuids] = useState<readonly string[] | null>(null);
  const id = workflow?.root_id ?? task?.uuid ?? "";
  const cluster = task?.cluster ?? workflow?.tasks[0]?.cluster;
  const last = useLastAction(workflow ? "root_id" : "uuid", id);
  const allowed = use(actions);
  const all: readonly Revocable[] = workflow ? flattened(workflow.tasks) : task ? [task] : [];
  const left = unready(all);
  const send = async (terminate: boolean): Promise<void> => {
    const options = { terminate, cluster };
    const done = workflow ? await client.value.revokeWorkflow(id, options) : await client.value.revoke(id, options);
    setUuids((before) => [...new Set([...(before ?? []), ...done.revoked])]);
    ask(null);
  };
  if (!allowed.length && !last) return null;
  return (
    <div class="actions">
      {left.length > 0 && allowed.includes("revoke") && (
        <button type="button" onClick={() => ask("revoke")}>Revoke{workflow ? " all" : ""}…</button>
      )}
      {left.length > 0 && allowed.includes("terminate") && (
        <button type="button" onClick={() => ask("terminate")}>Terminate{workflow ? " all" : ""}…</button>
      )}
      <span role="status">
        {uuids && <span class="revocation">{describe(outcome(uuids, all))}</span>}{" "}
        {last && (
          <span class="muted">
            {last.terminate ? "Terminated" : "Revoked"} <Time value={last.time} />
          </span>
        )}
      </span>
      {asked && <Confirmation tasks={left} terminate={asked === "terminate"} isWorkflow={!!workflow} onConfirm={send} onClose={() => ask(null)} />}
    </div>
  );
}

/** Return the last action on this task or workflow, of anyone, that the stream has reported. */
function useLastAction(field: "uuid" | "root_id", id: string): Action | null {
  const [last, setLast] = useState<Action | null>(null);
  const current = use(client);
  useEffect(() => current.on("control", (action) => action[field] === id && setLast(action)), [current, field, id]);
  return last;
}

interface ConfirmationProps {
  readonly tasks: readonly Revocable[];
  readonly terminate: boolean;
  readonly isWorkflow: boolean;
  readonly onConfirm: (terminate: boolean) => Promise<void>;
  readonly onClose: () => void;
}

function Confirmation({ tasks, terminate, isWorkflow, onConfirm, onClose }: ConfirmationProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [error, setError] = useState<Error | null>(null);
  const [isSending, setSending] = useState(false);
  useEffect(() => dialog.current?.showModal(), []);
  useKeys({ escape: onClose });
  const { title, button, text } = question(tasks, terminate, isWorkflow);
  const confirm = async (): Promise<void> => {
    setSending(true);
    setError(null);
    try {
      await onConfirm(terminate);
    } catch (failure) {
      setError(failure as Error);
      setSending(false);
    }
  };
  return (
    <dialog class="sheet" ref={dialog} aria-labelledby="action-title" onClose={onClose}>
      <div class="sheet-body">
        <h2 id="action-title">{title}</h2>
        <p>{text}</p>
        {error && <ErrorBox error={error} />}
        <div class="inline">
          <button type="button" autoFocus onClick={onClose}>Cancel</button>
          <button type="button" class="danger" disabled={isSending || !tasks.length} onClick={() => void confirm()}>{button}</button>
        </div>
      </div>
    </dialog>
  );
}
