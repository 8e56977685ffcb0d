/** The built package in Node with nothing beside it; says what it saw as JSON. Nothing may keep Node from ending. */
import { createServer } from "node:http";
import { createRequire } from "node:module";
import * as client from "@celery-gateway/client";

const SUCCEEDED = { type: "task-succeeded", uuid: "1", state: "SUCCESS", id: "2" };
const server = createServer((request, response) => {
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  response.write(
    'event: gateway-open\nid: 1\ndata: {"type":"gateway-open","id":"1","resume":"live"}\n\n' +
      'event: gateway-snapshot\nid: 1\ndata: {"type":"gateway-snapshot","tasks":[],"workers":[],"done":true,"id":"1"}\n\n' +
      `id: 2\ndata: ${JSON.stringify(SUCCEEDED)}\n\n`,
  );
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const gateway = client.connect({ url: `http://127.0.0.1:${server.address().port}` });
const told = { exports: Object.keys(client).sort(), event: null, status: [] };
gateway.on("status", (status) => told.status.push(status));
for await (const event of gateway.events()) {
  told.event = event.type;
  break;
}
gateway.close();
server.close();
told.version = createRequire(import.meta.url)("@celery-gateway/client/package.json").version;
told.react = await import("@celery-gateway/client/react").then(
  () => "found",
  (error) => error.code,
);
console.log(JSON.stringify(told));
