import { accessSync, constants } from "node:fs";

/** The Python of the environment's PYTHON, of the project's .venv, or python3. */
export function python(): string {
  if (process.env["PYTHON"]) return process.env["PYTHON"];
  const venv = "../../.venv/bin/python";
  try {
    accessSync(venv, constants.X_OK);
    return venv;
  } catch {
    return "python3";
  }
}
