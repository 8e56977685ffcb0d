/** Streams as Server-Sent Events: a POST, answered without end. */
import { createParser } from "eventsource-parser";
import type { Connect } from "./connection.js";
import { GatewayError } from "./errors.js";

const EVENT_STREAM = "text/event-stream";

export function sse(url: URL, fetch: typeof globalThis.fetch): Connect {
  return (request, token, { heard, message, end }) => {
    const abort = new AbortController();
    /** Carry one stream until it ends. Rejects where the network fails, or it is not what it should be. */
    const carry = async (): Promise<void> => {
      const response = await fetch(url, {
        method: "POST",
        headers: {
          Accept: EVENT_STREAM,
          "Content-Type": "application/json",
          ...(token && { Authorization: `Bearer ${token}` }),
        },
        body: JSON.stringify(request),
        signal: abort.signal,
      });
      const { status, headers, body } = response;
      if (status === 200 && body && headers.get("Content-Type")?.startsWith(EVENT_STREAM)) {
        const reader = body.getReader();
        const feed = events((data) => message(JSON.parse(data)));
        for (let piece; !(piece = await reader.read()).done; ) {
          heard();
          feed(piece.value);
        }
        return end();
      }
      const { error } = (await response.json().catch(() => null)) ?? {};
      const { code = "no-stream", message: said = `${url} gives ${status}` } = error ?? {};
      const retryAfter = headers.get("Retry-After"); // seconds, or a date: RFC 9110 section 10.2.3
      const retryMs = retryAfter && (+retryAfter * 1_000 || Date.parse(retryAfter) - Date.now());
      end(new GatewayError(said, { parameter: error?.parameter, code, status }), retryMs || undefined);
    };
    carry().catch(() => end());
    return { close: () => abort.abort() };
  };
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
