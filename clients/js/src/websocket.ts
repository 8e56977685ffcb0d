/** Streams over a WebSocket: each is asked for by a message, and takes the place of the one before. */
import type { Connect, Connection, Control, StreamRequest } from "./connection.js";
import { nothing } from "./environment.js";
import type { WebSocketConstructor } from "./types.js";

export function websocket(url: URL, WebSocket: WebSocketConstructor | undefined): Connect {
  if (!WebSocket) throw new TypeError("no WebSocket here: give one as option");
  return (request, token, { heard, message, end }): Connection => {
    const target = new URL(url);
    target.protocol = url.protocol.replace("http", "ws");
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
      const told: Control = JSON.parse(data);
      if (told.type === "gateway-open") unanswered--;
      if (!unanswered || /^gateway-(close|error)$/.test(told.type)) message(told);
    };
    socket.onerror = nothing; // its end is told, too
    socket.onclose = () => end();
    return { reopen, close: () => socket.close() };
  };
}
