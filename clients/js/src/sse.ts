/** Streams as Server-Sent Events: the response to a POST, which does not end. */
import { createParser, type EventSourceMessage } from "eventsource-parser";
import type { Connect } from "./connection.js";
import { refusal } from "./errors.js";
import { bearer } from "./session.js";
import type { ClientOptions } from "./types.js";

const enum Max {
  /** Of a message; at a longer one the connection ends. */
  CHARS = 2 ** 26,
}

export function sse(url: URL, options: ClientOptions): Connect {
  return (request, token, signal, { alive, message, end }) => {
    const headers = { "Content-Type": "application/json", ...bearer(token) };
    /** Read one stream until it ends. Rejects if the network fails, or the response is malformed. */
    const carry = async (): Promise<void> => {
      const response = await (options.fetch ?? fetch)(url, {
        method: "POST",
        headers,
        body: JSON.stringify(request),
        signal,
        ...(options.credentials && { credentials: options.credentials }),
      });
      const { status, body } = response;
      if (status === 200 && response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
        const reader = body!.getReader();
        const feed = events(({ data }) => message(JSON.parse(data)));
        for (let piece; !(piece = await reader.read()).done; ) {
          alive();
          feed(piece.value);
        }
        return end();
      }
      end(await refusal(url, response), 1_000 * +response.headers.get("Retry-After")!); // seconds; a date is ignored
    };
    carry().catch(() => end());
    return undefined;
  };
}

/** Return a function that takes the bytes of an event stream, in pieces of any size. */
export function events(onEvent: (event: EventSourceMessage) => void): (bytes: Uint8Array) => void {
  const decoder = new TextDecoder();
  const parser = createParser({ onEvent, maxBufferSize: Max.CHARS });
  return (bytes) => parser.feed(decoder.decode(bytes, { stream: true }));
}
