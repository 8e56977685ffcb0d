/** Streams over a WebSocket: each is asked for by a message, and takes the place of the one before. */
import type { Connect, Connection, Message } from "./connection.js";
import type { Environment } from "./environment.js";
import type { StreamRequest } from "./request.js";

export function websocket(url: URL, { WebSocket }: Environment): Connect {
  if (!WebSocket) throw new TypeError("there is no WebSocket here; give one as the option WebSocket");
  return (request, token, receiver): Connection => {
    const target = new URL(url);
    target.protocol = url.protocol.replace("http", "ws");
    target.searchParams.set("type", "gateway-*"); // until it is told what is wanted: nothing but how it goes
    if (token) target.searchParams.set("access_token", token);
    const socket = new WebSocket(target.href);
    let unanswered = 1; // streams that were asked for and have not begun; the first by connecting
    const open = (request: StreamRequest): void => {
      unanswered++;
      socket.send(JSON.stringify({ op: "open", ...request }));
    };
    socket.onopen = () => open(request);
    socket.onmessage = ({ data }: { data: string }) => {
      receiver.heard();
      const message = JSON.parse(data) as Message;
      if (message.type === "gateway-open") unanswered--;
      if (!unanswered || message.type === "gateway-close" || message.type === "gateway-error") receiver.message(message);
    };
    socket.onerror = () => {}; // its end is told, too
    socket.onclose = () => receiver.end();
    return { reopen: open, close: () => socket.close() };
  };
}
