"""The package as others get it: built, checked as its index would, installed and run on each Python."""

import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from celery_gateway import __version__
from tests.support import pythons
from tests.support.gateway_process import ROOT
from tests.support.once import once
from tests.support.rabbitmq import Process, free_port, wait_for
from tests.support.stream_client import NdjsonStream
from tests.support.thorough import variants

FOUND = pythons.found()
QUIET = {
    key: value
    for key, value in os.environ.items()
    if not key.startswith(("GATEWAY_", "CELERY_", "PYTHON", "VIRTUAL_ENV"))
}

pytestmark = pytest.mark.timeout(300)  # the first run on a machine downloads all packages, for each Python


def run(*command: str | Path, folder: Path) -> str:
    """What a command prints. It must succeed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=QUIET,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was made of it."""

    def make(folder: Path) -> None:
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, folder=folder)

    return once(tmp_path_factory, "dist", make)


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    (sdist,) = built.glob("*.tar.gz")
    return sdist


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


def test_the_index_would_take_both(built: Path, sdist: Path, wheel: Path) -> None:
    assert wheel.name == f"celery_gateway-{__version__}-py3-none-any.whl"
    assert sdist.name == f"celery_gateway-{__version__}.tar.gz"
    said = run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel, folder=built)
    assert said.count("PASSED") == 2, said


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    package = {
        str(path.relative_to(ROOT / "gateway"))
        for path in (ROOT / "gateway" / "celery_gateway").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    files = "celery_gateway/http/dashboard_files/"
    dashboard = {files + name for name in ("index.html", "app.js", "core.js", "app.css", "licenses.txt")}
    assert {"celery_gateway/py.typed", *dashboard} <= package
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        fields = archive.read(metadata).decode().partition("\n\n")[0].splitlines()
    about = metadata.removesuffix("METADATA")
    assert {name for name in names if not name.startswith(about)} == package
    assert f"{about}licenses/LICENSE" in names
    assert "License-Expression: BSD-3-Clause" in fields and "Requires-Python: >=3.11" in fields


def test_the_sdist_has_the_sources_and_no_strays(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "Makefile", "LICENSE", "README.md", "tests/conftest.py"} <= names
    strays = [name for name in names if "__pycache__" in name or "node_modules" in name or ".venv" in name]
    assert not strays


@pytest.fixture(scope="module", params=variants(1, pythons.VERSIONS))
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a fresh virtual environment that holds the wheel, on each Python there is."""
    version: str = request.param
    if version not in FOUND:
        pytest.skip(f"there is no python{version} on this machine")

    def make(folder: Path) -> None:
        run(FOUND[version], "-m", "venv", "--without-pip", folder, folder=folder)
        python = folder / "bin" / "python"
        run(sys.executable, "-m", "pip", "--python", python, "install", "--no-compile", wheel, folder=folder)

    return once(tmp_path_factory, f"python{version}", make) / "bin"


def test_the_command_says_its_version_and_helps(installed: Path, tmp_path: Path) -> None:
    command = installed / "celery-gateway"
    assert run(command, "--version", folder=tmp_path) == f"celery-gateway, version {__version__}\n"
    for subcommand in ("serve", "tail", "check", "demo"):
        assert subcommand in run(command, "--help", folder=tmp_path)
        assert run(command, subcommand, "--help", folder=tmp_path).startswith("Usage: celery-gateway")
    # Celery finds the command by the wheel's entry point.
    assert run(installed / "celery", "gateway", "--help", folder=tmp_path).startswith("Usage: celery gateway")


def test_a_project_may_have_a_package_named_gateway(installed: Path, tmp_path: Path) -> None:
    own = tmp_path / "gateway"
    own.mkdir()
    (own / "__init__.py").touch()
    (own / "models.py").write_text("ORDERS = 7\n")
    (tmp_path / "proj.py").write_text(
        "from celery import Celery\n"
        "from gateway.models import ORDERS\n"
        "app = Celery('proj', broker='memory://')\n"
        "app.conf.timezone = 'Europe/Paris' if ORDERS == 7 else 'UTC'\n"
    )
    # By the script, the project's folder is not in sys.path when Celery imports its plugins; by -m, it is.
    for number, celery in enumerate(([installed / "celery"], [installed / "python", "-m", "celery"])):
        assert "Europe/Paris" in run(*celery, "-A", "proj", "report", folder=tmp_path)
        listed = run(*celery, "-A", "proj", "--help", folder=tmp_path)
        assert "Stream the app's events live" in listed
        server = Process(
            [*celery, "-A", "proj", "gateway", "--port", "0"],
            log=tmp_path / f"{number}.log",
            env=QUIET,
            cwd=tmp_path,
        )
        try:
            server.wait_until(lambda log=server.log: "listening on" in log.read_text(), 40)
        finally:
            assert server.stop() == 0, server.tail()


def test_the_demo_runs_from_an_empty_folder_and_ends_with_ctrl_c(installed: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    port = free_port()
    demo = Process(
        [installed / "celery-gateway", "demo", "--port", str(port)],
        log=tmp_path / "demo.log",
        env=QUIET,
        cwd=empty,
    )
    try:
        demo.wait_until(lambda: f"http://127.0.0.1:{port}/" in demo.tail(), 40)
        with NdjsonStream(f"http://127.0.0.1:{port}", {"type": "task-succeeded"}) as client:
            (event, *_) = client.until(bool, 40)
            assert event["state"] == "SUCCESS" and event["name"]
            demo.signal(signal.SIGINT)
            assert client.closed()
        assert wait_for(lambda: demo.returncode is not None, 15), "Ctrl-C did not end it"
        assert demo.returncode == 130
        said = demo.tail()
        assert "Traceback" not in said and "Error" not in said, said
        assert list(empty.iterdir()) == []
    finally:
        demo.kill()
