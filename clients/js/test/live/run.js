// The client against a real gateway: `npm run test:live -- [node|chromium] [sse|websocket] [NAME PATTERN]`.
//
// Starts the lab (tests/client_lab.py: broker, worker, gateway) with the Python of the environment's PYTHON, of
// the project's .venv, or python3; then runs the one list of tests in Node and in Chromium, over each transport.
// The lab ends when our end of its standard input is closed, so it does not outlive us, however we end.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { accessSync, constants, copyFileSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const CLIENT = join(HERE, "..", "..");
const PROJECT = join(CLIENT, "..", "..");
const BROWSERS = ["chromium", "chromium-browser", "google-chrome"];
const BROWSER_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"].concat(
  ["--disable-background-networking", "--disable-component-update", "--disable-sync"],
);
/** So many tests at a time: most of them wait for most of their time. */
const AT_A_TIME = 4;
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

let lab, labUrl, browser;
let failures = 0;

before(async () => {
  [lab, labUrl] = await startLab();
  if (environments.includes("chromium")) {
    browser = await chromium.launch({ executablePath: findBrowser(), args: BROWSER_FLAGS });
  }
});

after(async () => {
  if (failures > 0 && labUrl) console.error(await (await fetch(`${labUrl}/logs`)).text());
  await browser?.close();
  await endLab();
});

for (const environment of environments) {
  for (const transport of transports) {
    const surroundings = { name: environment, transport };
    const tests = list.tests(`${environment} ${transport}`).filter(({ name }) => pattern.test(name));
    const together = tests.filter((it) => !it.isAlone).sort((a, b) => b.isLong - a.isLong);
    test(`${environment}, ${transport}`, { concurrency: AT_A_TIME }, async (t) => {
      const begin = (it) =>
        t.test(it.name, async () => {
          try {
            await (environment === "node" ? runHere : runInBrowser)(it, surroundings);
          } catch (error) {
            failures += 1;
            throw error;
          }
        });
      const begun = together.map(begin);
      if (environment === "node" && pattern.test("exit")) {
        for (const how of ["close", "leave"]) {
          begun.push(t.test(`a program exits by itself: ${how}`, () => exits(transport, how)));
        }
      }
      await Promise.all(begun);
      for (const it of tests.filter((it) => it.isAlone)) await begin(it);
    });
  }
}

async function runHere({ name }, surroundings) {
  const { WebSocket } = surroundings.transport === "websocket" ? await import("ws") : {};
  await list.run(name, { ...surroundings, labUrl, WebSocket });
}

async function runInBrowser({ name, page: origin }, surroundings) {
  const url = origin === "door" ? (await command("/doors", { pages: true })).url : labUrl;
  const context = await browser.newContext();
  try {
    const page = await context.newPage();
    const errors = [];
    page.on("pageerror", (error) => errors.push(error));
    await page.goto(`${url}/page/page.html`);
    await page.waitForFunction("globalThis.run");
    const devtools = await context.newCDPSession(page);
    await page.exposeFunction("freeze", async (ms) => {
      await devtools.send("Page.setWebLifecycleState", { state: "frozen" });
      await new Promise((resolve) => setTimeout(resolve, ms));
      await devtools.send("Page.setWebLifecycleState", { state: "active" });
    });
    const running = page.evaluate(
      ([name, surroundings]) => globalThis.run(name, { ...surroundings, freeze: globalThis.freeze }),
      [name, { ...surroundings, labUrl }],
    );
    await Promise.race([running, stuck(errors)]);
    assert.deepEqual(errors, [], "nothing is thrown that nobody catches");
  } finally {
    await context.close();
  }
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
  const ms = performance.now() - settledAt;
  assert.ok(ms < (how === "close" ? 1_000 : 4_000), `it took ${ms} ms to end`);
}

async function command(path, body = {}) {
  const response = await fetch(labUrl + path, { method: "POST", body: JSON.stringify(body) });
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

async function startLab() {
  const venv = join(PROJECT, ".venv", "bin", "python");
  const python = process.env.PYTHON ?? (isExecutable(venv) ? venv : "python3");
  const child = spawn(python, ["-m", "tests.client_lab", "--pages", pages], {
    cwd: PROJECT,
    stdio: ["pipe", "pipe", "inherit"],
    detached: true, // Ctrl-C is for us; the lab ends with its standard input
  });
  const ended = new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (code) => resolve(code));
  });
  for await (const line of createInterface({ input: child.stdout })) {
    return [{ child, ended }, JSON.parse(line).url];
  }
  throw new Error(`the lab did not start: ${python} ended with ${await ended}`);
}

async function endLab() {
  if (!lab) return;
  lab.child.stdin.end();
  assert.equal(await lab.ended, 0, "the lab's exit code");
}

function findBrowser() {
  for (const name of BROWSERS) {
    for (const folder of (process.env.PATH ?? "").split(delimiter)) {
      if (isExecutable(join(folder, name))) return join(folder, name);
    }
  }
  throw new Error(`none of ${BROWSERS.join(", ")} is in PATH`);
}

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
