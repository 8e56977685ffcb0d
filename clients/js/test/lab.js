// What tests start: the lab (tests/support/client_lab.py: broker, worker, gateway) and a browser.
import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const PROJECT = fileURLToPath(new URL("../../..", import.meta.url));
const BROWSERS = ["chromium", "chromium-browser", "google-chrome"];
const BROWSER_FLAGS = [
  ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
  ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
];

/**
 * Starts the lab with the Python of the environment's PYTHON, of the project's .venv, or python3. It serves the
 * files of the folder `pages`. It ends when our end of its standard input is closed, however we end.
 */
export async function startLab(pages) {
  const venv = join(PROJECT, ".venv", "bin", "python");
  const python = process.env.PYTHON ?? (isExecutable(venv) ? venv : "python3");
  const child = spawn(python, ["-m", "tests.support.client_lab", "--pages", pages], {
    cwd: PROJECT,
    stdio: ["pipe", "pipe", "inherit"],
    detached: true, // Ctrl-C is for us; the lab ends with its standard input
  });
  const ended = new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", resolve);
  });
  for await (const line of createInterface({ input: child.stdout })) {
    const { url } = JSON.parse(line);
    return {
      url,
      logs: async () => (await fetch(`${url}/logs`)).text(),
      /** Gives its exit code. */
      end() {
        child.stdin.end();
        return ended;
      },
    };
  }
  throw new Error(`the lab did not start: ${python} ended with ${await ended}`);
}

/**
 * Gives what each promise gives, or undefined, and the error of the first that was rejected: what has started can be ended,
 * and would otherwise keep the tests from ending.
 */
export async function started(promises) {
  const results = await Promise.allSettled(promises);
  return { values: results.map(({ value }) => value), error: results.find(({ reason }) => reason)?.reason };
}

/**
 * Does the work of a test; where it fails, as often again as RERUNS says: CI's machine is shared and may be slow. The log has
 * each failure.
 */
export async function attempt(t, job) {
  for (let left = Number(process.env.RERUNS ?? 0); left > 0; left -= 1) {
    try {
      return await job();
    } catch (error) {
      t.diagnostic(`RERUN of ${t.name}: ${error.stack}`);
    }
  }
  return job();
}

export function startBrowser() {
  const folders = (process.env.PATH ?? "").split(delimiter);
  const files = BROWSERS.flatMap((name) => folders.map((folder) => join(folder, name)));
  const executablePath = files.find(isExecutable);
  if (executablePath === undefined) throw new Error(`none of ${BROWSERS.join(", ")} is in PATH`);
  return chromium.launch({ executablePath, args: BROWSER_FLAGS });
}

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
