/** One event with all its fields. */
import type { Event } from "../../../js/src/index.ts";
import { useFetched } from "../gateway.ts";
import type { Entry } from "../tail.ts";
import { asText } from "../text.ts";
import { CopyButton, Panel, Skeleton } from "./layout.tsx";
import { TaskLink, WorkerLink, WorkflowLink } from "./link.tsx";
import { LongText, Text } from "./text.tsx";
import { StateBadge, Time } from "./values.tsx";

const FILTERED = ["type", "name", "state", "uuid", "root_id", "hostname", "queue", "cluster"] as const;
/** Fields that come last: they say little. */
const TECHNICAL = ["timestamp", "utcoffset", "clock", "pid", "local_received", "id"];
const LONG = 200;

export interface EventPanelProps {
  readonly entry: Entry;
  readonly onClose: () => void;
  readonly onFilter: (field: string, value: string, isWithout: boolean) => void;
}

export function EventPanel({ entry, onClose, onFilter }: EventPanelProps) {
  const { value, error, isLoading } = useFetched<Event>(`/events/${encodeURIComponent(entry.id)}`);
  const { uuid, root_id: rootId, hostname, name, type, state } = entry;
  const cluster = entry.cluster || undefined;
  return (
    <Panel label={`Event ${type}`} onClose={onClose}>
      <div class="stack">
        <h2><Text value={type} max={80} /></h2>
        <p class="inline">{state && <StateBadge state={state} />}<Time value={entry.time} as="both" /></p>
        <dl class="fields">
          {name && <><dt>task</dt><dd><Text value={name} /></dd></>}
          {uuid && <><dt>uuid</dt><dd><TaskLink uuid={uuid} cluster={cluster}><Text value={uuid} /></TaskLink> <CopyButton text={uuid} /></dd></>}
          {rootId && <><dt>workflow</dt><dd><WorkflowLink rootId={rootId} cluster={cluster}><Text value={rootId} /></WorkflowLink></dd></>}
          {hostname && <><dt>worker</dt><dd><WorkerLink hostname={hostname} cluster={cluster} /></dd></>}
        </dl>
        <Filters entry={entry} onFilter={onFilter} />
        {isLoading && <Skeleton rows={4} />}
        {error && <p class="muted">The other fields cannot be shown: <Text value={error.message} max={500} /></p>}
        {value && <Fields event={value} />}
      </div>
    </Panel>
  );
}

function Filters({ entry, onFilter }: Pick<EventPanelProps, "entry" | "onFilter">) {
  return (
    <details>
      <summary>Only these, or without these</summary>
      <ul class="stack filters">
        {FILTERED.filter((field) => entry[field]).map((field) => (
          <li key={field} class="inline">
            <span class="muted">{field}</span> <Text value={entry[field]} max={60} />
            <button type="button" class="push" aria-label={`Only this ${field}`} onClick={() => onFilter(field, entry[field], false)}>Only</button>
            <button type="button" aria-label={`Without this ${field}`} onClick={() => onFilter(field, entry[field], true)}>Without</button>
          </li>
        ))}
      </ul>
    </details>
  );
}

function Fields({ event }: { readonly event: Event }) {
  const shown = new Set(["type", "name", "state", "uuid", "root_id", "hostname", "time"]);
  const all = Object.entries(event).filter(([field, value]) => !shown.has(field) && value !== null && value !== undefined);
  const rank = ([field, value]: readonly [string, unknown]): number => (TECHNICAL.includes(field) ? 2 : asText(value).length > LONG || field === "traceback" ? 1 : 0);
  all.sort((a, b) => rank(a) - rank(b));
  const short = all.filter((field) => rank(field) !== 1);
  return (
    <>
      <dl class="fields">
        {short.map(([field, value]) => <><dt key={field}><Text value={field} max={60} /></dt><dd><Text value={value} max={LONG} /></dd></>)}
      </dl>
      {all.filter((field) => rank(field) === 1).map(([field, value]) => (
        <section key={field}>
          <h3><Text value={field} max={60} /></h3>
          <LongText value={value} />
        </section>
      ))}
    </>
  );
}
