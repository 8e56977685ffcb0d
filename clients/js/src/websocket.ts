/** Streams over a WebSocket: a message requests each, and it replaces the one before. */
import type { Connect, Control, StreamRequest } from "./connection.js";
import { nothing } from "./environment.js";
import { GatewayError } from "./errors.js";
import type { ClientOptions, WebSocketConstructor } from "./types.js";

export function websocket(url: URL, options: ClientOptions): Connect {
  const WebSocket = options.WebSocket ?? (globalThis.WebSocket as unknown as WebSocketConstructor | undefined);
  if (!WebSocket) throw new GatewayError("no WebSocket here: set the option WebSocket", { code: "no-websocket" });
  return (request, token, signal, { alive, message, end }) => {
    const target = new URL(url.href.replace("http", "ws"));
    target.searchParams.set("uuid", "-"); // until it is open: no events
    if (token) target.searchParams.set("access_token", token);
    const socket = new WebSocket(target.href);
    let unanswered = 1; // requested streams that have not begun; connecting requests the first
    const reopen = (request: StreamRequest): void => {
      unanswered++;
      socket.send(JSON.stringify({ op: "open", ...request }));
    };
    socket.onopen = () => reopen(request);
    socket.onmessage = ({ data }: { data: string }) => {
      alive();
      try {
        const received: Control = JSON.parse(data);
        if (received.type === "gateway-open") unanswered--;
        if (!unanswered || received.type === "gateway-error") message(received);
      } catch {
        socket.close(); // not a gateway, or not a whole message
      }
    };
    socket.onerror = nothing; // onclose follows
    socket.onclose = () => end();
    signal.addEventListener("abort", () => socket.close());
    return reopen;
  };
}
