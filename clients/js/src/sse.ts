/** Streams as Server-Sent Events: a POST, answered without end. */
import { createParser } from "eventsource-parser";
import type { Connect, Message, Receiver } from "./connection.js";
import type { Environment } from "./environment.js";
import { GatewayError } from "./errors.js";
import type { StreamRequest } from "./request.js";

export function sse(url: URL, { fetch }: Environment): Connect {
  return (request, token, receiver) => {
    const abort = new AbortController();
    carry(fetch, url, request, token, receiver, abort.signal).catch(() => receiver.end());
    return { close: () => abort.abort() };
  };
}

/** Carry one stream until it ends. Rejects where the network fails. */
async function carry(
  fetch: Environment["fetch"],
  url: URL,
  request: StreamRequest,
  token: string | undefined,
  receiver: Receiver,
  signal: AbortSignal,
): Promise<void> {
  const headers: { [name: string]: string } = { Accept: "text/event-stream", "Content-Type": "application/json" };
  if (token) headers["Authorization"] = `Bearer ${token}`;
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(request), signal });
  const isStream = response.headers.get("Content-Type")?.startsWith("text/event-stream");
  if (!response.ok || !isStream || !response.body) {
    receiver.end(await refusal(response), retryAfterMs(response.headers.get("Retry-After")));
    return;
  }
  const reader = response.body.getReader();
  const feed = events((data) => receiver.message(JSON.parse(data) as Message));
  for (let piece; !(piece = await reader.read()).done; ) {
    receiver.heard();
    feed(piece.value);
  }
  receiver.end();
}

/**
 * Return what takes the bytes of an event stream, cut in any way.
 *
 * @param onEvent is called with the data, the type and the id of each event.
 */
export function events(
  onEvent: (data: string, type: string | undefined, id: string | undefined) => void,
): (bytes: Uint8Array) => void {
  const decoder = new TextDecoder();
  const parser = createParser({ onEvent: ({ data, event, id }) => onEvent(data, event, id) });
  return (bytes) => parser.feed(decoder.decode(bytes, { stream: true }));
}

async function refusal(response: Response): Promise<GatewayError> {
  const { status } = response;
  const body = (await response.json().catch(() => null)) as { error?: Partial<GatewayError> } | null;
  const { code = response.ok ? "no-stream" : "refused", message, parameter } = body?.error ?? {};
  return new GatewayError(code, message ?? `${response.url} answered ${status}, and no stream`, status, parameter);
}

/** RFC 9110 section 10.2.3: seconds, or a date. */
function retryAfterMs(text: string | null): number | undefined {
  if (text === null) return undefined;
  const delayMs = /^\d+$/.test(text) ? +text * 1_000 : Date.parse(text) - Date.now();
  return delayMs >= 0 ? delayMs : undefined;
}
