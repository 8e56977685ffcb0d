/**
 * Build the dashboard into the Python package, or with `--check` compare a fresh build with the committed one.
 *
 * The build is deterministic: names are fixed, and the bytes depend on the sources and the lock files only. The gateway
 * puts a hash of all files into their URLs.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { build } from "esbuild";
import { minify } from "terser";

const here = import.meta.dirname;
const OUTPUT = join(here, "../../gateway/celery_gateway/http/dashboard_files");
/** The packages whose code is in the output. Their licenses require that the notice goes with it. */
const PACKAGES = ["node_modules/preact", "../js/node_modules/eventsource-parser"];

/** Return the built files by name, as bytes, and what each of them imports at once. */
export async function built() {
  const { outputFiles, metafile } = await build({
    absWorkingDir: here,
    entryPoints: ["src/app.tsx", "src/styles/app.css"],
    outdir: OUTPUT,
    entryNames: "[name]",
    chunkNames: "[name]-[hash]",
    bundle: true,
    splitting: true,
    format: "esm",
    target: ["es2022", "chrome111", "firefox113", "safari16.4"],
    jsx: "automatic",
    jsxImportSource: "preact",
    minify: true,
    charset: "utf8",
    legalComments: "none",
    metafile: true,
    write: false,
    logLevel: "warning",
    plugins: [{ name: "core", setup: addCore }],
  });
  const outputs = Object.fromEntries(Object.entries(metafile.outputs).map(([path, output]) => [basename(path), output]));
  const names = fixedNames(outputs);
  const renamed = (text) => text.replace(/[\w-]+-[0-9A-Z]{8}\.js/g, (name) => names.get(name) ?? name);
  const files = new Map();
  for (const { path, text } of outputFiles) {
    files.set(names.get(basename(path)), Buffer.from(path.endsWith(".js") ? await smaller(renamed(text)) : text));
  }
  if (files.size !== outputFiles.length) throw new Error("two output files have the same name");
  files.set("index.html", readFileSync(join(here, "src/index.html")));
  files.set("licenses.txt", Buffer.from(PACKAGES.map(notice).join("\n")));
  return { files, imports: (name) => importsOf(outputs, names, name) };
}

/** Return the code of a module, smaller than esbuild makes it. */
async function smaller(code) {
  const options = { module: true, ecma: 2022, compress: { passes: 3 }, format: { comments: false } };
  return (await minify(code, options)).code;
}

/** Import the core in each module that begins a file, so that all of the core becomes one file. */
function addCore({ onLoad }) {
  onLoad({ filter: /\/src\/(app|views\/[\w-]+|components\/(login|key-sheet|watch-it))\.tsx$/ }, ({ path }) => {
    const core = path.endsWith("/app.tsx") ? "./core.ts" : "../core.ts";
    return { contents: `import "${core}";${readFileSync(path, "utf8")}`, loader: "tsx" };
  });
}

/** Return the names without hashes: what views share beside the core is numbered. */
function fixedNames(outputs) {
  const chunks = Object.keys(outputs).filter((name) => name.startsWith("chunk-"));
  const inputs = (name) => Object.keys(outputs[name].inputs);
  const core = chunks.find((name) => inputs(name).includes("node_modules/preact/dist/preact.mjs"));
  const others = chunks.filter((name) => name !== core).sort((a, b) => (String(inputs(a).sort()) < String(inputs(b).sort()) ? -1 : 1));
  return new Map([
    ...Object.keys(outputs).map((name) => [name, name.replace(/-[0-9A-Z]{8}\.js$/, ".js")]),
    [core, "core.js"],
    ...others.map((name, index) => [name, `shared-${index + 1}.js`]),
  ]);
}

/** Return the files that a file imports at once. */
function importsOf(outputs, names, name) {
  const original = [...names].find(([, fixed]) => fixed === name)[0];
  const imported = outputs[original].imports.filter(({ kind }) => kind === "import-statement");
  return imported.map(({ path }) => names.get(basename(path)));
}

/** Return the name, version and license of a package. */
function notice(folder) {
  const { name, version } = JSON.parse(readFileSync(join(here, folder, "package.json"), "utf8"));
  const license = readdirSync(join(here, folder)).find((file) => /^licen[cs]e/i.test(file));
  return `${name} ${version}\n\n${readFileSync(join(here, folder, license), "utf8").trim()}\n`;
}

/** Return how the committed files differ from a fresh build. */
function differences(files) {
  const committed = readdirSync(OUTPUT);
  return [
    ...committed.filter((name) => !files.has(name)).map((name) => `${name} is not built any more`),
    ...[...files].flatMap(([name, bytes]) => {
      if (!committed.includes(name)) return [`${name} is missing`];
      return bytes.equals(readFileSync(join(OUTPUT, name))) ? [] : [`${name} differs`];
    }),
  ];
}

if (import.meta.filename === process.argv[1]) {
  const { files } = await built();
  if (process.argv.includes("--check")) {
    const found = differences(files);
    for (const line of found) console.error(line);
    if (found.length) console.error("The committed build of the dashboard is not that of its sources: run make dashboard");
    process.exitCode = found.length ? 1 : 0;
  } else {
    rmSync(OUTPUT, { recursive: true, force: true });
    mkdirSync(OUTPUT);
    for (const [name, bytes] of files) writeFileSync(join(OUTPUT, name), bytes);
  }
}
