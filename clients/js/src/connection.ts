/** The connection of a stream, which `sse` and `websocket` open. */
import type { Patterns } from "./filter.js";
import type { Action, ActionName, Gap, Skipped, Source, Statistics, Task, Worker } from "./types.js";

/** The body of `POST /events`, and the fields of `{"op": "open"}`. */
export interface StreamRequest {
  /** The events must match any of these; left out: all events. */
  any?: readonly Patterns[] | undefined;
  /** Resume right after this event. */
  last_event_id?: string | undefined;
  since?: string | undefined;
  /** Events have the records of their tasks as the field `record`. */
  view?: "record" | undefined;
  /** Send `gateway-worker`. */
  workers?: 1 | undefined;
  /** Send `gateway-statistics` at this interval, an age; of the last `window`, another age. */
  statistics?: string | undefined;
  window?: string | undefined;
  /** The most events a second. */
  max_rate?: number | undefined;
  /**
   * The tasks whose state the gateway sends in `gateway-snapshot` pages. It sends the last page even if this is empty: it
   * marks the position where the new part of a request begins.
   */
  snapshot?: readonly Patterns[] | undefined;
}

/** The record of an event's task, as the gateway sends it with the event. */
export type TaskRecord = Omit<Task, "children">;

/** A page of the state: the tasks of the request, and in the last pages all workers. */
export interface Page {
  readonly type: "gateway-snapshot";
  readonly id: string;
  readonly tasks: readonly Task[];
  readonly workers: readonly Worker[];
  readonly done: boolean;
}

/** The gateway's own messages; a message of any other type is an Event. */
export type Control =
  | Page
  | Gap
  | { readonly type: "gateway-open"; readonly id: string; readonly resume: "live" | "resumed" | "reset" }
  | { readonly type: "gateway-bookmark"; readonly id: string }
  | Action
  | Skipped
  | (Statistics & { readonly type: "gateway-statistics"; readonly done: boolean; readonly id: string })
  | { readonly type: "gateway-worker"; readonly id: string; readonly worker: Worker }
  | {
      readonly type: "gateway-status";
      readonly id: string;
      readonly sources: readonly Source[];
      readonly version?: string;
      readonly started?: number;
      readonly control?: boolean;
      readonly actions?: readonly ActionName[];
    }
  | { readonly type: "gateway-close"; readonly id: string; readonly reason: string; readonly retry_ms?: number }
  | {
      readonly type: "gateway-error";
      readonly id: string;
      readonly code: string;
      readonly message: string;
      readonly parameter?: string;
    };

/** What a connection calls; never before `Connect` has returned. */
export interface Receiver {
  /** Something has arrived, of any kind. */
  alive(): void;
  message(message: Control): void;
  /**
   * It has ended, or could not begin.
   *
   * @param error if there was an answer that is not a stream; undefined for a network error.
   * @param retryMs when to reconnect, if the answer says so.
   * @param isExpired true if the gateway has ended it because the token has expired or was revoked.
   */
  end(error?: Error, retryMs?: number, isExpired?: boolean): void;
}

/** Replaces the stream of a connection by another one. No more messages of the old one arrive. */
export type Reopen = (request: StreamRequest) => void;

/** Opens a connection; the signal ends it. Returns a function that reuses it for another stream, if that is possible. */
export type Connect = (
  request: StreamRequest,
  token: string | undefined,
  signal: AbortSignal,
  receiver: Receiver,
) => Reopen | undefined;
