// The client against a real gateway: `npm run test:live -- [node|chromium] [sse|websocket] [NAME PATTERN]`.
//
// Starts the lab (tests/client_lab.py: broker, worker, gateway) with the Python of the environment's PYTHON, of
// the project's .venv, or python3; then runs the one list of tests in Node and in Chromium, over each transport.
// The lab ends when our end of its standard input is closed, so it does not outlive us, however we end.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { startBrowser, startLab } from "../lab.js";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const CLIENT = join(HERE, "..", "..");
/** So many tests at a time: most of them wait for most of their time. */
const AT_A_TIME = 6;
const STUCK_MS = 90_000;

const asked = process.argv.slice(2);
const chosen = (words) => words.filter((word) => !words.some((it) => asked.includes(it)) || asked.includes(word));
const environments = chosen(["node", "chromium"]);
const transports = chosen(["sse", "websocket"]);
const pattern = new RegExp(
  asked.filter((word) => !["node", "chromium", "sse", "websocket"].includes(word)).join(" "),
  "i",
);

buildClient();
const pages = mkdtempSync(join(tmpdir(), "client-live-"));
process.on("exit", () => rmSync(pages, { recursive: true, force: true }));
await build({
  entryPoints: [join(HERE, "list.ts")],
  outfile: join(pages, "list.js"),
  bundle: true,
  format: "esm",
  target: "es2022",
  sourcemap: "inline",
  logLevel: "warning",
});
copyFileSync(join(HERE, "page.html"), join(pages, "page.html"));
const list = await import(pathToFileURL(join(pages, "list.js")).href);

let lab, browser, sharedPage;
let failures = 0;

before(async () => {
  lab = await startLab(pages);
  if (environments.includes("chromium")) browser = await startBrowser();
});

after(async () => {
  if (failures > 0) console.error(await lab?.logs());
  await browser?.close();
  assert.equal((await lab?.end()) ?? 0, 0, "the lab's exit code");
});

for (const environment of environments) {
  test(environment, { concurrency: AT_A_TIME }, async (t) => {
    const tests = transports.flatMap((transport) =>
      list.tests(`${environment} ${transport}`).map((it) => ({ ...it, transport })),
    );
    const begin = (it) =>
      t.test(`${it.transport}: ${it.name}`, async () => {
        try {
          await (environment === "node" ? runHere : runInBrowser)(it, { name: environment, transport: it.transport });
        } catch (error) {
          failures += 1;
          throw error;
        }
      });
    const chosen = tests.filter(({ name }) => pattern.test(name));
    const begun = chosen.filter((it) => !it.isAlone).sort((a, b) => b.isLong - a.isLong).map(begin);
    if (environment === "node" && pattern.test("a program exits by itself")) {
      for (const transport of transports) {
        for (const how of ["close", "leave"]) {
          const name = `${transport}: a program exits by itself, after it has ${how === "close" ? "closed" : "seen all"}`;
          begun.push(t.test(name, () => exits(transport, how)));
        }
      }
    }
    await Promise.all(begun);
    for (const it of chosen.filter((it) => it.isAlone)) await begin(it);
    await (await sharedPage)?.context.close();
  });
}

async function runHere({ name }, surroundings) {
  const { WebSocket } = surroundings.transport === "websocket" ? await import("ws") : {};
  await list.run(name, { ...surroundings, labUrl: lab.url, WebSocket });
}

async function runInBrowser({ name, page: origin }, surroundings) {
  const page = await (origin ? openPage(origin) : (sharedPage ??= openPage()));
  try {
    const running = page.tab.evaluate(
      ([name, surroundings]) => globalThis.run(name, { ...surroundings, freeze: globalThis.freeze }),
      [name, { ...surroundings, labUrl: lab.url }],
    );
    await Promise.race([running, stuck(page.errors)]);
    assert.deepEqual(page.errors, [], "nothing is thrown that nobody catches");
  } finally {
    if (origin) await page.context.close();
  }
}

/** A page with the list of tests; most of them can share one. */
async function openPage(origin) {
  const url = origin === "door" ? (await command("/doors", { pages: true })).url : lab.url;
  const context = await browser.newContext();
  const tab = await context.newPage();
  const errors = [];
  tab.on("pageerror", (error) => errors.push(error));
  await tab.goto(`${url}/page/page.html`);
  await tab.waitForFunction("globalThis.run");
  const devtools = await context.newCDPSession(tab);
  await tab.exposeFunction("freeze", async (ms) => {
    await devtools.send("Page.setWebLifecycleState", { state: "frozen" });
    await new Promise((resolve) => setTimeout(resolve, ms));
    await devtools.send("Page.setWebLifecycleState", { state: "active" });
  });
  return { context, tab, errors };
}

/** Rejects when a page has had more time than any test takes: it does not even say so itself. */
async function stuck(errors) {
  await new Promise((resolve) => setTimeout(resolve, STUCK_MS).unref());
  throw new Error(`the page does not answer any more; ${errors.length} errors: ${errors.slice(0, 3)}`);
}

async function exits(transport, how) {
  const { url } = await command("/doors");
  const { uuid } = await command("/run", { kind: "canvas.add", args: [40, 2] });
  const child = spawn(process.execPath, [join(HERE, "exits.js"), url, transport, uuid, how], {
    stdio: ["ignore", "pipe", "inherit"],
    timeout: 20_000,
  });
  let settledAt;
  let output = "";
  child.stdout.on("data", (text) => {
    settledAt ??= performance.now();
    output += text;
  });
  const code = await new Promise((resolve) => child.on("close", (code, signal) => resolve(code ?? signal)));
  assert.deepEqual([code, output], [0, "42\n"]);
  const ms = performance.now() - settledAt; // a program that were held would be there for 45 s
  assert.ok(ms < 8_000, `it took ${ms} ms to end`);
}

async function command(path, body = {}) {
  const response = await fetch(lab.url + path, { method: "POST", body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${path}: ${await response.text()}`);
  return response.json();
}

/** Makes dist, if a source is younger. */
function buildClient() {
  const youngest = (folder) =>
    Math.max(0, ...readdirSync(folder, { recursive: true }).map((name) => statSync(join(folder, name)).mtimeMs));
  let built = 0;
  try {
    built = statSync(join(CLIENT, "dist", "index.js")).mtimeMs;
  } catch {
    // never built
  }
  if (youngest(join(CLIENT, "src")) < built) return;
  const { status } = spawnSync("npm", ["run", "--silent", "build"], { cwd: CLIENT, stdio: "inherit" });
  if (status !== 0) process.exit(1);
}
