"""The declared dependencies against what the code imports, and against the locks of the image."""

import ast
import datetime
import importlib.util
import json
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support import locks

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = {
    canonicalize_name(requirement.name): requirement
    for requirement in map(Requirement, PROJECT["dependencies"])
}
OPTIONAL = {
    canonicalize_name(Requirement(text).name)
    for extra in PROJECT["optional-dependencies"].values()
    for text in extra
}
DOCKER = ROOT / "deploy" / "docker"
NOT_IMPORTED = {
    "httptools": "uvicorn imports it for the connections of gateway/celery_gateway/http/uvicorn_direct/",
    "uvloop": "uvicorn takes it as its event loop where it is installed",
}
"""Dependencies that only others import, with the reason."""
CAPPED = {"aio-pika", "aiormq", "pamqp", "uvicorn", "websockets"}
"""Packages whose internals are relied on: a new version may change them."""


NEWER_STANDARD_LIBRARY = {"compression"}  # from Python 3.14 on
"""Modules of the standard library that this Python may not have."""


def imported() -> dict[str, set[str]]:
    """The modules that gateway/ imports, but for the standard library, each with the files that do."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names | NEWER_STANDARD_LIBRARY | {"celery_gateway"}:
                    found.setdefault(top, set()).add(str(path.relative_to(ROOT)))
    return found


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    distributions = metadata.packages_distributions()
    needed = set()
    for module, files in imported().items():
        names = {canonicalize_name(name) for name in distributions[module]}
        declared = REQUIREMENTS.keys() | OPTIONAL
        assert names & declared, f"{module} is imported by {sorted(files)} and not declared"
        needed |= names & REQUIREMENTS.keys()
    assert needed | NOT_IMPORTED.keys() == REQUIREMENTS.keys()


def test_each_dependency_has_a_lower_bound_and_those_whose_internals_are_used_an_upper_one() -> None:
    for name, requirement in REQUIREMENTS.items():
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == ({">=", "<"} if name in CAPPED else {">="}), requirement


def test_each_dependency_and_its_bounds_have_a_reason_in_the_docs() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text()
    cells = [cell for row in re.findall(r"(?m)^\| ([^|]+) \|", text) for cell in row.split(",")]
    rows = {canonicalize_name(cell.strip()) for cell in cells}
    assert REQUIREMENTS.keys() <= rows


def script(name: str) -> Any:
    """A module of .ci/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lowest_versions_are_those_of_the_bounds() -> None:
    lowest = {canonicalize_name(name): version for name, version in script("lowest").lowest().items()}
    assert lowest.keys() == REQUIREMENTS.keys() | OPTIONAL
    bounded = [Requirement(text) for extra in PROJECT["optional-dependencies"].values() for text in extra]
    for requirement in [*REQUIREMENTS.values(), *bounded]:
        version = lowest[canonicalize_name(requirement.name)]
        assert Version(version) in requirement.specifier
        assert not requirement.specifier or f">={version}" in str(requirement.specifier)


def test_the_installed_versions_are_allowed() -> None:
    for name, requirement in REQUIREMENTS.items():
        if requirement.marker is None or requirement.marker.evaluate():
            assert Version(metadata.version(name)) in requirement.specifier, requirement


def lock_of(extra: str | None = None) -> dict[str, locks.Pin]:
    """The lock of an extra. Each image has the extra `jwt`."""
    return locks.read(DOCKER / ("constraints.txt" if extra in (None, "jwt") else f"constraints-{extra}.txt"))


LOCKS = sorted(path.name for path in DOCKER.glob("*.txt"))
NOT_IN_THE_IMAGE = {"top"}
"""Extras of commands that are run where the user is; the image runs the gateway."""
EXTRAS = [None, *sorted(PROJECT["optional-dependencies"].keys() - NOT_IN_THE_IMAGE)]


@pytest.mark.parametrize("name", LOCKS)
def test_each_version_of_a_lock_has_its_hashes(name: str) -> None:
    for package, pin in locks.read(DOCKER / name).items():
        assert pin.hashes, f"{package} has no hash: run make constraints"
        assert all(locks.HASH.fullmatch(each) for each in pin.hashes), package
    # No other option: one could make pip look for packages elsewhere.
    options = [line for line in (DOCKER / name).read_text().splitlines() if line.lstrip().startswith("-")]
    assert all(line.lstrip().startswith("--hash=") for line in options)


def test_compiled_packages_are_locked_for_more_than_one_platform() -> None:
    """A wheel for each Python and platform: a lock made of one machine's wheel has one hash or two."""
    for name in ("uvloop", "httptools", "msgspec", "msgpack", "multidict", "propcache", "yarl"):
        assert len(lock_of()[name].hashes) > 20, name


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_lock_has_versions_that_are_allowed(extra: str | None) -> None:
    lock = lock_of(extra)
    for text in PROJECT["dependencies"] + (PROJECT["optional-dependencies"][extra] if extra else []):
        requirement = Requirement(text)
        assert lock[canonicalize_name(requirement.name)].version in requirement.specifier, (
            f"{requirement}: run make constraints"
        )
    for name, pin in lock_of().items():
        assert lock[name].version == pin.version, f"{name} differs between the locks: run make constraints"


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_lock_has_all_that_the_image_installs(extra: str | None) -> None:
    """Followed from package to package, where the locked version is the one that is installed here."""
    lock = lock_of(extra)
    optional = PROJECT["optional-dependencies"][extra] if extra else []
    assert follow(lock, PROJECT["dependencies"] + optional) >= 10


def test_the_lock_of_the_build_has_all_that_the_build_needs() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert follow(locks.read(DOCKER / "build.txt"), build) >= 1


def follow(lock: dict[str, locks.Pin], requirements: list[str]) -> int:
    """Return of how many packages the requirements were looked up."""
    left = [*map(Requirement, requirements)]
    seen: set[tuple[str, frozenset[str]]] = set()
    followed = 0
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if requirement.marker is not None and not any(
            requirement.marker.evaluate({"extra": each}) for each in extras
        ):
            continue
        if (name, frozenset(extras)) in seen:
            continue
        seen.add((name, frozenset(extras)))
        assert name in lock, f"{name} is not locked: run make constraints"
        assert lock[name].version in requirement.specifier, f"{requirement}: run make constraints"
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if Version(installed) != lock[name].version:
            continue
        followed += 1
        for text in metadata.requires(name) or ():
            inner = Requirement(text)
            if inner.marker is None or any(inner.marker.evaluate({"extra": each}) for each in extras):
                left.append(inner)
    return followed


def test_what_is_accepted_by_the_audit_ends() -> None:
    audit = script("audit")
    day = datetime.date(2026, 11, 28)
    text = "# why\n\nGHSA-a 2026-11-28 not used\nGHSA-b 2026-11-27 not used\n"
    assert audit.accepted(text, day) == ["GHSA-a"]
    for line in ("GHSA-a", "GHSA-a 2026-11-28", "GHSA-a someday not used"):
        with pytest.raises(ValueError):
            audit.accepted(line, day)
    audit.accepted(audit.ACCEPTED.read_text(), day)
    for command, folder in audit.commands(["GHSA-a"]):
        assert folder.is_dir() and command[0] in ("pip-audit", "npm")
        if command[0] == "pip-audit":
            assert (ROOT / command[-1]).exists() and "GHSA-a" in command
    covered = locks.read(DOCKER / audit.LOCKS[0]).keys() | locks.read(DOCKER / audit.LOCKS[1]).keys()
    assert set().union(*(locks.read(DOCKER / name) for name in LOCKS)) == covered


def test_only_accepted_vulnerabilities_of_npm_packages_are_ignored() -> None:
    findings = script("audit").npm_findings
    cause = {"name": "ws", "range": "<8", "severity": "high", "title": "a flaw", "url": "https://x/GHSA-a"}
    low = cause | {"severity": "low", "url": "https://x/GHSA-b"}
    report = json.dumps(
        {
            "vulnerabilities": {
                "ws": {"via": [cause, low]},
                "server": {"via": ["ws"]},
                "other": {"via": [cause]},
            }
        }
    )
    assert list(findings(report, "high", [])) == ["ws <8: high: a flaw (GHSA-a)"]
    assert len(list(findings(report, "low", []))) == 2
    assert list(findings(report, "high", ["GHSA-a"])) == []
    assert len(list(findings(report, "low", ["GHSA-a"]))) == 1
    assert list(findings('{"vulnerabilities": {}}', "low", [])) == []
    for refused in ("", '{"message": "not reachable"}', "[]"):
        with pytest.raises(ValueError, match="no report"):
            list(findings(refused, "low", []))


def test_every_lock_of_npm_packages_is_audited() -> None:
    audited = {folder for command, folder in script("audit").commands([]) if command[0] == "npm"}
    locked = {
        path.parent
        for path in ROOT.glob("[!.]*/**/package-lock.json")
        if "node_modules" not in path.parts and "build" not in path.parts
    }
    assert locked == audited


def test_the_audit_and_the_list_of_parts_are_in_ci_and_not_in_the_run_without_a_network() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    run = (ROOT / ".ci" / "run").read_text()
    for target in ("audit", "sbom"):
        assert f"make {target}" in workflow and f"make {target}" not in run
