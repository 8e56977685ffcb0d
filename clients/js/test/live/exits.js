// A program that watches a task to its end: `node exits.js URL TRANSPORT UUID close|leave`. It has to end by
// itself, at once after close(), and soon when nothing is watched any more.
import { connect } from "../../dist/index.js";

const [url, transport, uuid, how] = process.argv.slice(2);
const WebSocket = transport === "websocket" ? (await import("ws")).WebSocket : undefined;
const client = connect({ url, transport, WebSocket });
if (how === "close") {
  client.workers().subscribe(() => undefined);
  client.events({ type: "worker-*" }).subscribe(() => undefined);
}
const task = await client.task(uuid).ready;
if (how === "close") client.close();
console.log(task.result);
