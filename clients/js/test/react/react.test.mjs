// The hooks with React 19 and 18, in Chromium over a real gateway, and on a server.
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { startBrowser, startLab } from "../lab.js";

const TIMEOUT_MS = 60_000;
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
  const [page, server] = [await bundle("page.ts", version, alias), await bundle("server.ts", version, alias, "node")];
  const onServer = await import(pathToFileURL(server).href);
  test(`React ${version}`, async (t) => {
    const tab = await open(page, version);
    t.after(() => tab.close());
    await t.test("it is this React", () => assert.match(onServer.version, new RegExp(`^${version}\\.`)));
    await t.test("a server knows nothing and begins nothing", () => onServer.rendersNothingKnown());
    for (const name of await tab.evaluate(() => globalThis.names())) {
      await t.test(name, { timeout: TIMEOUT_MS }, async () => {
        tab.errors.length = 0;
        try {
          await tab.evaluate(([name, url]) => globalThis.run(name, url), [name, lab.url]);
          assert.deepEqual(tab.errors, [], "nothing is thrown that nobody catches");
        } catch (error) {
          hasFailed = true;
          throw error;
        }
      });
    }
  });
}

async function bundle(entry, version, alias, platform = "browser") {
  const outfile = join(pages, `${version}-${entry.replace(".ts", platform === "node" ? ".mjs" : ".js")}`);
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
      banner: { js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);' },
    }),
    logLevel: "warning",
  });
  return outfile;
}

async function open(script, version) {
  const name = `${version}.html`;
  const module = script.slice(pages.length + 1);
  const globals = `import * as page from "./${module}"; Object.assign(globalThis, page);`;
  const head = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">';
  await writeFile(join(pages, name), `${head}<script type="module">${globals}</script>`);
  const tab = await browser.newPage();
  tab.errors = [];
  tab.on("pageerror", (error) => tab.errors.push(String(error)));
  await tab.goto(`${lab.url}/page/${name}`);
  await tab.waitForFunction(() => globalThis.run);
  return tab;
}
