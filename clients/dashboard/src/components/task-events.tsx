/** The events of one task, as far as the gateway's history has them, and live. */
import { useEffect, useState } from "preact/hooks";
import type { Event, EventStream } from "../../../js/src/types.ts";
import { tailClient } from "../gateway.ts";
import { literal } from "../route.ts";
import { stateOfType, lookOf } from "../states.ts";
import { use } from "../store.ts";
import { exceptionText, plural } from "../text.ts";
import { paced } from "../throttled.ts";
import { Empty } from "./layout.tsx";
import { LongText, Text } from "./text.tsx";
import { Time } from "./values.tsx";

/** The newest events that are kept. A task that reports progress has many. */
const MAX_EVENTS = 500;

interface Heard {
  readonly events: readonly Event[];
  readonly dropped: number;
}

/**
 * Return the events of a task. Each stream that begins in the past has a connection of its own: it is the one of the tail,
 * and there is none while nobody can see the page.
 */
export function useTaskEvents(uuid: string, cluster: string | undefined, type?: string): Heard {
  const [heard, setHeard] = useState<Heard>({ events: [], dropped: 0 });
  const current = use(tailClient);
  useEffect(() => {
    let events: Event[] = [];
    let total = 0;
    let stream: EventStream | undefined;
    const draw = paced(() => setHeard({ events: events.slice(-MAX_EVENTS), dropped: Math.max(0, total - MAX_EVENTS) }), () => 50);
    const hear = (event: Event): void => {
      total++;
      events.push(event);
      if (events.length > 2 * MAX_EVENTS) events = events.slice(-MAX_EVENTS);
      draw();
    };
    const look = (): void => {
      stream?.close();
      if (document.hidden) return;
      stream = current.events(
        { uuid: literal(uuid), type, cluster: cluster && literal(cluster) },
        { since: "earliest", lastEventId: events.at(-1)?.id },
      );
      stream.subscribe(hear);
    };
    look();
    document.addEventListener("visibilitychange", look);
    return () => {
      draw.cancel();
      document.removeEventListener("visibilitychange", look);
      stream?.close();
    };
  }, [uuid, cluster, type, current]);
  return heard;
}

export function TaskEvents({ uuid, cluster }: { readonly uuid: string; readonly cluster: string | undefined }) {
  const { events, dropped } = useTaskEvents(uuid, cluster);
  if (!events.length) return <Empty title="The gateway's history has no event of this task">Its record above stays, and new events appear here.</Empty>;
  return (
    <>
      {dropped > 0 && <p class="muted">{plural(dropped, "older event")} not shown.</p>}
      <ol class="task-events">{events.map((event) => <EventItem key={event.id} event={event} />)}</ol>
    </>
  );
}

/** Return the outcome in an event, in short. */
function summaryOf(event: Event): string {
  const { result, reason, progress, requeue, signum } = event as Record<string, unknown>;
  const found = (exceptionText(event) || null) ?? reason ?? result ?? (progress === undefined ? undefined : `progress ${String(progress)}`);
  if (found !== undefined && found !== null) return typeof found === "string" ? found : JSON.stringify(found);
  return requeue ? "requeue" : signum ? `signal ${String(signum)}` : "";
}

function EventItem({ event }: { readonly event: Event }) {
  const [isOpen, open] = useState(false);
  const time = event.time ? Date.parse(event.time) / 1_000 : (event.timestamp ?? null);
  const { kind, shape } = lookOf(stateOfType(event.type) || String(event.state ?? ""));
  return (
    <li>
      <details open={isOpen} onToggle={(toggle) => open(toggle.currentTarget.open)}>
        <summary>
          <Time value={time} as="clock" />{" "}
          <span class={`state state-${kind}`}><span class="shape" aria-hidden="true">{shape}</span> <Text value={event.type} max={60} /></span>
          {event.attempt !== undefined && event.attempt > 1 && <span class="muted"> try {event.attempt}</span>}
          {event.hostname !== undefined && <span class="muted"> <Text value={event.hostname} max={60} /></span>}{" "}
          <Text value={summaryOf(event)} max={120} />
        </summary>
        {isOpen && <LongText value={JSON.stringify(event, null, 2)} />}
      </details>
    </li>
  );
}
