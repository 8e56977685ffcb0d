/** Fail if the dashboard is larger than its budget. All sizes are gzipped bytes. */
import { gzipSync } from "node:zlib";
import { built } from "./build.mjs";

/** What the first view loads, and all files together. */
const LIMITS = { script: 41_000, style: 6_000, all: 87_500 };
const FIRST_VIEW = "overview.js";

const { files, imports } = await built();
const size = (name) => gzipSync(files.get(name), { level: 9 }).length;

/** Return a file and all that it imports at once. */
function withImports(name, found = new Set()) {
  if (found.has(name)) return found;
  found.add(name);
  for (const imported of imports(name)) withImports(imported, found);
  return found;
}

const first = new Set([...withImports("app.js"), ...withImports(FIRST_VIEW)]);
const sum = (names) => [...names].reduce((total, name) => total + size(name), 0);
const sizes = { script: sum(first), style: size("app.css"), all: sum([...files.keys()].filter((name) => /\.(js|css)$/.test(name))) };
for (const name of [...files.keys()].sort()) console.log(`${String(size(name)).padStart(6)} ${name}`);
for (const [what, limit] of Object.entries(LIMITS)) console.log(`${sizes[what]} of ${limit} bytes: ${what}`);
console.log(`${first.size + 2} requests for the first view`);
process.exitCode = Object.entries(LIMITS).every(([what, limit]) => sizes[what] <= limit) ? 0 : 1;
