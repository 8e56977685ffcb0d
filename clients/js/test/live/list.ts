/** The one list of tests, for Node and for browsers. */
import { browser } from "./browser.js";
import { events } from "./events.js";
import { lists } from "./lists.js";
import { outages } from "./outages.js";
import { state } from "./state.js";
import { access } from "./tokens.js";
import { type Surroundings, Trial } from "./trial.js";

/** For tests that need more than one page. */
export * as library from "./library.js";

/** Ends a test that hangs. A slow machine needs a minute for the longest one. */
const MOST_MS = 300_000;

export interface Test {
  readonly name: string;
  /** Where it is run, such as `node sse`; everywhere if it does not say. */
  readonly runs?: readonly string[] | undefined;
  /** It restarts the gateway or the broker, or fills the history, so it has the second lab and runs alone there. */
  readonly isAlone?: boolean;
  /** It waits for most of its time, so it is begun early. */
  readonly isLong?: boolean;
  /** In a browser it has a page of its own: from the lab, or beside a gateway, from a door of its own. `auth`: beside the
   * gateway with authentication. */
  readonly page?: "lab" | "door" | "auth";
  run(t: Trial): Promise<void>;
}

const list: readonly Test[] = [...outages, ...state, ...lists, ...events, ...access, ...browser];
/** What is known of tasks does not depend on how its events come, so one run is left out unless all is to be tried. */
const UNUSUAL = { run: "chromium websocket", tests: state };

/** The tests of a run, without what they do: for whoever starts them one by one. */
export function tests(run: string, isThorough: boolean): Omit<Test, "run">[] {
  return list
    .filter((test) => test.runs === undefined || test.runs.includes(run))
    .filter((test) => isThorough || run !== UNUSUAL.run || test.runs !== undefined || !UNUSUAL.tests.includes(test))
    .map(({ name, isAlone = false, isLong = false, page }) => ({ name, isAlone, isLong, ...(page && { page }) }));
}

/** Runs the test of this name; rejects if it fails. */
export async function run(name: string, surroundings: Surroundings): Promise<void> {
  const test = list.find((test) => test.name === name);
  if (test === undefined) throw new RangeError(`there is no test ${name}`);
  const t = new Trial(surroundings);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done within ${MOST_MS} ms`)), MOST_MS);
  });
  try {
    await Promise.race([test.run(t), late]);
  } finally {
    clearTimeout(timer);
    await t.end();
  }
}
