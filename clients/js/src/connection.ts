/** What a stream comes through; `sse` and `websocket` open such. */
import type { Patterns } from "./filter.js";
import type { Gap, Source, Task, Worker } from "./types.js";

/** The body of `POST /events`, and what goes with `{"op": "open"}`. */
export interface StreamRequest {
  /** Which events are wanted: what matches any of these; left out: all. */
  any?: readonly Patterns[] | undefined;
  /** Go on right after it. */
  last_event_id?: string | undefined;
  since?: string | undefined;
  /**
   * Of which tasks it is to be told, in `gateway-snapshot` pages, how they are. The last page is there even if
   * this is empty, and marks where what is new in this request begins.
   */
  snapshot?: readonly Patterns[] | undefined;
}

/** A page of how everything is: tasks that were asked for, and in the last ones all workers. */
export interface Page {
  readonly type: "gateway-snapshot";
  readonly id: string;
  readonly tasks: readonly Task[];
  readonly workers: readonly Worker[];
  readonly done: boolean;
}

/** What the gateway says of the stream itself; all that is of another type is an Event. */
export type Control =
  | Page
  | Gap
  | { readonly type: "gateway-open"; readonly id: string; readonly resume: "live" | "resumed" | "reset" }
  | { readonly type: "gateway-bookmark"; readonly id: string }
  | { readonly type: "gateway-status"; readonly id: string; readonly sources: readonly Source[] }
  | { readonly type: "gateway-close"; readonly id: string; readonly reason: string; readonly retry_ms?: number }
  | {
      readonly type: "gateway-error";
      readonly id: string;
      readonly code: string;
      readonly message: string;
      readonly parameter?: string;
    };

/** Whom a connection tells. It is never told anything before `Connect` has returned. */
export interface Receiver {
  /** Something came, of whatever kind: the connection lives. */
  heard(): void;
  message(message: Control): void;
  /**
   * It has ended, or never began.
   *
   * @param error if the gateway has answered, and not with a stream; without it the network is to blame.
   * @param retryMs when to come back, if the answer says so.
   */
  end(error?: Error, retryMs?: number): void;
}

/** Begins another stream in place of the one that a connection carries. Nothing of that one comes any more. */
export type Reopen = (request: StreamRequest) => void;

/** Opens a connection, which the signal ends. Returns how to use it for another stream, if that can be. */
export type Connect = (
  request: StreamRequest,
  token: string | undefined,
  signal: AbortSignal,
  receiver: Receiver,
) => Reopen | undefined;
