/** What a page of tests is asked for. */
import { Trial } from "../live/trial.js";
import { hooks } from "./hooks.js";

export function tests(): { name: string; isAlone: boolean }[] {
  return hooks.map(({ name, isAlone = false }) => ({ name, isAlone }));
}

/** Runs the test of this name; rejects if it fails. */
export async function run(name: string, labUrl: string): Promise<void> {
  const trial = new Trial({ name: "chromium", transport: "sse", labUrl });
  try {
    await hooks.find((test) => test.name === name)!.run(trial);
  } finally {
    await trial.end();
  }
}
