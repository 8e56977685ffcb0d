/** Streams over a WebSocket: a message requests each, and it replaces the one before. The token is a subprotocol. */
import type { Connect, Control, StreamRequest } from "./connection.js";
import { nothing } from "./environment.js";
import { GatewayError } from "./errors.js";
import { checked } from "./session.js";
import type { ClientOptions, WebSocketConstructor } from "./types.js";

const SUBPROTOCOL = "celery-gateway";
/** The characters that a subprotocol may have (RFC 6455 section 4.1, RFC 9110 section 5.6.2). */
const ALLOWED = /^[\w!#$%&'*+.^`|~-]+$/;
const enum Code {
  EXPIRED = 4001,
}

export function websocket(url: URL, options: ClientOptions): Connect {
  const WebSocket = options.WebSocket ?? (globalThis.WebSocket as unknown as WebSocketConstructor | undefined);
  if (!WebSocket) throw new GatewayError("no WebSocket here: set the option WebSocket", { code: "no-websocket" });
  return (request, token, signal, { alive, message, end }) => {
    const target = new URL(url.href.replace("http", "ws"));
    target.searchParams.set("uuid", "-"); // until it is open: no events
    // Not in the URL: that ends in the logs of proxies.
    const socket = new WebSocket(target.href, token ? [SUBPROTOCOL, `${SUBPROTOCOL}.bearer.${checked(token, ALLOWED)}`] : []);
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
    socket.onclose = ({ code }: { code: number }) => end(undefined, 0, code === Code.EXPIRED);
    signal.addEventListener("abort", () => socket.close());
    return reopen;
  };
}
