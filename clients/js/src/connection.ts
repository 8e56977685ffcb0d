/** What a stream comes through; `sse` and `websocket` are such. */
import type { GatewayError } from "./errors.js";
import type { StreamRequest } from "./request.js";
import type { Event, Gap, Task, Worker } from "./types.js";

/** What the gateway says of the stream itself. */
export type Control =
  | { readonly type: "gateway-open"; readonly id: string; readonly resume: "live" | "resumed" | "reset" }
  | {
      readonly type: "gateway-snapshot";
      readonly id: string;
      readonly tasks: readonly Task[];
      readonly workers: readonly Worker[];
      readonly done: boolean;
    }
  | { readonly type: "gateway-bookmark"; readonly id: string }
  | { readonly type: "gateway-close"; readonly id: string; readonly reason: string; readonly retry_ms?: number }
  | { readonly type: "gateway-error"; readonly code: string; readonly message: string; readonly parameter?: string }
  | Gap;

export type Message = Control | Event;

/** Whom a connection tells. It is never told anything before `Connect` has returned. */
export interface Receiver {
  /** Something came, of whatever kind: the connection lives. */
  heard(): void;
  message(message: Message): void;
  /**
   * It has ended, or never began.
   *
   * @param error if the gateway has answered, and not with a stream; without it the network is to blame.
   * @param retryMs when to come back, if the answer says so.
   */
  end(error?: GatewayError, retryMs?: number): void;
}

export interface Connection {
  /** Begin another stream in place of this one. Nothing of the old one comes any more. */
  reopen?(request: StreamRequest): void;
  close(): void;
}

export type Connect = (request: StreamRequest, token: string | undefined, receiver: Receiver) => Connection;
