// Fails if what a page loads of this package is larger than promised: minified, gzipped, without what it imports.
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

/** Of what `import "@celery-gateway/client"` loads; the hooks come on top. */
const LIMIT_BYTES = 7_000;

/** How long a module is that exports all of these, minified and gzipped. */
async function sizeBytes(...files) {
  const { outputFiles } = await build({
    stdin: {
      contents: files.map((file) => `export * from "./src/${file}.ts";`).join("\n"),
      resolveDir: import.meta.dirname,
    },
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    external: ["eventsource-parser", "react"],
    write: false,
  });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

const [coreBytes, allBytes] = await Promise.all([sizeBytes("index"), sizeBytes("index", "react")]);
console.log(`${coreBytes} of ${LIMIT_BYTES} bytes, minified and gzipped; ${allBytes} with the hooks`);
process.exitCode = coreBytes < LIMIT_BYTES ? 0 : 1;
