"""Check the shipped packages for known vulnerabilities, with the registries of PyPI and npm (`make audit`).

The locks of the image and the dependency of the JavaScript client must have none. npm packages that only
build or test fail from the severity `high` on. Vulnerabilities in `.ci/audit-accepted.txt` are ignored until
their last day.
"""

import datetime
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ACCEPTED = ROOT / ".ci" / "audit-accepted.txt"
LOCKS = ("constraints-redis.txt", "build.txt")  # the first has all of constraints.txt
SEVERITIES = ("info", "low", "moderate", "high", "critical")


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
    npm = ["npm", "audit", "--package-lock-only", "--json"]
    client, readers = ROOT / "clients" / "js", ROOT / "tests" / "readers"
    dashboard = ROOT / "clients" / "dashboard"  # its build is part of the Python package
    audited = (client, readers, readers / "dev-servers", dashboard)
    return [
        *(([*pip, "--requirement", f"deploy/docker/{lock}"], ROOT) for lock in LOCKS),
        ([*npm, "--omit=dev", "--audit-level=low"], client),
        *(([*npm, "--audit-level=high"], folder) for folder in audited),
    ]


def npm_findings(report: str, level: str, ids: list[str]) -> Iterator[str]:
    """Yield one line for each vulnerability that is severe enough and not accepted.

    `npm audit` cannot ignore single vulnerabilities, so its report is read here.

    Args:
        report: the output of `npm audit --json`.
        level: the lowest severity that counts.
        ids: the accepted ids, such as GHSA-….

    Raises:
        ValueError: the output is not a report, for example because the registry was not reachable.
    """
    try:
        packages = json.loads(report)["vulnerabilities"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"npm audit returned no report: {report.strip()[:300] or 'no output'}") from None
    counted = SEVERITIES[SEVERITIES.index(level) :]
    seen = set()
    for package in packages.values():
        for cause in package["via"]:  # a text is the name of another package in the report
            if isinstance(cause, dict) and cause["url"] not in seen:
                seen.add(cause["url"])
                name = cause["url"].rpartition("/")[2]
                if cause["severity"] in counted and name not in ids:
                    yield f"{cause['name']} {cause['range']}: {cause['severity']}: {cause['title']} ({name})"


def has_findings(command: list[str], folder: Path, ids: list[str]) -> bool:
    """Run a command, and print its findings. Returns whether there are any, or it failed."""
    if command[0] != "npm":
        return subprocess.run(command, cwd=folder, check=False).returncode != 0
    level = next(part.partition("=")[2] for part in command if part.startswith("--audit-level="))
    done = subprocess.run(command, cwd=folder, check=False, stdout=subprocess.PIPE, text=True)
    try:
        findings = list(npm_findings(done.stdout, level, ids))
    except ValueError as error:
        findings = [str(error)]
    print(*findings or ["No known vulnerabilities that count"], sep="\n", flush=True)
    return bool(findings)


if __name__ == "__main__":
    failed = False
    today = datetime.datetime.now(datetime.UTC).date()
    known = accepted(ACCEPTED.read_text(encoding="utf-8"), today)
    for command, folder in commands(known):
        print(f"{folder.relative_to(ROOT)}$", *command, flush=True)
        failed |= has_findings(command, folder, known)
    sys.exit(failed)
