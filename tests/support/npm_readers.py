"""The folder of the readers and proxies from npm, with its packages installed."""

import shutil
from pathlib import Path

import pytest

from tests.support.js_client import npm

FOLDER = Path(__file__).resolve().parents[1] / "readers"
DEV_SERVERS = FOLDER / "dev-servers"
"""webpack-dev-server and Vite: too large for each test run. ``make matrix`` installs them."""


def installed() -> Path:
    """The folder, once its packages are there. ``make test`` installs them before."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, and these readers come from there")
    if not (FOLDER / "node_modules" / "ws").exists():
        npm(FOLDER, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    return FOLDER
