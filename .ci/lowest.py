"""Print the lowest version of each dependency that pyproject.toml allows, as constraints for pip.

Only direct dependencies are listed: pip chooses the newest versions of indirect ones.
"""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*(?:>=\s*(?P<version>[0-9][^,;\s]*))?")


def lowest() -> dict[str, str]:
    """Return the lowest version of each dependency by name, extras included.

    Raises:
        ValueError: a dependency has no lower bound.
    """
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    versions: dict[str, str] = {}
    for requirement in sum(project["optional-dependencies"].values(), project["dependencies"]):
        found = _REQUIREMENT.match(requirement)
        assert found is not None  # each begins with a name
        name, version = found.groups()
        if version is not None:
            versions[name] = version
        elif name not in versions:  # an extra such as kombu[redis] has the bound of kombu
            raise ValueError(f"no lower bound in {requirement!r}: write it as name>=version")
    return versions


if __name__ == "__main__":
    for name, version in lowest().items():
        print(f"{name}=={version}")
