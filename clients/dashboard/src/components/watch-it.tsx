/** Lines to paste that watch what is shown: for a shell, JavaScript, React and Python. */
import { useState } from "preact/hooks";
import { access } from "../gateway.ts";
import { base } from "../navigation.ts";
import type { Query } from "../route.ts";
import { use } from "../store.ts";
import { visible } from "../text.ts";
import { type Target, watchIt } from "../watchit.ts";
import { CopyButton } from "./layout.tsx";

export interface WatchItProps {
  readonly kind: "task" | "workflow" | "filter";
  readonly uuid?: string | undefined;
  readonly rootId?: string | undefined;
  /** The parameters of a view with a filter. */
  readonly query?: Query | undefined;
  readonly cluster?: string | undefined;
}

export function WatchIt({ kind, uuid = "", rootId = "", query = [], cluster }: WatchItProps) {
  const [id, setId] = useState<string>("curl");
  const target: Target = kind === "filter" ? { kind, query } : { kind, id: kind === "task" ? uuid : rootId, cluster };
  const needsToken = use(access) !== "open";
  const { lines, dropped } = watchIt(target, base.href, needsToken);
  const current = lines.find((one) => one.id === id) ?? lines[0]!;
  return (
    <section class="stack watch-it" aria-label="Watch it">
      <div class="inline">
        <div class="inline" role="group" aria-label="Language">
          {lines.map((one) => (
            <button key={one.id} type="button" aria-pressed={one === current} onClick={() => setId(one.id)}>{one.label}</button>
          ))}
        </div>
        <span class="push"><CopyButton text={current.text} /></span>
      </div>
      <pre class="long-text" tabIndex={0} data-lines={current.id}><bdi>{visible(current.text)}</bdi></pre>
      {needsToken && <p class="muted">Set the environment variable <code>TOKEN</code> to your token.</p>}
      {dropped.length > 0 && (
        <p class="note">
          A stream cannot filter by {dropped.map((name) => visible(name)).join(", ")}: these lines watch more tasks than the view shows.
        </p>
      )}
    </section>
  );
}
