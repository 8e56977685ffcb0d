// The recipes of the README for other frameworks: the code blocks that begin with a file name, compiled.
import { readFile, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { compile } from "svelte/compiler";
import { compileScript, parse } from "vue/compiler-sfc";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** How a page mounts a recipe, and how a server renders it; each in the terms of its framework. */
const ENTRIES = {
  vue: {
    page: `import { createApp, h, shallowReactive } from "vue";
      import Task from "./Task.vue";
      export function mount(element, props) {
        const current = shallowReactive(props);
        const app = createApp({ render: () => h(Task, current) });
        app.mount(element);
        return { set: (changed) => Object.assign(current, changed), unmount: () => app.unmount() };
      }`,
    server: `import { createSSRApp, h } from "vue";
      import { renderToString } from "vue/server-renderer";
      import Task from "./Task.vue";
      export const render = (props) => renderToString(createSSRApp({ render: () => h(Task, props) }));`,
  },
  svelte: {
    page: `import * as svelte from "svelte";
      import Task from "./Task.svelte";
      export function mount(element, props) {
        let mounted = svelte.mount(Task, { target: element, props });
        const unmount = () => svelte.unmount(mounted);
        const set = (changed) => (unmount(), (mounted = svelte.mount(Task, { target: element, props: { ...props, ...changed } })));
        return { set, unmount };
      }`,
    server: `import { render as renderSvelte } from "svelte/server";
      import Task from "./Task.svelte";
      export const render = async (props) => renderSvelte(Task, { props }).body;`,
  },
};
export const FRAMEWORKS = Object.keys(ENTRIES);

/** The code blocks of the README by their file names. */
export async function recipes() {
  const text = await readFile(join(ROOT, "README.md"), "utf8");
  const blocks = text.matchAll(/^```\w+\n(?:\/\/|<!--) (\S+\.\w+)(?: -->)?\n([^]*?)^```$/gm);
  return new Map([...blocks].map(([, name, code]) => [name, code]));
}

/** Builds a module that mounts (`page`) or renders (`server`) the recipe of a framework. Returns its file. */
export async function buildRecipe(framework, side, folder) {
  const files = await recipes();
  const sources = join(folder, `${framework}-sources`);
  await mkdir(sources, { recursive: true });
  for (const [name, code] of files) if (!name.includes("/")) await writeFile(join(sources, name), code);
  const isServer = side === "server";
  const outfile = join(folder, `${framework}-${side}.mjs`);
  const entry = `${ENTRIES[framework][side]}\nexport { connect } from ${JSON.stringify(join(ROOT, "dist/index.js"))};`;
  await build({
    stdin: { contents: entry, resolveDir: sources },
    outfile,
    bundle: true,
    format: "esm",
    target: "es2022",
    platform: isServer ? "node" : "browser",
    conditions: [isServer ? "node" : "browser", "module"],
    nodePaths: [join(ROOT, "node_modules")],
    define: { "process.env.NODE_ENV": '"development"' },
    plugins: [compiling(isServer)],
    logLevel: "warning",
    ...(isServer && {
      banner: { js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);' },
    }),
  });
  return outfile;
}

function compiling(isServer) {
  return {
    name: "recipes",
    setup({ onLoad }) {
      onLoad({ filter: /\.svelte$/ }, async ({ path }) => {
        const { js, warnings } = compile(await readFile(path, "utf8"), { filename: path, generate: isServer ? "server" : "client" });
        return { contents: js.code, warnings: warnings.map(({ message }) => ({ text: message })) };
      });
      onLoad({ filter: /\.vue$/ }, async ({ path }) => {
        const { descriptor, errors } = parse(await readFile(path, "utf8"), { filename: path });
        if (errors.length) return { errors: errors.map(({ message }) => ({ text: message })) };
        const { content } = compileScript(descriptor, { id: path, inlineTemplate: true, templateOptions: { ssr: isServer } });
        return { contents: content };
      });
    },
  };
}
