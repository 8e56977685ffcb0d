// Readers of a stream in a browser, all in one page: startReaders({ "EventSource": "http://127.0.0.1:8555", … }, TYPE).
// What they got is in window.lines (see messages.mjs).
import { fetchEventSource } from "./node_modules/@microsoft/fetch-event-source/lib/esm/index.js";
import ReconnectingEventSource from "./node_modules/reconnecting-eventsource/build/esm/reconnecting-eventsource.js";

import { follow, taker } from "./messages.mjs";

const RETRY_MS = 200;
window.lines = [];
const report = (line) => window.lines.push(line);
const { BrowsersEventSource, EventSourcePolyfill, EventSourcePolyfill0, AmvtekEventSource } = window;

const READERS = {
  EventSource: (url) => new BrowsersEventSource(url),
  "event-source-polyfill": (url) => new EventSourcePolyfill(url, { headers: { "X-Requested-With": "XMLHttpRequest" } }),
  "event-source-polyfill 0.0.9": (url) => new EventSourcePolyfill0(url),
  // It gives up after an error of the network, too: as its users do it, opened again with the last id. It reconnects
  // when it has buffered 256 KiB; an event that is longer than that makes it open several connections.
  "eventsource-polyfill": (url, name) => {
    let lastId = "";
    const open = () => {
      const source = new AmvtekEventSource(`${url}&max_event_bytes=60000&last_event_id=${lastId}`);
      source.addEventListener("message", (message) => (lastId = message.lastEventId));
      follow(name, source, report);
      source.onerror = () => {
        if (source.readyState !== 2) return;
        source.onerror = null; // it reports an error more than once
        setTimeout(open, RETRY_MS);
      };
    };
    open();
  },
  // Without max_retry_time it waits for up to 3 s.
  "reconnecting-eventsource": (url) => new ReconnectingEventSource(url, { max_retry_time: 1000 }),
  "fetch-event-source": (url, name) => {
    const take = taker(name, report);
    const options = { openWhenHidden: true, onmessage: ({ data }) => take(data) };
    fetchEventSource(url, options).catch((error) => report({ reader: name, error: String(error) }));
  },
};

window.startReaders = (urls, type) => {
  for (const [name, url] of Object.entries(urls)) {
    const source = READERS[name](`${url}/events?type=${type}`, name);
    if (source) follow(name, source, report);
  }
};
window.isReady = true;
