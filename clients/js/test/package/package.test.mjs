/** The package as npm would publish it, and as somebody has it who installs it. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
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
const BORROWED = ["@types/node", "@types/react", "csstype", "eventsource-parser", "react", "undici-types"];
const TIMEOUT_MS = 60_000;

let folder;
let consumer;
let pack;
let tarball;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "package-"));
  [pack] = JSON.parse(await run(ROOT, "npm", "pack", "--json", "--pack-destination", folder));
  tarball = join(folder, pack.filename);
  consumer = join(folder, "consumer");
  await cp(join(ROOT, "test/package/consumer"), consumer, { recursive: true });
  await install(consumer, BORROWED);
});

after(() => rm(folder, { recursive: true, force: true }));

test("holds what is meant, and nothing else", async () => {
  const sources = (await readdir(join(ROOT, "src"))).map((file) => file.replace(/\.ts$/, ""));
  const built = sources.flatMap((module) => [`dist/${module}.d.ts`, `dist/${module}.js`]);
  const packed = pack.files.map((file) => file.path);
  assert.deepEqual(packed.sort(), ["LICENSE", "README.md", "package.json", ...built].sort());
});

test("comes with the project's licence", async () => {
  assert.equal(await text("LICENSE"), await readFile(join(ROOT, "../../LICENSE"), "utf8"));
});

test("tells nothing of the machine it was built on, and points to no file outside", async () => {
  for (const { path } of pack.files) {
    const content = await text(path);
    assert.doesNotMatch(content, /sourceMappingURL|file:\/\/|\/home\/|\/Users\/|[A-Z]:\\Users/, path);
    assert.ok(!content.includes(ROOT), `${path} names ${ROOT}`);
    for (const [, to] of content.matchAll(/(?:from|import)\s*\(?"(\.[^"]*)"/g)) {
      assert.match(to, /^\.\/[a-z-]+\.js$/, `${path} imports ${to}`);
    }
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
    exports: ["GatewayError", "TaskError", "connect", "escape"],
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
    ...["useEvents", "useGateway", "useStatus", "useTask", "useWorkers", "useWorkflow"],
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
