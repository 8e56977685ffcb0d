"use client";
/**
 * Hooks: what a client watches, as values of a render. For React 18 and 19, in <StrictMode>, and on a server.
 *
 * - A hook makes its watch in the render and subscribes to it in an effect. A watch without a subscriber does nothing,
 *   so a render that React discards, or one on a server, starts nothing.
 * - Another uuid is another watch: it never shows the value of the one before.
 * - On a server, and in the render that hydrates its page, there are no values: `null`, or no events.
 */
// With the export condition `react-server`, react has no contexts and no effects. This module loads there, too.
import * as React from "react";
import type { Context, ReactElement, ReactNode } from "react";
import type {
  Client,
  Event,
  EventStream,
  Filter,
  Gap,
  Known,
  Status,
  Task,
  Watch,
  Worker,
  Workflow,
} from "./types.js";

/** `useEvents` renders at most 20 times a second, however many events there are. */
const PACE_MS = 50;
const LIMIT = 100;
const NONE: readonly Event[] = [];

const LOADING: Known<never> = { value: null, status: "loading", error: null };

const Gateway: Context<Client | null> = React.createContext?.<Client | null>(null);

/** Provides a client to the hooks below it. Unmounting does not close the client. */
export function GatewayProvider(props: { client: Client; children?: ReactNode }): ReactElement {
  return React.createElement(Gateway.Provider, { value: props.client }, props.children);
}

/** Return the client of the nearest provider. Throws an Error if there is none. */
export function useGateway(): Client {
  const client = React.useContext(Gateway);
  if (client === null) throw new Error("no <GatewayProvider> around this hook");
  return client;
}

/**
 * Return `value`, `status` and `error` of a watch. The watch may be made in the render: equal watches share their value.
 *
 * @example const { value: task, status } = useWatch(useGateway().task(uuid));
 * @param watch `null`: nothing is watched; the status is `loading`.
 */
export function useWatch<T>(watch: Watch<T> | null): Known<T> {
  const subscribe = React.useCallback((changed: () => void) => watch?.subscribe(changed) ?? nothing, [watch]);
  return React.useSyncExternalStore<Known<T>>(subscribe, () => watch?.known ?? LOADING, loading);
}

/** Return the value only: a render that shows no status is not needed when the status changes. */
function useValue<T>(watch: Watch<T> | null): T | null {
  const subscribe = React.useCallback((changed: () => void) => watch?.subscribe(changed) ?? nothing, [watch]);
  return React.useSyncExternalStore<T | null>(subscribe, () => watch?.value ?? null, unknown);
}

/**
 * Return the current record of a task; `null` while it is not known, or without a uuid. With `cluster`, the task of that
 * broker; without it, the record that changed last. `useWatch` also returns the status and the error.
 */
export function useTask(uuid: string | null | undefined, { cluster }: UseTasksOptions = {}): Task | null {
  const client = useGateway();
  return useValue(React.useMemo(() => (uuid == null ? null : client.task(uuid, { cluster })), [client, uuid, cluster]));
}

/**
 * Return the current value of a workflow; `null` while it is not known, or without a root_id.
 *
 * If the id is that of a task with another root, the value stays `null`, and the client emits an `error` event once:
 * a GatewayError with the code `not-a-root`. The watch stays open.
 */
export function useWorkflow(rootId: string | null | undefined, { cluster }: UseTasksOptions = {}): Workflow | null {
  const client = useGateway();
  return useValue(
    React.useMemo(() => (rootId == null ? null : client.workflow(rootId, { cluster })), [client, rootId, cluster]),
  );
}

export interface UseTasksOptions {
  /** The broker's name, if the gateway has several that may have the same ids. */
  cluster?: string | undefined;
}

/** Return all workers, whatever their status; `null` until the first snapshot. */
export function useWorkers(): readonly Worker[] | null {
  const client = useGateway();
  return useValue(React.useMemo(() => client.workers(), [client]));
}

/** Return the status of the client's connection. */
export function useStatus(): Status {
  const client = useGateway();
  const subscribe = React.useCallback((changed: () => void) => client.on("status", changed), [client]);
  return React.useSyncExternalStore(subscribe, () => client.status, idle);
}

export interface UseEventsOptions {
  /** How many events are kept; 100. With 0 no event makes it render. */
  limit?: number | undefined;
  /** Called with every event at once, also with those that no render shows. */
  onEvent?: ((event: Event) => void) | undefined;
  /** Called when events were lost, or may have been lost. */
  onGap?: ((gap: Gap) => void) | undefined;
}

/**
 * Return the latest events that match, the oldest first.
 *
 * @param filter compared by its content, so it may be written inline; `null`: no events; left out: all. Another filter
 *   begins without events. An invalid one throws like `client.events`.
 */
export function useEvents(
  filter?: Filter | readonly Filter[] | null,
  options: UseEventsOptions = {},
): readonly Event[] {
  const client = useGateway();
  const latest = React.useRef(options);
  React.useEffect(() => {
    latest.current = options;
  });
  const content = JSON.stringify(filter);
  const log = React.useMemo(() => {
    if (filter === null) return null;
    return makeLog(client.events(filter, { onGap: (gap) => latest.current.onGap?.(gap) }), latest);
  }, [client, content]);
  const shown = React.useSyncExternalStore(log?.subscribe ?? never, log?.read ?? none, none);
  const { limit = LIMIT } = options;
  return React.useMemo(() => (shown.length > limit ? last(shown, limit) : shown), [shown, limit]);
}

/** The latest events of a stream, as a store for React. */
function makeLog(stream: EventStream, options: { readonly current: UseEventsOptions }) {
  let held: Event[] = [];
  let shown = NONE;
  return {
    read: (): readonly Event[] => shown,
    /** Begins without events: between earlier ones, such as before it was hidden, and new ones others may be missing. */
    subscribe(changed: () => void): () => void {
      held = [];
      shown = NONE;
      let timer: ReturnType<typeof setTimeout> | undefined;
      const show = (): void => {
        timer = undefined;
        shown = last(held, options.current.limit ?? LIMIT);
        changed();
      };
      const unsubscribe = stream.subscribe((event) => {
        const { limit = LIMIT, onEvent } = options.current;
        if (limit > 0) {
          if (held.push(event) > 2 * limit) held = last(held, limit);
          timer ??= setTimeout(show, PACE_MS);
        }
        onEvent?.(event);
      });
      return () => {
        clearTimeout(timer);
        unsubscribe();
      };
    },
  };
}

function last(events: readonly Event[], count: number): Event[] {
  return events.slice(Math.max(0, events.length - count));
}

const nothing = (): void => {};
const never = () => nothing;
const none = (): readonly Event[] => NONE;
const loading = (): Known<never> => LOADING;
const unknown = (): null => null;
const idle = (): Status => "idle";
