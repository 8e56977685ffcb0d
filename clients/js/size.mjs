// Fails if what a page loads of this package is larger than promised: minified, gzipped, without what it imports.
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const LIMIT_BYTES = 6_000;

const { outputFiles } = await build({
  stdin: {
    contents: 'export * from "./src/index.ts"; export * from "./src/react.ts";',
    resolveDir: import.meta.dirname,
  },
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  external: ["eventsource-parser", "react"],
  write: false,
});
const sizeBytes = gzipSync(outputFiles[0].contents, { level: 9 }).length;
console.log(`${sizeBytes} bytes minified and gzipped, of ${LIMIT_BYTES} allowed`);
process.exitCode = sizeBytes < LIMIT_BYTES ? 0 : 1;
