// A service on the stream, in Node and nothing else: told of each task that fails, across lost connections.
//   node service.mjs [http://localhost:8555]
import { setTimeout as pause } from "node:timers/promises";

const STALE_MS = 45_000; // the gateway says something every 15 s
const FATAL = [400, 401, 403, 404];

/** Each line of one answer. */
async function* lines(response, onData) {
  let rest = "";
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    onData();
    const whole = (rest + text).split("\n");
    rest = whole.pop(); // the beginning of a line whose end has not come yet
    yield* whole;
  }
}

/** Each message once, over as many connections as it takes; the next is asked for when one is handled. */
async function* messages(base, query) {
  const url = new URL(base.replace(/\/*$/, `/events?${new URLSearchParams({ format: "ndjson", ...query })}`));
  for (let failures = 0; ; failures++) {
    const connection = new AbortController();
    const watchdog = setTimeout(() => connection.abort(new Error("the gateway is silent")), STALE_MS);
    let retryMs;
    try {
      const response = await fetch(url, { signal: connection.signal });
      if (FATAL.includes(response.status)) return console.error(await response.text());
      if (!response.ok) throw new Error(`the answer was ${response.status}`);
      for await (const line of lines(response, () => watchdog.refresh())) {
        const message = JSON.parse(line);
        yield message;
        url.searchParams.set("last_event_id", message.id); // from here on, if the connection is lost
        retryMs = message.retry_ms; // gateway-close says when to come back
        failures = 0;
      }
    } catch (error) {
      console.error(error.cause?.message ?? error.message);
    } finally {
      clearTimeout(watchdog);
      connection.abort();
    }
    await pause(retryMs ?? Math.random() * Math.min(30_000, 500 * 2 ** failures));
  }
}

const url = process.argv[2] ?? process.env.GATEWAY_URL ?? "http://localhost:8555";
for await (const message of messages(url, { type: "task-failed" })) {
  if (message.type === "task-failed") console.log("failed", message.name, message.uuid, message.exception);
  if (message.type === "gateway-open") console.log("connected", message.resume);
  if (message.type === "gateway-gap") console.log("missed", message.lost ?? "some", message.reason);
}
process.exitCode = 1; // refused
