// Fails if what a page loads is larger than the README promises: minified, gzipped, with the dependency.
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

/** 13.7 kB, as the README says. For `import "@celery-gateway/client"` with its dependency; the hooks and the sharing of tabs are extra. */
const LIMIT_BYTES = 13_700;

/** Return the size of a module that exports all of these, minified and gzipped. */
async function sizeBytes(files, external = ["react"]) {
  const { outputFiles } = await build({
    stdin: {
      contents: files.map((file) => `export * from "./src/${file}.ts";`).join("\n"),
      resolveDir: import.meta.dirname,
    },
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    external,
    write: false,
  });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

const [own, core, hooks, tabs] = await Promise.all([
  sizeBytes(["index"], ["react", "eventsource-parser"]),
  sizeBytes(["index"]),
  sizeBytes(["index", "react"]),
  sizeBytes(["index", "tabs"]),
]);
console.log(`${core} of ${LIMIT_BYTES} bytes, minified and gzipped: ${own} of the client, ${core - own} of eventsource-parser`);
console.log(`${hooks - core} more with /react, ${tabs - core} more with /tabs`);
process.exitCode = core < LIMIT_BYTES ? 0 : 1;
