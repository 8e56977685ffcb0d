"""The Python interpreters that this machine has."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13")


def found() -> dict[str, str]:
    """Interpreters by version, of VERSIONS: ours, those in the PATH, and pyenv's own."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    pythons = {ours: sys.executable}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        candidates = [shutil.which(f"python{version}")]
        candidates += [
            str(path)
            for path in pyenv.glob(f"{version}*/bin/python{version}")
            if re.match(r"[\d.]+$", path.parts[-3])
        ]
        for candidate in filter(None, candidates):
            if version not in pythons and _runs(candidate):
                pythons[version] = candidate
    return pythons


def _runs(python: str) -> bool:
    """A pyenv shim may be in the PATH and not run; Debian's may have no venv."""
    done = subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True, timeout=20)
    return done.returncode == 0
