"""The JavaScript client of clients/js as its users have it: built."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "clients" / "js"


def built() -> Path:
    """The client's folder, with its packages and with `dist` no older than the sources."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, and the JavaScript client is not built without it")
    sources = [path.stat().st_mtime for path in (FOLDER / "src").iterdir()]
    index = FOLDER / "dist" / "index.js"
    if not (FOLDER / "node_modules").exists():
        npm(FOLDER, "ci", "--no-audit", "--no-fund")
    if not index.exists() or index.stat().st_mtime < max(sources):
        npm(FOLDER, "run", "build")
    return FOLDER


def npm(folder: Path, *args: str, **environment: str) -> None:
    """Runs npm in a folder; an AssertionError with what it printed when it fails."""
    done = subprocess.run(
        ["npm", *args],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, f"npm {' '.join(args)}: {done.stdout}{done.stderr}"
