"""Ctrl-C at any moment, and again: each command ends soon, with 130, and without a traceback.

The moments are counted in imported modules (`python -X importtime` prints each): the same on a slow
machine.
"""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO

import pytest

from tests.support.command import QUIET
from tests.support.gateway_process import ROOT

NOWHERE = "amqp://127.0.0.1:1"
COMMANDS = {
    "serve": ["serve", "--port", "0", "--broker", NOWHERE],
    "demo": ["demo", "--port", "0"],
    "tail": ["tail", "127.0.0.1:1"],
    "check": ["check", "--broker", NOWHERE, "--wait", "30"],
}
READY = {"serve": "not consuming", "demo": "Paste"}
"""What a command prints once it runs."""
END_SECONDS = 10
"""A deadline: `serve` closes its connections within 4 s."""


class Interrupted:
    """A command that gets SIGINT several times: after some modules are imported, or once it runs (`None`)."""

    def __init__(
        self, command: str, modules: int | None, times: int, gap_seconds: float, folder: Path
    ) -> None:
        log = folder / "stderr"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-X", "importtime", "-u", "-m", "celery_gateway", *COMMANDS[command]],
                env=QUIET,
                cwd=ROOT,
                stdout=errors,
                stderr=errors,
                text=True,
            )
        try:
            with log.open() as lines:
                self._wait(process, lines, command, modules)
            for _ in range(times):
                process.send_signal(signal.SIGINT)
                time.sleep(gap_seconds)
            self.code = process.wait(END_SECONDS)
        finally:
            process.kill()
            process.wait()
        text = log.read_text().splitlines()
        self.said = "\n".join(line for line in text if not line.startswith("import time:"))

    @staticmethod
    def _wait(process: subprocess.Popen[str], lines: IO[str], command: str, modules: int | None) -> None:
        imported: Iterator[int] | None = None
        deadline = time.monotonic() + 30
        while process.poll() is None:
            line = lines.readline()
            if not line:
                assert time.monotonic() < deadline, f"{command} does not come so far"
                time.sleep(0.002)
                continue
            if modules is None:
                if READY[command] in line:
                    return
            elif imported is not None:
                if next(imported) >= modules:
                    return
            elif line.split()[-1] == "celery_gateway.http.interrupt":
                imported = count(1)


@pytest.mark.parametrize("modules", [2, 400])
@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_during_imports_is_quiet(command: str, modules: int, tmp_path: Path) -> None:
    done = Interrupted(command, modules, 2, 0.02, tmp_path)
    assert done.code == 130 or (command == "tail" and modules == 400), done.said
    assert "Traceback" not in done.said and "Exception" not in done.said


@pytest.mark.parametrize(
    ("command", "times", "gap_seconds"),
    [("serve", 1, 0.0), ("serve", 2, 0.1), ("demo", 1, 0.0), ("demo", 3, 0.05)],
)
def test_ctrl_c_while_it_runs_is_quiet(command: str, times: int, gap_seconds: float, tmp_path: Path) -> None:
    done = Interrupted(command, None, times, gap_seconds, tmp_path)
    assert done.code == 130, done.said
    assert "Traceback" not in done.said and "Exception" not in done.said


@pytest.mark.parametrize("command", ["check", "tail"])
@pytest.mark.parametrize("gap_seconds", [0.0, 0.03])
def test_ctrl_c_while_it_waits_for_the_network_is_quiet(command: str, gap_seconds: float) -> None:
    """For one that accepts connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        arguments = {
            "tail": ["tail", f"127.0.0.1:{port}"],
            "check": ["check", "--broker", f"amqp://127.0.0.1:{port}"],
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "celery_gateway", *arguments[command]],
            env=QUIET,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            silent.settimeout(20)
            connection, _ = silent.accept()
            with connection:
                for _ in range(3):
                    process.send_signal(signal.SIGINT)
                    time.sleep(gap_seconds)
                assert process.wait(END_SECONDS) == 130
        finally:
            process.kill()
            said, _ = process.communicate()
    assert "Traceback" not in said and "Exception" not in said


def test_serve_that_was_told_to_stop_by_sigterm_exits_with_0(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "celery_gateway",
                "serve",
                "--port",
                "0",
                "--broker",
                NOWHERE,
            ],
            env=QUIET,
            cwd=ROOT,
            stderr=errors,
        )
    try:
        deadline = time.monotonic() + 20
        while "not consuming" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.terminate()
        assert process.wait(END_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
