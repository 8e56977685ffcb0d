/** Streams as Server-Sent Events: a POST, answered without end. */
import { createParser, type EventSourceMessage } from "eventsource-parser";
import type { Connect } from "./connection.js";
import { nothing } from "./environment.js";
import { GatewayError } from "./errors.js";
import type { ClientOptions } from "./types.js";

export function sse(url: URL, options: ClientOptions): Connect {
  return (request, token, signal, { heard, message, end }) => {
    /** Carry one stream until it ends. Rejects where the network fails, or it is not what it should be. */
    const carry = async (): Promise<void> => {
      const response = await (options.fetch ?? fetch)(url, {
        method: "POST",
        headers: {
          "Content-Type": "application/json",
          ...(token && { Authorization: `Bearer ${token}` }),
        },
        body: JSON.stringify(request),
        signal,
      });
      const { status, headers, body } = response;
      if (status === 200 && headers.get("Content-Type")?.startsWith("text/event-stream")) {
        const reader = body!.getReader();
        const feed = events(({ data }) => message(JSON.parse(data)));
        for (let piece; !(piece = await reader.read()).done; ) {
          heard();
          feed(piece.value);
        }
        return end();
      }
      const { error } = (await response.json().catch(nothing)) ?? {};
      const refusal = new GatewayError(error?.message ?? `${url}: ${status}`, { code: "no-stream", ...error, status });
      end(refusal, 1_000 * Math.min(+(headers.get("Retry-After") ?? 0), 86_400) || 0); // seconds; of a date nothing is known
    };
    carry().catch(() => end());
    return undefined;
  };
}

/** Return what takes the bytes of an event stream, cut in any way. */
export function events(onEvent: (event: EventSourceMessage) => void): (bytes: Uint8Array) => void {
  const decoder = new TextDecoder();
  const parser = createParser({ onEvent });
  return (bytes) => parser.feed(decoder.decode(bytes, { stream: true }));
}
