// Express with `compression` and http-proxy-middleware before a gateway, all with their defaults.
//
// Usage: express.mjs http://127.0.0.1:8555. Prints the port that it listens on.
import compression from "compression";
import express from "express";
import { createProxyMiddleware } from "http-proxy-middleware";

const [target] = process.argv.slice(2);
const app = express();
app.use(compression());
const proxy = createProxyMiddleware({ target });
app.use("/celery", proxy);
const server = app.listen(0, "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
server.on("upgrade", proxy.upgrade);
