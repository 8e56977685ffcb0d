// The hooks with React 19 and 18, in Chromium over a real gateway, and on a server.
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { startBrowser, startLab } from "../lab.js";

const TIMEOUT_MS = 60_000;
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
  [lab, browser] = await Promise.all([startLab(pages), startBrowser()]);
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

test("in Chromium", { concurrency: AT_A_TIME }, async (t) => {
  const list = [];
  for (const [version] of VERSIONS) {
    const tests = await onPage(version, (page) => page.evaluate(() => globalThis.tests()));
    list.push(...tests.map((it) => ({ ...it, version })));
  }
  const begin = ({ name, version }) =>
    t.test(`React ${version}: ${name}`, { timeout: TIMEOUT_MS }, async () => {
      try {
        const run = ([name, labUrl]) => globalThis.run(name, labUrl);
        await onPage(version, (page) => page.evaluate(run, [name, lab.url]));
      } catch (error) {
        hasFailed = true;
        throw error;
      }
    });
  await Promise.all(list.filter((it) => !it.isAlone).map(begin));
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
