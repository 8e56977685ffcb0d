/** The package as npm would publish it, and as somebody has it who installs it. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { publint } from "publint";
import { formatMessage } from "publint/utils";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const NAME = "@celery-gateway/client";
/** What a consumer needs beside the package; taken from here, so that nothing is downloaded. */
const BORROWED = ["@types/node", "@types/prop-types", "@types/react", "csstype", "eventsource-parser", "react", "undici-types"];
/** What is packed, with what builds it: in a copy, since packing removes `dist`, which other tests run at the same time. */
const PACKED = ["package.json", "README.md", "LICENSE", "src", "tsconfig.json", "tsconfig.build.json"];
const TIMEOUT_MS = 60_000;

let folder;
let consumer;
let pack;
let tarball;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "package-"));
  const copy = join(folder, "copy");
  for (const name of PACKED) await cp(join(ROOT, name), join(copy, name), { recursive: true });
  await cp(join(ROOT, "LICENSE"), join(copy, "dist", "stale.js")); // is removed
  await symlink(join(ROOT, "node_modules"), join(copy, "node_modules"));
  [pack] = JSON.parse(await run(copy, "npm", "pack", "--json", "--pack-destination", folder));
  tarball = join(folder, pack.filename);
  consumer = join(folder, "consumer");
  await cp(join(ROOT, "test/package/consumer"), consumer, { recursive: true });
  await install(consumer, BORROWED);
  await cp(join(ROOT, "node_modules/@types/react18"), join(consumer, "react18"), { recursive: true });
});

after(() => rm(folder, { recursive: true, force: true }));

test("holds what is meant, and nothing else", async () => {
  const sources = (await readdir(join(ROOT, "src"))).map((file) => file.replace(/\.ts$/, ""));
  const built = sources.flatMap((module) => [".d.ts", ".js", ".js.map"].map((suffix) => `dist/${module}${suffix}`));
  const packed = pack.files.map((file) => file.path);
  assert.deepEqual(packed.sort(), ["LICENSE", "README.md", "package.json", ...built].sort());
});

test("comes with the project's licence", async () => {
  assert.equal(await text("LICENSE"), await readFile(join(ROOT, "../../LICENSE"), "utf8"));
});

test("tells nothing of the machine it was built on, and points to no file outside", async () => {
  for (const { path } of pack.files) {
    const content = await text(path);
    assert.doesNotMatch(content, /file:\/\/|\/home\/|\/Users\/|[A-Z]:\\Users/, path);
    for (const place of [ROOT, folder]) assert.ok(!content.includes(place), `${path} names ${place}`);
    if (path === "README.md") continue;
    for (const [, to] of content.matchAll(/(?:from|import)\s*\(?"(\.[^"]*)"/g)) {
      assert.match(to, /^\.\/[a-z-]+\.js$/, `${path} imports ${to}`);
    }
  }
});

test("each module has a source map with its source", async () => {
  for (const { path } of pack.files.filter(({ path }) => path.endsWith(".js"))) {
    const map = /^\/\/# sourceMappingURL=(.*)$/m.exec(await text(path))[1];
    assert.equal(`dist/${map}`, `${path}.map`);
    const { sources, sourcesContent } = JSON.parse(await text(`dist/${map}`));
    assert.deepEqual(sources, [`../src/${path.slice("dist/".length, -".js".length)}.ts`]);
    assert.equal(sourcesContent[0], await readFile(join(ROOT, "dist", sources[0]), "utf8"));
  }
});

test("the hooks are for client components: a server component may import them", { timeout: TIMEOUT_MS }, async () => {
  // A directive counts as the first statement only.
  assert.match(await text("dist/react.js"), /^"use client";\n/);
  const script = `
    const { createContext } = await import("react");
    if (createContext) throw new Error("this is not the react of server components");
    console.log(Object.keys(await import("${NAME}/react")).length)`;
  const options = ["--conditions=react-server", "--input-type=module", "-e", script];
  assert.equal(await run(consumer, process.execPath, ...options), "8\n");
});

test("the README has the size of the package", async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ["size.mjs"], { cwd: ROOT });
  const [core, , own, parser, hooks, tabs] = [...stdout.matchAll(/\d+/g)].map(([digits]) => Number(digits));
  assert.equal(core, own + parser);
  const readme = (await text("README.md")).replaceAll("\n", " ");
  const found = /size is ([\d.]+) kB, minified and gzipped; ([\d.]+) kB .* React hooks add ([\d.]+) kB, .* adds ([\d.]+) kB/.exec(readme);
  for (const [index, bytes] of [core, parser, hooks, tabs].entries()) {
    const promised = 1_000 * Number(found[index + 1]);
    assert.ok(bytes <= promised && bytes > promised - 500, `${bytes} bytes, ${promised} in the README`);
  }
});

test("neither the lock file nor the settings name a registry", async () => {
  for (const file of ["package-lock.json", ".npmrc"]) {
    assert.doesNotMatch(
      await readFile(join(ROOT, file), "utf8"),
      /"resolved"|registry[./]|registry *= *http/,
      file,
    );
  }
});

test("publint finds nothing", async () => {
  const bytes = await readFile(tarball);
  const data = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  const { messages, pkg } = await publint({ pack: { tarball: data }, strict: true });
  assert.deepEqual(
    messages.map((message) => formatMessage(message, pkg, { color: false })),
    [],
  );
});

for (const [title, options] of [
  ["bundler", { module: "ESNext", moduleResolution: "bundler" }],
  ["nodenext", { module: "NodeNext", moduleResolution: "NodeNext" }],
  ["Node without the DOM", { module: "NodeNext", lib: ["ES2022"], types: ["node"] }],
  ["React 18", { module: "ESNext", moduleResolution: "bundler", paths: { react: ["./react18"], "react/*": ["./react18/*"] } }],
]) {
  test(`the types are right, and wrong uses are errors: ${title}`, { timeout: TIMEOUT_MS }, async () => {
    const file = join(consumer, `tsconfig.${title.replaceAll(" ", "-")}.json`);
    await writeFile(file, JSON.stringify({ extends: "./tsconfig.json", compilerOptions: options }));
    await run(consumer, process.execPath, join(ROOT, "node_modules/typescript/bin/tsc"), "-p", file);
  });
}

test("runs in Node from a fresh folder, and lets it end", { timeout: TIMEOUT_MS }, async () => {
  const bare = join(folder, "bare");
  await cp(join(ROOT, "test/package/bare"), bare, { recursive: true });
  await install(bare, ["eventsource-parser"]);
  const told = JSON.parse(await run(bare, process.execPath, "main.mjs"));
  const { version } = JSON.parse(await text("package.json"));
  assert.deepEqual(told, {
    exports: ["GatewayError", "TaskError", "connect", "escape", "login", "logout"],
    event: "task-succeeded",
    status: ["connecting", "open", "closed"],
    version,
    react: "ERR_MODULE_NOT_FOUND",
  });
});

test("the hooks run in Node, where react is installed", { timeout: TIMEOUT_MS }, async () => {
  const script = `console.log(JSON.stringify(Object.keys(await import("${NAME}/react")).sort()))`;
  const told = JSON.parse(await run(consumer, process.execPath, "--input-type=module", "-e", script));
  assert.deepEqual(told, [
    "GatewayProvider",
    ...["useEvents", "useGateway", "useStatus", "useTask", "useWatch", "useWorkers", "useWorkflow"],
  ]);
});

/** Installs the tarball as npm does, with what it needs linked to what is installed here. */
async function install(into, borrowed) {
  const overrides = Object.fromEntries(
    borrowed.map((name) => [name, `file:${join(ROOT, "node_modules", name)}`]),
  );
  const dependencies = { [NAME]: `file:${tarball}`, ...overrides };
  const manifest = { private: true, type: "module", dependencies, overrides };
  await writeFile(join(into, "package.json"), JSON.stringify(manifest));
  await run(into, "npm", "install", "--offline", "--no-audit", "--no-fund", "--no-package-lock");
}

function text(path) {
  return readFile(join(consumer, "node_modules", NAME, path), "utf8");
}

/** What a program says; fails with all of it where the program does. */
async function run(cwd, file, ...args) {
  const env = { ...process.env, NODE_OPTIONS: "", NODE_TEST_CONTEXT: undefined };
  try {
    return (await promisify(execFile)(file, args, { cwd, env, timeout: TIMEOUT_MS })).stdout;
  } catch (error) {
    throw new Error(`${file} ${args.join(" ")}: ${error.message}\n${error.stdout}\n${error.stderr}`);
  }
}
