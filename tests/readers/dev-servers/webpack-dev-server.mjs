// webpack-dev-server before a gateway, with its defaults (it compresses) and one rule for its proxy.
//
// Usage: webpack-dev-server.mjs http://127.0.0.1:8555. Prints the port that it listens on.
import webpack from "webpack";
import WebpackDevServer from "webpack-dev-server";

const [target] = process.argv.slice(2);
const compiler = webpack({
  mode: "development",
  entry: "data:text/javascript,",
  infrastructureLogging: { level: "error" },
});
const proxy = [{ context: ["/celery"], target, ws: true }];
const server = new WebpackDevServer({ host: "127.0.0.1", port: "auto", proxy }, compiler);
await server.start();
console.log(`listening on ${server.server.address().port}`);
