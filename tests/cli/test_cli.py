"""The commands, as people and scripts run them."""

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click import unstyle

from gateway import __version__
from gateway.cli.line import line
from tests.gateway_process import ROOT, GatewayProcess
from tests.publisher import Publisher, walk
from tests.rabbitmq import free_port, wait_for

COMMAND = [sys.executable, "-m", "gateway"]
QUIET = {key: value for key, value in os.environ.items() if not key.startswith(("GATEWAY_", "CELERY_"))}


def run(*arguments: str, timeout_seconds: float = 20, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=QUIET | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
    )


@contextmanager
def running(*arguments: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(  # type: ignore[call-overload]
        [*COMMAND, *arguments],
        env=QUIET | {"PYTHONUNBUFFERED": "1"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def traffic(publisher: Publisher, name: str) -> Iterator[None]:
    """Walks of tasks of this name, until the block ends: whoever connects within it sees some."""
    done = threading.Event()

    def publish() -> None:
        while not done.wait(0.02):
            publisher.send(walk(name))

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_version_and_help_come_quickly_and_with_examples() -> None:
    assert run("--version").stdout == f"celery-gateway, version {__version__}\n"
    for command in ([], ["serve"], ["tail"], ["demo"]):
        text = run(*command, "--help")
        assert text.returncode == 0
        assert "Examples:" in text.stdout
        assert "celery-gateway " in text.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve", "--port", "high"], "'high' is not a valid integer"),
        (["serve", "--prot", "1"], "No such option"),
        (["serve", "--root-path", "celery"], "must begin with a slash"),
        (["serve", "--allow-origin", "https://a.example,https://b.example"], "is no origin"),
        (["serve", "--allow-origin", "https://a.example/"], "is no origin"),
        (["demo", "--allow-origin", "a.example"], "is no origin"),
        (["srve"], "No such command"),
        (["tail", "ftp://x"], "no URL of a gateway"),
        (["tail", "--nmae", "x"], "No such option"),
        (["tail", "http://127.0.0.1:8555/?name=x"], "has a query"),
    ],
)
def test_a_wrong_call_exits_with_2_and_says_why(arguments: list[str], says: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_says_when_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: port {port} on 127.0.0.1 is already in use: "
        "stop what uses it, or choose another with --port\n"
    )


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nosuch://localhost", "nosuch:// is no broker that kombu knows"),
        ("amqp://localhost:port", "the broker URL cannot be read"),
    ],
)
def test_serve_says_when_the_broker_url_cannot_be_used(url: str, says: str) -> None:
    done = run("serve", "--broker", url, "--port", "0")
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_come_from_flags_before_environment_before_file(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]

    def listens_on(*arguments: str, **environment: str) -> bool:
        """The port in force is the one that is taken."""
        done = run("serve", "--config", str(config), *arguments, **environment)
        return f"port {port} on 127.0.0.1 is already in use" in done.stderr

    with taken:
        config.write_text(f"port = {port}\n")
        assert listens_on()
        config.write_text("port = 1\n")
        assert listens_on(GATEWAY_PORT=str(port))
        assert listens_on("--port", str(port), GATEWAY_PORT="2")


def test_settings_in_the_file_have_the_names_of_the_flags(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(
            f"""port = {port}
            broker = ["amqp://localhost", "amqp://elsewhere"]
            keepalive = 10
            slow-timeout = 5.5
            allow-origin = "https://shop.example"
            max-tasks = 10
            history_bytes = 1000000
            worker-timeout = 60
            lost_grace = 0
            wait-known = 0.5
            control = true
            """
        )
        done = run("serve", "--config", str(config))
    assert f"port {port} on 127.0.0.1 is already in use" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("option", "value"), [("worker-timeout", "0.9"), ("lost-grace", "-1"), ("wait-known", "soon")]
)
def test_a_bad_time_to_wait_is_refused(option: str, value: str) -> None:
    by_flag = run("serve", "--broker", "amqp://localhost", f"--{option}", value)
    variable = f"GATEWAY_{option.upper().replace('-', '_')}"
    by_environment = run("serve", "--broker", "amqp://localhost", **{variable: value})
    for done in (by_flag, by_environment):
        assert done.returncode == 2
        assert f"--{option}" in done.stderr


@pytest.mark.parametrize(
    "url", ["redis://:s3cr#et@host/0", "amqp://u:s3cr#et@host//", "amqp://u:s3cr?et@host:1x//"]
)
def test_a_password_that_should_have_been_escaped_is_not_shown(url: str) -> None:
    for command in ("serve", "check"):
        done = run(command, "--broker", url)
        assert done.returncode not in (0, 2)
        shown = done.stdout + done.stderr
        assert "s3cr" not in shown
        assert "%23" in shown
        assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("text", "says"),
    [("prot = 1", "unknown setting 'prot'"), ("port =", "gateway.toml:"), ("port = 'x'", "'x'")],
)
def test_a_wrong_setting_in_the_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(text)
    done = run("serve", "--config", str(config))
    assert done.returncode == 2
    assert says in done.stderr


def test_tail_prints_a_line_an_event(gateway: GatewayProcess, publisher: Publisher) -> None:
    name = f"tail.{uuid.uuid4().hex}"
    arguments = ["tail", gateway.url, "--name", name, "--type", "task-started,task-succeeded"]
    with traffic(publisher, name), running(*arguments) as tail:
        assert tail.stdout is not None
        lines = [tail.stdout.readline().split() for _ in range(6)]
    assert {words[1] for words in lines} == {"task-started", "task-succeeded"}
    assert {words[2] for words in lines} == {name}
    assert all(len(words[3]) == 8 and words[4] == "w1@host" for words in lines)
    assert {(words[1], *words[5:]) for words in lines} == {
        ("task-started",),
        ("task-succeeded", "0.010s", "None"),
    }


def test_tail_json_is_for_pipes(gateway: GatewayProcess, publisher: Publisher) -> None:
    name = f"tail.{uuid.uuid4().hex}"
    with traffic(publisher, name), running("tail", gateway.url, "--name", name, "--json") as tail:
        assert tail.stdout is not None
        messages = [json.loads(tail.stdout.readline()) for _ in range(5)]
    assert [message["type"] for message in messages[:2]] == ["gateway-open", "gateway-status"]
    assert {message["name"] for message in messages[2:]} == {name}


def test_tail_ends_quietly_when_its_reader_does(gateway: GatewayProcess, publisher: Publisher) -> None:
    name = f"tail.{uuid.uuid4().hex}"
    with traffic(publisher, name), running("tail", gateway.url, "--name", name) as tail:
        assert tail.stdout is not None and tail.stderr is not None
        tail.stdout.readline()
        tail.stdout.close()
        assert tail.wait(10) == 0
        assert tail.stderr.read() == ""


def test_tail_ends_at_once_and_quietly_with_ctrl_c(gateway: GatewayProcess, publisher: Publisher) -> None:
    name = f"tail.{uuid.uuid4().hex}"
    with traffic(publisher, name), running("tail", gateway.url, "--name", name) as tail:
        assert tail.stdout is not None and tail.stderr is not None
        tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert tail.wait(5) == 130
        assert time.monotonic() - began < 2
        assert tail.stderr.read() == ""


def test_tail_says_when_there_is_no_gateway_or_it_refuses(gateway: GatewayProcess) -> None:
    done = run("tail", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "Is the gateway running?" in done.stderr
    done = run("tail", gateway.url, "--name", "a,,b")
    assert done.returncode == 2
    assert "a comma too many" in done.stderr
    done = run("tail", f"{gateway.url}/nothing")
    assert done.returncode == 1
    assert "404" in done.stderr or "Not Found" in done.stderr


def test_tail_connects_again_by_itself(broker: str, folder: Path) -> None:
    port = free_port()
    name = f"tail.{uuid.uuid4().hex}"
    first, second = (GatewayProcess(broker, folder, port=port) for _ in range(2))
    publisher = Publisher(broker)
    try:
        first.start()
        with traffic(publisher, name), running("tail", first.url, "--name", name) as tail:
            assert tail.stdout is not None
            assert next(text for text in tail.stdout if name in text)
            assert first.stop() == 0
            second.start()
            # Another process has another log: the loss is reported.
            assert next(text for text in tail.stdout if "unknown-id" in text)
            assert next(text for text in tail.stdout if name in text)
    finally:
        publisher.close()
        first.stop()
        second.stop()


def test_a_line_tells_whether_the_gateway_hears_its_brokers() -> None:
    sources = [
        {"cluster": None, "consuming": True, "reason": "consuming celeryev", "since": 1.0},
        {"cluster": "eu", "consuming": False, "reason": "connection refused\x1b[2J. Start it.", "since": 1.0},
    ]
    text = unstyle(line({"type": "gateway-status", "id": "x-1", "sources": sources}) or "")
    assert text == "-- the gateway does not hear the broker eu: connection refused\\x1b[2J. Start it."
    assert line({"type": "gateway-status", "id": "x-1", "sources": sources[:1]}) is None


@pytest.mark.parametrize("uuid", [12345, 3.5, True, ["a"]])
def test_a_line_shows_an_id_of_any_type(uuid: object) -> None:
    time = "2026-11-21T08:31:00.123456Z"
    text = line({"type": "task-started", "time": time, "name": "n", "uuid": uuid, "state": "STARTED"})
    assert text is not None and str(uuid) in text


def test_a_line_for_people_cannot_steer_the_terminal() -> None:
    event = {
        "type": "task-failed\x1b[2J",
        "time": "2026-11-21T08:31:00.123456Z",
        "name": "a\x9b31m\nb",
        "uuid": "\x1b]0;title\x07",
        "exception": "x\r\x08" * 500,
    }
    text = line(event)
    assert text is not None
    escapes = text.replace("\x1b[", "")
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in escapes)
    assert "\\x1b" in text
    assert len(text) < 400


class TestDemo:
    """The embedded cluster and the gateway together."""

    def test_it_shows_every_kind_of_event_within_half_a_minute_and_ends_with_ctrl_c(self) -> None:
        kinds = {"sent", "received", "started", "succeeded", "failed"}
        kinds |= {"retried", "rejected", "revoked", "progress"}
        port = free_port()
        main_end, terminal = pty.openpty()  # as a person runs it: Ctrl-C comes from the terminal
        demo = subprocess.Popen(
            [*COMMAND, "demo", "--port", str(port)],
            env=QUIET,
            cwd=ROOT,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)
        try:
            printed = self._read(
                main_end, until=f"curl -N 'http://127.0.0.1:{port}/events?format=ndjson".encode()
            )
            assert b"Open    http://127.0.0.1:%d/" % port in printed
            seen: set[str] = set()
            with running("tail", f"http://127.0.0.1:{port}", "--json") as tail:
                assert tail.stdout is not None
                deadline = time.monotonic() + 30
                for text in tail.stdout:
                    event = json.loads(text)
                    seen.add(event["type"].removeprefix("task-"))
                    if event["type"] == "task-started":
                        assert event["name"], event
                    if seen >= kinds:
                        break
                    assert time.monotonic() < deadline, f"still missing: {kinds - seen}"
            demo.send_signal(signal.SIGINT)
            began = time.monotonic()
            assert demo.wait(10) == 0
            assert time.monotonic() - began < 4
            rest = self._read(main_end)
            assert b"Traceback" not in rest
            assert b"Error" not in rest
        finally:
            demo.kill()
            demo.wait()
            os.close(main_end)

    def test_it_says_when_its_port_is_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            done = run("demo", "--port", str(taken.getsockname()[1]))
        assert done.returncode == 1
        assert "choose another with --port" in done.stderr
        assert "Traceback" not in done.stderr

    @staticmethod
    def _read(terminal: int, until: bytes | None = None) -> bytes:
        read = b""
        while until is None or until not in read:
            assert until is None or select.select([terminal], [], [], 20)[0], f"printed only {read!r}"
            try:
                chunk = os.read(terminal, 65536)
            except OSError:  # the other side has closed
                break
            if not chunk:
                break
            read += chunk
        return read


def test_serve_ends_with_ctrl_c_while_the_broker_is_away() -> None:
    with running("serve", "--broker", f"amqp://127.0.0.1:{free_port()}", "--port", "0") as serve:
        assert serve.stderr is not None
        assert "listening on" in serve.stderr.readline()
        assert "not consuming" in serve.stderr.readline()
        serve.send_signal(signal.SIGINT)
        assert serve.wait(5) == 0
        assert "Traceback" not in serve.stderr.read()


def test_a_password_is_never_printed(folder: Path) -> None:
    url = f"amqp://user:s3cret@127.0.0.1:{free_port()}/vhost"
    gateway = GatewayProcess(url, folder)
    gateway.launch()
    try:
        assert wait_for(lambda: "not consuming" in gateway.tail(), 10)
        assert "s3cret" not in gateway.log.read_text()
    finally:
        gateway.stop()
