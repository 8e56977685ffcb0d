// Vite's development server before a gateway, with one rule for its proxy.
//
// Usage: vite.mjs http://127.0.0.1:8555. Prints the port that it listens on.
import { createServer } from "vite";

const [target] = process.argv.slice(2);
const server = await createServer({
  configFile: false,
  logLevel: "error",
  server: { host: "127.0.0.1", port: 0, proxy: { "/celery": { target, ws: true } } },
});
await server.listen();
console.log(`listening on ${server.httpServer.address().port}`);
