"""`celery-gateway top` on a terminal and in a pipe, with a real gateway."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cli.test_tail import QUIET, http_server
from tests.support.access_file import AccessFile
from tests.support.gateway_process import ROOT, GatewayProcess
from tests.support.publisher import Publisher, received, task_event, walk
from tests.support.rabbitmq import free_port

WAIT_SECONDS = 20
LEAVE = b"\x1b[?25h\x1b[?1049l"
NAME = "shop.\x1b]0;pwned\x07\u202echarge"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "celery_gateway", "top", *arguments]


def top(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=QUIET | environment, cwd=ROOT, capture_output=True, text=True, timeout=40
    )


class Terminal:
    """`top` on a terminal of 110 columns and 30 lines. `text`: everything that it has written."""

    def __init__(self, *arguments: str, wrapper: Sequence[str] = (), **environment: str) -> None:
        self._end, self._terminal = pty.openpty()
        termios.tcsetwinsize(self._terminal, (30, 110))
        self._modes = termios.tcgetattr(self._terminal)
        self.text = b""
        self.process = subprocess.Popen(
            [*wrapper, *command(*arguments)],
            env=QUIET | {"TERM": "xterm-256color"} | environment,
            cwd=ROOT,
            stdin=self._terminal,
            stdout=self._terminal,
            stderr=self._terminal,
            preexec_fn=self._take_control,
        )

    def _take_control(self) -> None:
        os.setsid()
        os.close(os.open(os.ttyname(self._terminal), os.O_RDWR))  # so that Ctrl-C is a signal

    def press(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def resize(self, lines: int, columns: int) -> None:
        termios.tcsetwinsize(self._terminal, (lines, columns))
        os.kill(self.process.pid, signal.SIGWINCH)

    def shows(self, pattern: str) -> str:
        """Wait for a page that has this text, and return it."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            page = re.sub(
                r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text.rpartition(b"\x1b[H")[2].decode("utf-8", "replace")
            )
            if re.search(pattern, page):
                return page
            if select.select([self._end], (), (), 0.5)[0]:
                self.text += os.read(self._end, 1 << 16)
        raise AssertionError(f"no {pattern!r} in {page!r}")

    def forget(self) -> None:
        """Wait for new pages only."""
        self.text = b""

    def ended(self) -> int:
        """Return the exit code. The terminal must be as it was."""
        code = self.process.wait(WAIT_SECONDS)
        while select.select([self._end], (), (), 0.1)[0]:
            self.text += os.read(self._end, 1 << 16)
        assert termios.tcgetattr(self._terminal) == self._modes
        assert self.text.count(b"\x1b[?1049h") <= self.text.count(LEAVE)
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)
        os.close(self._terminal)


@contextmanager
def terminal(*arguments: str, wrapper: Sequence[str] = (), **environment: str) -> Iterator[Terminal]:
    opened = Terminal(*arguments, wrapper=wrapper, **environment)
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="module")
def access(folder: Path) -> AccessFile:
    return AccessFile(folder)


@pytest.fixture(scope="module")
def gateway(broker: str, folder: Path, access: AccessFile) -> Iterator[GatewayProcess]:
    """A gateway that needs tokens, and has events of two tasks and of a worker."""
    process = GatewayProcess(broker, folder, options=["--auth", str(access.path)])
    publisher = Publisher(broker)
    try:
        process.start()
        publisher.send(walk(NAME), walk("mail.send"))
        failed = uuid4().hex
        publisher.send(
            [received(failed, "mail.send"), task_event("task-failed", failed, exception="Timeout('x')")]
        )
        beat = {
            "type": "worker-online",
            "hostname": "w1@host",
            "freq": 2.0,
            "pid": 1,
            "timestamp": time.time(),
        }
        publisher.send(beat)
        yield process
    finally:
        publisher.close()
        process.stop()


@pytest.fixture(scope="module")
def token(access: AccessFile) -> str:
    return access.sign(any=[{}], may=["events", "state", "workers"])


def test_the_page_has_tasks_workers_and_keys(gateway: GatewayProcess, token: str) -> None:
    with terminal(gateway.url, GATEWAY_TOKEN=token) as shown:
        page = shown.shows("(?s)mail.send.*w1@host.*q quits")
        assert "live · heard" in page and "shop.\\x1b]0;pwned\\x07\\u202echarge" in page
        assert re.search(r"mail\.send +0 +0 +2 .*50\.0 %", page), page
        assert shown.text.count(b"\x1b]0;") == 0
        shown.press("s")
        shown.shows("sort: failed")
        shown.press("p")
        shown.shows("PAUSED")
        shown.press("p")
        shown.shows("p pauses")
        shown.forget()
        shown.resize(30, 70)
        assert all(len(line.rstrip()) <= 70 for line in shown.shows("(?s)mail.send.*q quits").splitlines())
        shown.press("q")
        assert shown.ended() == 0


@pytest.mark.parametrize(("stop", "code"), [("\x03", 130), (signal.SIGTERM, 143)])
def test_a_signal_restores_the_terminal(
    gateway: GatewayProcess, token: str, stop: str | int, code: int
) -> None:
    with terminal(gateway.url, GATEWAY_TOKEN=token) as shown:
        shown.shows("q quits")
        if isinstance(stop, str):
            shown.press(stop)
        else:
            shown.process.send_signal(stop)
        assert shown.ended() == code
        assert b"Traceback" not in shown.text


def test_while_it_is_suspended_the_terminal_is_that_of_the_shell(gateway: GatewayProcess, token: str) -> None:
    # A shell with job control: without one nothing would continue a process that Ctrl-Z stops.
    shell = 'set -m; "$0" "$@"; echo SUSPENDED; read -r _; fg >/dev/null; exit $?'
    with terminal(gateway.url, wrapper=["bash", "-c", shell], GATEWAY_TOKEN=token) as shown:
        shown.shows("q quits")
        shown.press("\x1a")
        shown.shows("SUSPENDED")
        assert b"SUSPENDED" in shown.text.rpartition(LEAVE)[2]
        shown.forget()
        shown.press("\n")
        shown.shows("q quits")
        assert b"\x1b[?1049h" in shown.text
        shown.press("q")
        assert shown.ended() == 0


def test_without_colours(gateway: GatewayProcess, token: str) -> None:
    with terminal(gateway.url, GATEWAY_TOKEN=token, NO_COLOR="1") as shown:
        shown.shows("(?s)mail.send.*q quits")
        assert not re.search(rb"\x1b\[(?:\d+;)*3[0-7]m", shown.text)


def test_the_page_of_a_lost_gateway_stays_and_reports_it(broker: str, folder: Path) -> None:
    process = GatewayProcess(broker, folder)
    try:
        process.start()
        with terminal(process.url) as shown:
            shown.shows("live · heard")
            process.stop()
            page = shown.shows("reconnecting")
            assert "live · heard" not in page
            process.start()
            shown.shows("live · heard")
            shown.press("q")
            assert shown.ended() == 0
    finally:
        process.stop()


def test_in_a_pipe_it_prints_once(gateway: GatewayProcess, token: str) -> None:
    done = top(
        gateway.url, "--sort", "name", "--window", "10m", GATEWAY_TOKEN=token, COLUMNS="150", TERM="xterm"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("mail.send") < done.stdout.index("shop.\\x1b")
    assert "last 10m" in done.stdout and "ago: Timeout('x')" in done.stdout and "w1@host" in done.stdout
    assert "\x1b" not in done.stdout and done.stderr == ""


@pytest.mark.parametrize(
    ("may", "texts"),
    [
        (["events", "state"], ["mail.send", "workers: the token does not show them", "queues: the token"]),
        (["events", "workers"], ["w1@host", "does not show statistics (it needs the permission state)"]),
    ],
)
def test_what_the_token_does_not_show_is_named(
    gateway: GatewayProcess, access: AccessFile, may: list[str], texts: list[str]
) -> None:
    done = top(gateway.url, GATEWAY_TOKEN=access.sign(any=[{}], may=may))
    assert done.returncode == 0, done.stderr
    for text in texts:
        assert text in done.stdout


@pytest.mark.parametrize(
    ("arguments", "may", "code", "text"),
    [
        ((), None, 1, "give a token with --token-file or GATEWAY_TOKEN"),
        ((), ["metrics"], 1, "Error: "),
        (("--window", "1s"), ["events", "state"], 2, "window"),
        (("--sort", "size"), None, 2, "--sort"),
    ],
)
def test_what_is_refused_is_an_error(
    gateway: GatewayProcess,
    access: AccessFile,
    arguments: tuple[str, ...],
    may: list[str] | None,
    code: int,
    text: str,
) -> None:
    environment = {"GATEWAY_TOKEN": access.sign(any=[{}], may=may)} if may else {}
    done = top(gateway.url, *arguments, **environment)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr and "Traceback" not in done.stderr


def test_a_gateway_that_is_away_is_an_error_after_the_screen() -> None:
    with terminal(f"127.0.0.1:{free_port()}") as shown:
        assert shown.ended() == 1
        assert b"Is the gateway running?" in shown.text.partition(LEAVE)[2]


def test_another_server_is_an_error() -> None:
    with http_server(b'{"type":"gateway-close","reason":"ready","id":"a-1"}\n') as (port, _):
        done = top(f"127.0.0.1:{port}")
    assert done.returncode == 1 and "has ended the stream" in done.stderr


def test_without_rich_the_error_has_the_command_that_installs_it(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['rich'] = None; from celery_gateway.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hide, "top"], env=QUIET, cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "pip install 'celery-gateway[top]'" in done.stderr and "Traceback" not in done.stderr
