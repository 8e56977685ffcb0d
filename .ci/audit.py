"""Check the shipped packages for known vulnerabilities, with the registries of PyPI and npm (`make audit`).

The locks of the image and the dependency of the JavaScript client must have none. Those in
`.ci/audit-accepted.txt` are ignored until their last day. Packages that only build or test the client fail
from the severity `high` on.
"""

import datetime
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ACCEPTED = ROOT / ".ci" / "audit-accepted.txt"
LOCKS = ("constraints-redis.txt", "build.txt")  # the first has all of constraints.txt


def accepted(text: str, today: datetime.date) -> list[str]:
    """Return the ids that are accepted today.

    Raises:
        ValueError: a line has no id, last day and reason.
    """
    ids = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            parts = line.split(maxsplit=2)
            if len(parts) < 3:
                raise ValueError(f"invalid line {line!r} in {ACCEPTED.name}: write ID YYYY-MM-DD reason")
            if datetime.date.fromisoformat(parts[1]) >= today:
                ids.append(parts[0])
    return ids


def commands(ids: list[str]) -> list[tuple[list[str], Path]]:
    """Return the commands, each with its folder."""
    ignored = [part for each in ids for part in ("--ignore-vuln", each)]
    pip = ["pip-audit", "--strict", "--require-hashes", "--disable-pip", *ignored]
    npm = ["npm", "audit", "--package-lock-only"]
    client = ROOT / "clients" / "js"
    return [
        *(([*pip, "--requirement", f"deploy/docker/{lock}"], ROOT) for lock in LOCKS),
        ([*npm, "--omit=dev", "--audit-level=low"], client),
        ([*npm, "--audit-level=high"], client),
    ]


if __name__ == "__main__":
    failed = False
    today = datetime.datetime.now(datetime.UTC).date()
    for command, folder in commands(accepted(ACCEPTED.read_text(encoding="utf-8"), today)):
        print("$", *command, flush=True)
        failed |= subprocess.run(command, cwd=folder, check=False).returncode != 0
    sys.exit(failed)
