/**
 * Hooks: what a client watches, as values of a render. For React 18 and 19, under <StrictMode>, on a server.
 *
 * - A hook makes its watch while it renders and subscribes to it once it is on the page. A watch that nobody
 *   subscribes to does nothing, so a render that React throws away, or one on a server, starts nothing.
 * - Another uuid is another watch: what it shows is never that of the one before.
 * - On a server, and in the render that hydrates its page, there are no values yet: `null`, or no events.
 */
import {
  type Context,
  createContext,
  createElement,
  type ReactElement,
  type ReactNode,
  useCallback,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useSyncExternalStore,
} from "react";
import type {
  Client,
  Event,
  EventStream,
  Filter,
  Gap,
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

const Gateway: Context<Client | null> = createContext<Client | null>(null);

/** Gives a client to the hooks below it. The client stays its maker's: unmounting does not close it. */
export function GatewayProvider(props: { client: Client; children?: ReactNode }): ReactElement {
  return createElement(Gateway.Provider, { value: props.client }, props.children);
}

/** The client of the nearest provider. Throws an Error where there is none. */
export function useGateway(): Client {
  const client = useContext(Gateway);
  if (client === null) throw new Error("no <GatewayProvider> around this hook");
  return client;
}

/**
 * The current record of a task; `null` while it is not known, or without a uuid. With `cluster`, the task of that
 * broker; without it, the record that changed last.
 */
export function useTask(uuid: string | null | undefined, { cluster }: UseTasksOptions = {}): Task | null {
  const client = useGateway();
  return useValue(useMemo(() => (uuid == null ? null : client.task(uuid, { cluster })), [client, uuid, cluster]));
}

/**
 * The current value of a workflow; `null` while it is not known, or without a root_id.
 *
 * If the id is that of a task with another root, the value stays `null`, and the client emits an `error` event once:
 * a GatewayError with the code `not-a-root`. The watch stays open.
 */
export function useWorkflow(rootId: string | null | undefined, { cluster }: UseTasksOptions = {}): Workflow | null {
  const client = useGateway();
  return useValue(
    useMemo(() => (rootId == null ? null : client.workflow(rootId, { cluster })), [client, rootId, cluster]),
  );
}

export interface UseTasksOptions {
  /** The broker's name, if the gateway has several that may have the same ids. */
  cluster?: string | undefined;
}

/** All workers, whatever their status; `null` until the first snapshot. */
export function useWorkers(): readonly Worker[] | null {
  const client = useGateway();
  return useValue(useMemo(() => client.workers(), [client]));
}

/** The status of the client's connection. */
export function useStatus(): Status {
  const client = useGateway();
  const subscribe = useCallback((changed: () => void) => client.on("status", changed), [client]);
  return useSyncExternalStore(subscribe, () => client.status, idle);
}

export interface UseEventsOptions {
  /** How many events are kept; 100. With 0 no event makes it render. */
  limit?: number | undefined;
  /** Called with every event as it comes, also with those that no render shows. */
  onEvent?: ((event: Event) => void) | undefined;
  /** Called where events are, or may be, missing. */
  onGap?: ((gap: Gap) => void) | undefined;
}

/**
 * The latest events that match, the oldest first.
 *
 * @param filter compared by its content, so it may be written inline; `null`: no events; left out: all.
 *   Another filter begins anew. Throws as `client.events` does where it is wrong.
 */
export function useEvents(
  filter?: Filter | readonly Filter[] | null,
  options: UseEventsOptions = {},
): readonly Event[] {
  const client = useGateway();
  const latest = useRef(options);
  useEffect(() => {
    latest.current = options;
  });
  const content = JSON.stringify(filter);
  const log = useMemo(() => {
    if (filter === null) return null;
    return makeLog(client.events(filter, { onGap: (gap) => latest.current.onGap?.(gap) }), latest);
  }, [client, content]);
  const shown = useSyncExternalStore(log?.subscribe ?? never, log?.read ?? none, none);
  const { limit = LIMIT } = options;
  return useMemo(() => (shown.length > limit ? last(shown, limit) : shown), [shown, limit]);
}

/** The value of a watch as it is now. */
function useValue<T>(watch: Watch<T> | null): T | null {
  const subscribe = useCallback((changed: () => void) => watch?.subscribe(changed) ?? nothing, [watch]);
  return useSyncExternalStore<T | null>(subscribe, () => watch?.value ?? null, unknown);
}

/** The latest events of a stream, as a store for React. */
function makeLog(stream: EventStream, options: { readonly current: UseEventsOptions }) {
  let held: Event[] = [];
  let shown = NONE;
  return {
    read: (): readonly Event[] => shown,
    /** Begins with no events: what came before, say while it was hidden, need not adjoin what comes now. */
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
const unknown = (): null => null;
const idle = (): Status => "idle";
