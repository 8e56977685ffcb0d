// The client against a real gateway: `npm run test:live -- [node|chromium] [sse|websocket] [NAME PATTERN]`.
//
// Starts two labs (tests/support/client_lab.py: broker, worker, gateway) with the Python of the environment's PYTHON, of
// the project's .venv, or python3; then runs the one list of tests in Node and in Chromium, over each transport. The tests
// that restart a gateway or a broker have the second lab, and run one by one.
// A lab ends when its standard input is closed, so it does not outlive this process.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { attempt, startBrowser, started, startLab } from "../lab.js";
import { tabTests } from "./tabs.js";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const CLIENT = join(HERE, "..", "..");
/** So many tests at a time: most of them wait for most of their time. */
const AT_A_TIME = 6;
const STUCK_MS = 330_000;

/** As of `make test-thorough`; see tests/support/thorough.py. */
const IS_THOROUGH = process.env.THOROUGH === "1";
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

/** The lab, and one more whose gateway and broker tests may restart. */
let lab, fragile, browser;
let failures = 0;
const labOf = ({ isAlone }) => (isAlone ? fragile : lab);
/** The tests of an environment, each with its transport; those of a browser that need no page of their own share one. */
const lists = environments.map((environment) => ({
  environment,
  tests: transports.flatMap((transport) =>
    list
      .tests(`${environment} ${transport}`, IS_THOROUGH || asked.length > 0)
      .filter(({ name }) => pattern.test(name))
      .map((it) => ({ ...it, transport })),
  ),
}));
const sharedPages = new Map();

before(async () => {
  const isFragile = lists.some(({ tests }) => tests.some((it) => it.isAlone));
  const isBrowser = environments.includes("chromium");
  const { values, error } = await started([startLab(pages), isFragile && startLab(pages), isBrowser && startBrowser()]);
  [lab, fragile, browser] = values;
  if (error) throw error;
});

after(async () => {
  for (const each of [lab, fragile]) if (failures > 0) console.error(await each?.logs?.());
  await browser?.close?.();
  const codes = await Promise.all([lab, fragile].map((each) => each?.end?.() ?? 0));
  assert.deepEqual(codes, [0, 0], "the labs' exit codes");
});

const run = (t, title, job) =>
  t.test(title, async (t) => {
    try {
      await attempt(t, job);
    } catch (error) {
      failures += 1;
      throw error;
    }
  });
const begin = (t, environment, it, title = `${it.transport}: ${it.name}`) =>
  run(t, title, () => (environment === "node" ? runHere : runInBrowser)(it, { name: environment, transport: it.transport }));

// Most tests wait for most of their time, so both environments run at once; the outages of the other lab, one by one.
test("live", { concurrency: true }, async (t) => {
  await Promise.all([
    ...lists.map(({ environment, tests }) =>
      t.test(environment, { concurrency: AT_A_TIME }, async (t) => {
        const begun = tests
          .filter((it) => !it.isAlone)
          .sort((a, b) => b.isLong - a.isLong)
          .map((it) => begin(t, environment, it));
        if (environment === "node" && pattern.test("a program exits by itself")) {
          for (const transport of transports) {
            for (const how of ["close", "leave"]) {
              const name = `${transport}: a program exits by itself, after it has ${how === "close" ? "closed" : "seen all"}`;
              begun.push(run(t, name, () => exits(transport, how)));
            }
          }
        }
        await Promise.all(begun);
        // Their many pages would slow down the others.
        const inTabs = environment === "chromium" ? tabTests.filter(({ name }) => pattern.test(name)) : [];
        const runs = inTabs.flatMap((it) => transports.filter((one) => it.transports.includes(one)).map((one) => [it, one]));
        await Promise.all(runs.map(([it, one]) => run(t, `${one}: ${it.name}`, () => runInTabs(it, one))));
      }),
    ),
    t.test("outages", async (t) => {
      for (const { environment, tests } of lists) {
        for (const it of tests.filter((it) => it.isAlone)) {
          await begin(t, environment, it, `${environment}, ${it.transport}: ${it.name}`);
        }
      }
    }),
  ]);
  for (const page of sharedPages.values()) await (await page).context.close();
});

async function runHere(it, surroundings) {
  const { WebSocket } = surroundings.transport === "websocket" ? await import("ws") : {};
  await list.run(it.name, { ...surroundings, labUrl: labOf(it).url, WebSocket });
}

async function runInBrowser(it, surroundings) {
  const labUrl = labOf(it).url;
  if (!it.page && !sharedPages.has(labUrl)) sharedPages.set(labUrl, openPage());
  const page = await (it.page ? openPage(it.page) : sharedPages.get(labUrl));
  try {
    const running = page.tab.evaluate(
      ([name, surroundings]) => globalThis.run(name, { ...surroundings, freeze: globalThis.freeze }),
      [it.name, { ...surroundings, labUrl }],
    );
    await Promise.race([running, stuck(page.errors)]);
    assert.deepEqual(page.errors, [], "nothing is thrown that nobody catches");
  } finally {
    if (it.page) await page.context.close();
  }
}

let names = 0;

/** Runs a test of several tabs, with a gateway of their own origin. */
async function runInTabs(it, transport) {
  const { id, url } = await command("/doors", { pages: true, auth: it.auth });
  const context = await browser.newContext();
  const errors = [];
  try {
    await it.run({
      name: `tick.${Date.now().toString(36)}.${++names}`,
      transport,
      command,
      labUrl: lab.url,
      async open(count) {
        const opened = [];
        while (opened.length < count) {
          const tab = await context.newPage();
          tab.on("pageerror", (error) => errors.push(error));
          await tab.goto(`${url}/page/page.html`);
          await tab.waitForFunction("globalThis.run");
          opened.push(tab);
        }
        return opened;
      },
      door: async () => (await fetch(`${lab.url}/doors/${id}`)).json(),
      publish: (names) =>
        command("/publish", {
          bodies: names.map((name) => ({ type: "task-tick", uuid: name, name, hostname: "tick@host", timestamp: Date.now() / 1000 })),
        }),
      async load(name, count, perSecond, options) {
        const load = await command("/load", { name, count, per_second: perSecond, ...options });
        return { isDone: async () => (await (await fetch(`${lab.url}/load/${load.id}`)).json()).done };
      },
    });
    assert.deepEqual(errors, [], "uncaught errors of the pages");
  } finally {
    await context.close();
    await fetch(`${lab.url}/doors/${id}`, { method: "DELETE" });
  }
}

/** A page with the list of tests; most of them can share one. */
async function openPage(origin) {
  const isDoor = origin === "door" || origin === "auth";
  const url = isDoor ? (await command("/doors", { pages: true, auth: origin === "auth" })).url : lab.url;
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
    timeout: 60_000,
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
