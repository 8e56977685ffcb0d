/** Streams over a WebSocket: each is asked for by a message, and takes the place of the one before. */
import type { Connect, Control, StreamRequest } from "./connection.js";
import { nothing } from "./environment.js";
import type { ClientOptions, WebSocketConstructor } from "./types.js";

export function websocket(url: URL, options: ClientOptions): Connect {
  const WebSocket = options.WebSocket ?? (globalThis.WebSocket as unknown as WebSocketConstructor | undefined);
  if (!WebSocket) throw new TypeError("no WebSocket here: give one as an option");
  return (request, token, signal, { heard, message, end }) => {
    const target = new URL(url.href.replace("http", "ws"));
    target.searchParams.set("type", "gateway-*"); // until it is told what is wanted: nothing but how it goes
    if (token) target.searchParams.set("access_token", token);
    const socket = new WebSocket(target.href);
    let unanswered = 1; // streams that were asked for and have not begun; the first by connecting
    const reopen = (request: StreamRequest): void => {
      unanswered++;
      socket.send(JSON.stringify({ op: "open", ...request }));
    };
    socket.onopen = () => reopen(request);
    socket.onmessage = ({ data }: { data: string }) => {
      heard();
      try {
        const told: Control = JSON.parse(data);
        if (told.type === "gateway-open") unanswered--;
        if (!unanswered || told.type === "gateway-error") message(told);
      } catch {
        socket.close(); // this is no gateway, or no whole message
      }
    };
    socket.onerror = nothing; // its end is told, too
    socket.onclose = () => end();
    signal.addEventListener("abort", () => socket.close());
    return reopen;
  };
}
