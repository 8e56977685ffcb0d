"""`make install PYTHON=…` where there is a .venv already."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import pythons
from tests.support.gateway_process import ROOT

OURS = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHERS = {version: python for version, python in pythons.found().items() if version != OURS}


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env={
            key: value for key, value in os.environ.items() if key not in ("PYTHON", "MAKEFLAGS", "MAKELEVEL")
        }
        | environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


def version(folder: Path) -> str:
    code = "import sys; print(f'{sys.version_info.major}.{sys.version_info.minor}')"
    done = subprocess.run([folder / ".venv" / "bin" / "python", "-c", code], capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Makefile with a .venv of this Python, into which everything is installed already."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


@pytest.mark.skipif(not OTHERS, reason="there is one Python on this machine")
def test_a_venv_of_another_python_is_replaced(folder: Path) -> None:
    other, python = next(iter(OTHERS.items()))
    done = make(folder, ".venv/bin/python", f"PYTHON={python}")
    assert done.returncode == 0, done.stderr
    assert f"Replacing .venv: it has another Python than {python}" in done.stdout
    assert version(folder) == other
    assert not (folder / ".venv" / ".installed").exists()


def test_a_venv_of_the_same_python_is_kept(folder: Path) -> None:
    for arguments in ([f"PYTHON={sys.executable}"], ["PYTHON="], []):
        done = make(folder, "install", *arguments)
        assert done.returncode == 0, done.stderr
        assert (folder / ".venv" / ".installed").exists()
    make(folder, "install", PYTHON="/no/python")  # of the environment: perhaps for something else
    assert version(folder) == OURS


@pytest.mark.parametrize("target", ["install", "demo", "test"])
def test_a_python_that_does_not_run_is_named_and_the_venv_is_kept(folder: Path, target: str) -> None:
    done = make(folder, target, "PYTHON=/no/python")
    assert done.returncode == 2
    assert "PYTHON=/no/python is not one that runs" in done.stderr
    assert version(folder) == OURS
    assert make(folder, "help", "PYTHON=/no/python").returncode == 0


def test_a_venv_whose_python_is_gone_is_made_anew(folder: Path) -> None:
    python = folder / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/no/python")
    done = make(folder, "-n", "install")
    assert "Making .venv with" in done.stdout and "pip install" in done.stdout, done.stdout + done.stderr
