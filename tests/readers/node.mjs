// Readers of a stream in Node, all in one process.
//
// Usage: node.mjs '{"ws": "http://127.0.0.1:8555", …}' TYPE: which readers, the gateway that each asks, and the type of
// the events it asks for. What they got is printed as JSON lines (see messages.mjs).
import EventSource2 from "eventsource-2";
import { EventSource as EventSource3 } from "eventsource-3";
import { EventSource as EventSource4 } from "eventsource-4";
import { createEventSource } from "eventsource-client";
import { defer, repeat, retry } from "rxjs";
import { webSocket } from "rxjs/webSocket";
import { EventSource as UndiciEventSource } from "undici";
import WebSocket from "ws";

import { follow, taker } from "./messages.mjs";

const RETRY_MS = 200;
const [urls, type] = process.argv.slice(2);
const report = (line) => console.log(JSON.stringify(line));

const eventSource = (EventSource) => (name, url) => follow(name, new EventSource(`${url}/events?type=${type}`), report);

const webSocketUrl = (url, lastId) => {
  const resumed = lastId === undefined ? "" : `&last_event_id=${lastId}`;
  return `${url.replace("http", "ws")}/ws?type=${type}${resumed}`;
};

const READERS = {
  "eventsource 2": eventSource(EventSource2),
  "eventsource 3": eventSource(EventSource3),
  "eventsource 4": eventSource(EventSource4),
  undici: eventSource(UndiciEventSource),

  "eventsource-client"(name, url) {
    const take = taker(name, report);
    createEventSource({ url: `${url}/events?type=${type}`, onMessage: ({ data }) => take(data) });
  },

  // These do not reconnect by themselves: as their users do it, with the id of the last message.
  ws(name, url) {
    const take = taker(name, report);
    let lastId;
    const connect = () => {
      const socket = new WebSocket(webSocketUrl(url, lastId));
      socket.on("message", (data) => (lastId = take(data.toString())?.id ?? lastId));
      socket.on("error", (error) => report({ reader: name, lost: String(error) }));
      socket.on("close", () => setTimeout(connect, RETRY_MS));
    };
    connect();
  },

  "rxjs webSocket"(name, url) {
    const take = taker(name, report);
    let lastId;
    defer(() =>
      webSocket({ url: webSocketUrl(url, lastId), WebSocketCtor: WebSocket, deserializer: ({ data }) => take(data) }),
    )
      .pipe(retry({ delay: RETRY_MS }), repeat({ delay: RETRY_MS }))
      .subscribe((message) => (lastId = message?.id ?? lastId));
  },
};

for (const [name, url] of Object.entries(JSON.parse(urls))) READERS[name](name, url);
