// The hooks with React 19 and 18, and the recipes of the README with Vue and Svelte, in Chromium over a real gateway, and on
// a server.
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { attempt, startBrowser, started, startLab } from "../lab.js";
import { buildRecipe, FRAMEWORKS } from "./recipes.js";

/** Ends a test that hangs. */
const TIMEOUT_MS = 300_000;
/** So many tests at a time: most of them wait for most of their time. */
const AT_A_TIME = 4;
const VERSIONS = [
  ["19", {}],
  ["18", { react: "react18", "react-dom": "react-dom18" }],
];

const pages = await mkdtemp(join(tmpdir(), "client-react-"));
let lab;
let browser;
let hasFailed = false;

before(async () => {
  const { values, error } = await started([startLab(pages), startBrowser()]);
  [lab, browser] = values;
  if (error) throw error;
});

after(async () => {
  if (hasFailed) console.error(await lab.logs());
  await browser?.close();
  assert.equal(await lab?.end(), 0, "the lab's exit code");
  await rm(pages, { recursive: true, force: true });
});

for (const [version, alias] of VERSIONS) {
  const page = await bundle("page.ts", version, alias, "browser");
  const globals = `import * as page from "./${basename(page)}"; Object.assign(globalThis, page);`;
  const head = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">';
  await writeFile(join(pages, `${version}.html`), `${head}<script type="module">${globals}</script>`);

  const server = await import(pathToFileURL(await bundle("server.ts", version, alias, "node")).href);
  test(`React ${version}: on a server nothing is known, and nothing is begun`, () => {
    assert.match(server.version, new RegExp(`^${version}\\.`));
    server.rendersNothingKnown();
  });
}

for (const framework of FRAMEWORKS) {
  const file = basename(await buildRecipe(framework, "page", pages));
  const head = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><body></body>';
  const globals = `import * as recipe from "./${file}"; globalThis.run = recipe;`;
  await writeFile(join(pages, `${framework}.html`), `${head}<script type="module">${globals}</script>`);

  const server = await import(pathToFileURL(await buildRecipe(framework, "server", pages)).href);
  test(`${framework}: on a server the recipe shows that it is loading, and connects to nothing`, async () => {
    const asked = [];
    const fetch = async (url) => {
      asked.push(url);
      throw new TypeError("nobody is there");
    };
    for (const url of ["/celery", "http://127.0.0.1:9"]) {
      const client = server.connect({ url, fetch });
      assert.match(await server.render({ client, uuid: "1" }), /<p>loading<\/p>/);
      await new Promise((resolve) => setTimeout(resolve, 50));
      assert.deepEqual([client.status, asked], ["idle", []]);
    }
  });
}

/** A recipe on a page: an unknown task, one that runs, one that has ended; then it is unmounted. */
async function showsRecipe(framework) {
  const { id, url } = await command("/doors", { pages: true });
  try {
    await onPage(framework, async (page) => {
      const uuid = crypto.randomUUID();
      await page.evaluate(
        ([url, uuid]) => {
          const client = globalThis.run.connect({ url });
          Object.assign(globalThis, { client, mounted: globalThis.run.mount(document.body, { client, uuid }) });
        },
        [url, uuid],
      );
      const shows = (selector) => page.waitForSelector(selector, { timeout: 60_000 });
      await shows("text=unknown");
      const event = { uuid, hostname: "w1@host", utcoffset: 0, pid: 1, timestamp: Date.now() / 1_000 };
      await command("/publish", { bodies: [{ ...event, type: "task-progress", clock: 1, progress: 0.5 }] });
      await shows("progress[title=PROGRESS]");
      assert.equal(await page.$eval("progress", (bar) => bar.value), 0.5);
      const ended = await command("/run", { kind: "canvas.add", args: [40, 2] });
      await page.evaluate((uuid) => globalThis.mounted.set({ uuid }), ended.uuid);
      await shows("progress[title=SUCCESS]");
      assert.equal(await page.$eval("progress", (bar) => bar.value), 1);
      await page.evaluate(() => globalThis.mounted.unmount());
      await page.waitForFunction(() => globalThis.client.status === "idle");
      await page.evaluate(() => globalThis.client.close());
    });
  } finally {
    await fetch(`${lab.url}/doors/${id}`, { method: "DELETE" });
  }
}

async function command(path, body = {}) {
  const response = await fetch(lab.url + path, { method: "POST", body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${path}: ${await response.text()}`);
  return response.json();
}

test("in Chromium", { concurrency: AT_A_TIME }, async (t) => {
  const list = [];
  for (const [version] of VERSIONS) {
    const tests = await onPage(version, (page) => page.evaluate(() => globalThis.tests()));
    list.push(...tests.map((it) => ({ ...it, version })));
  }
  const begin = ({ name, version }) =>
    t.test(`React ${version}: ${name}`, { timeout: TIMEOUT_MS }, async (t) => {
      try {
        const run = ([name, labUrl]) => globalThis.run(name, labUrl);
        await attempt(t, () => onPage(version, (page) => page.evaluate(run, [name, lab.url])));
      } catch (error) {
        hasFailed = true;
        throw error;
      }
    });
  const recipes = FRAMEWORKS.map((framework) =>
    t.test(`${framework}: the recipe`, { timeout: TIMEOUT_MS }, (t) => attempt(t, () => showsRecipe(framework))),
  );
  await Promise.all([...recipes, ...list.filter((it) => !it.isAlone).map(begin)]);
  for (const it of list.filter((it) => it.isAlone)) await begin(it);
});

/** Does something on a page of its own. */
async function onPage(version, use) {
  const context = await browser.newContext();
  const errors = [];
  try {
    const page = await context.newPage();
    page.on("pageerror", (error) => errors.push(String(error)));
    await page.goto(`${lab.url}/page/${version}.html`);
    await page.waitForFunction(() => globalThis.run);
    const given = await use(page);
    assert.deepEqual(errors, [], "nothing is thrown that nobody catches");
    return given;
  } finally {
    await context.close();
  }
}

async function bundle(entry, version, alias, platform) {
  const outfile = join(pages, `${version}-${entry.replace(".ts", ".mjs")}`);
  await build({
    entryPoints: [fileURLToPath(new URL(entry, import.meta.url))],
    outfile,
    bundle: true,
    format: "esm",
    target: "es2022",
    platform,
    alias,
    define: { "process.env.NODE_ENV": '"development"' },
    // React DOM for servers is CommonJS, and asks for Node's own modules.
    ...(platform === "node" && {
      banner: {
        js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);',
      },
    }),
    logLevel: "warning",
  });
  return outfile;
}
