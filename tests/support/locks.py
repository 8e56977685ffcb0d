"""Lock files: requirements with exact versions and hashes, as pip reads them."""

import re
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

HASH = re.compile(r"sha256:[0-9a-f]{64}")


class Pin(NamedTuple):
    """``vine==5.1.0 ; marker --hash=sha256:…``"""

    requirement: Requirement
    version: Version
    hashes: frozenset[str]


def read(path: Path) -> dict[str, Pin]:
    """Return the pins of a lock by canonical name.

    Raises:
        ValueError: a line is no requirement of one exact version.
    """
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    pins = {}
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        text, *hashes = line.split("--hash=")
        requirement = Requirement(text.strip())
        operators = [specifier.operator for specifier in requirement.specifier]
        if operators != ["=="] or requirement.url:
            raise ValueError(f"{path.name}: {text.strip()!r} is not one exact version")
        (specifier,) = requirement.specifier
        name = canonicalize_name(requirement.name)
        if name in pins:
            raise ValueError(f"{path.name}: {name} is there twice")
        pins[name] = Pin(requirement, Version(specifier.version), frozenset(map(str.strip, hashes)))
    return pins
