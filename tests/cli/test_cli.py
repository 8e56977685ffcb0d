"""The commands, as people and scripts run them."""

import json
import os
import pty
import re
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

from celery_gateway import __version__
from celery_gateway.cli.event_line import event_line
from tests.support.command import QUIET, call
from tests.support.gateway_process import ROOT, GatewayProcess
from tests.support.publisher import Publisher, walk
from tests.support.rabbitmq import free_port, wait_for

COMMAND = [sys.executable, "-m", "celery_gateway"]


def run(*arguments: str, timeout_seconds: float = 40, **environment: str) -> subprocess.CompletedProcess[str]:
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


def test_version_and_help_have_examples_and_load_nothing_of_the_server() -> None:
    assert run("--version").stdout == f"celery-gateway, version {__version__}\n"
    code = "import sys; sys.argv[1:] = ['serve', '--help']; from celery_gateway.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], env=QUIET, cwd=ROOT, capture_output=True, text=True
    )
    imported = set(re.findall(r"(?m)\|\s+([\w.]+)$", done.stderr))
    assert "celery_gateway.cli.options" in imported
    assert not imported & {"celery", "kombu", "aio_pika", "uvicorn", "starlette"}
    for command in ([], ["serve"], ["tail"], ["demo"]):
        text = call(*command, "--help")
        assert text.returncode == 0
        assert "Examples:" in text.stdout
        assert "celery-gateway " in text.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve", "--port", "high"], "'high' is not a valid whole number"),
        (["serve", "--prot", "1"], "No such option"),
        (["serve", "--root-path", "celery"], "must begin with a slash"),
        (["serve", "--host", ""], "the value is empty"),
        (["serve", "--worker-timeout", "inf"], "inf is not a finite number"),
        (["tail", "--timeout", "nan"], "nan is not a finite number"),
        (["check", "--wait", "soon"], "'soon' is not a valid number"),
        (["serve", "--allow-origin", "https://a.example,https://b.example"], "invalid origin"),
        (["serve", "--allow-origin", "https://a.example/"], "invalid origin"),
        (["demo", "--allow-origin", "a.example"], "invalid origin"),
        (["serve", "--allow-host", "https://a.example"], "invalid host 'https://a.example'"),
        (["demo", "--allow-host", "a.example:80"], "invalid host 'a.example:80'"),
        (["serve", "--public-url", "a.example"], "invalid public URL 'a.example'"),
        (["srve"], "No such command"),
        (["tail", "ftp://x"], "invalid gateway URL"),
        (["tail", "http://"], "invalid gateway URL"),
        (["tail", "localhost:port"], "invalid gateway URL"),
        (["tail", "--timeout", "0"], "--timeout"),
        (["tail", "--nmae", "x"], "No such option"),
        (["tail", "http://127.0.0.1:8555/?name=x"], "has a query"),
    ],
)
def test_a_wrong_call_exits_with_2_and_says_why(arguments: list[str], says: str) -> None:
    done = call(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_says_when_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = call("serve", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: port {port} on 127.0.0.1 is already in use: "
        "stop what uses it, or choose another with --port\n"
    )


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nosuch://localhost", "the gateway cannot read Celery's events from nosuch://"),
        ("amqp://localhost:port", "the broker URL cannot be read"),
    ],
)
def test_serve_says_when_the_broker_url_cannot_be_used(url: str, says: str) -> None:
    done = call("serve", "--broker", url, "--port", "0")
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_come_from_flags_before_environment_before_file(tmp_path: Path) -> None:
    """In a gateway that runs; for each setting see tests/cli/test_options.py."""
    config = tmp_path / "gateway.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text("port = 1\nhost = '192.0.2.1'\nroot-path = 'no-slash'\n")
        done = run(
            *("serve", "--config", str(config), "--port", str(port)),
            **{"GATEWAY_PORT": "2", "GATEWAY_HOST": "127.0.0.1", "GATEWAY_ROOT_PATH": "/celery"},
        )
    assert f"port {port} on 127.0.0.1 is already in use" in done.stderr


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
            allow-host = ["gateway", ".corp.example"]
            public-url = "https://events.example/celery"
            max-tasks = 10
            history_bytes = 1000000
            worker-timeout = 60
            lost_grace = 0
            wait-known = 0.5
            control = true
            """
        )
        done = call("serve", "--config", str(config))
    assert f"port {port} on 127.0.0.1 is already in use" in done.stderr, done.stderr


@pytest.mark.parametrize(
    "url", ["redis://:s3cr#et@host/0", "amqp://u:s3cr#et@host//", "amqp://u:s3cr?et@host:1x//"]
)
def test_a_password_that_should_have_been_escaped_is_not_shown(url: str) -> None:
    for command in ("serve", "check"):
        done = call(command, "--broker", url)
        assert done.returncode not in (0, 2)
        shown = done.stdout + done.stderr
        assert "s3cr" not in shown
        assert "%23" in shown
        assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 1", "unknown setting 'prot'"),
        ("port =", "gateway.toml:"),
        ("port = 'x'", "'x' is not a valid whole number"),
        ("port = true", "invalid port = true: write a whole number"),
        ("port = 1.5", "invalid port = 1.5: write a whole number"),
        ("port = 2026-01-01", 'invalid port = "2026-01-01": write a whole number'),
        ("control = 3", "invalid control = 3: write true or false"),
        ("keepalive = true", "invalid keepalive = true: write a number"),
        ("keepalive = nan", "nan is not a finite number"),
        ("exchange = 3", "invalid exchange = 3: write text in quotes"),
        ("broker = 5", "invalid broker = 5: write text in quotes, or a list of texts"),
        ("broker = ['amqp://a', 1]", "write text in quotes, or a list of texts"),
        ("allow-host = {a = 'b'}", "write text in quotes, or a list of texts"),
        ("transport-option = 1", "write a table"),
        ("host = ''", "the value is empty"),
    ],
)
def test_a_wrong_setting_in_the_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(text)
    done = call("serve", "--config", str(config))
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
        tail.send_signal(signal.SIGINT)  # while events arrive all the time
        assert tail.wait(10) == 130
        assert tail.stderr.read() == ""


def test_tail_says_when_there_is_no_gateway_or_it_refuses(gateway: GatewayProcess) -> None:
    done = call("tail", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "Is the gateway running?" in done.stderr
    done = run("tail", gateway.url, "--name", "a,,b")
    assert done.returncode == 2
    assert "a value beside a comma is empty" in done.stderr
    done = run("tail", f"{gateway.url}/nothing")
    assert done.returncode == 1
    assert "404" in done.stderr or "Not Found" in done.stderr


def test_tail_ends_when_its_time_has_passed(gateway: GatewayProcess, publisher: Publisher) -> None:
    received, started, _ = walk("tail.timeout", uid="u-timeout")
    publisher.send(received, started)
    target = ("--until", "ready", "--uuid", "u-timeout")
    with (
        running("tail", gateway.url, "--type", "task-nothing", "--timeout", "3") as of_events,
        running("tail", gateway.url.removeprefix("http://"), *target, "--timeout", "3") as of_task,
    ):
        assert of_events.communicate(timeout=20)[1] == (
            "--timeout: 3 s have passed; still waiting for events that match type=task-nothing\n"
        )
        assert "3 s have passed; still waiting for task u-timeout (STARTED)" in of_task.communicate()[1]
        assert of_events.returncode == of_task.returncode == 5


def test_tail_shows_why_a_task_failed(gateway: GatewayProcess, publisher: Publisher) -> None:
    name = f"tail.{uuid.uuid4().hex}"
    received, started, succeeded = walk(name, uid=name)
    failed = succeeded | {"type": "task-failed", "exception": "ValueError('no \u202estock')", "traceback": ""}
    publisher.send(received, started, failed)
    for json_lines in ([], ["--json"]):  # at first it may be on its way; then it has failed already
        done = run("tail", gateway.url, "--until", "ready", "--uuid", name, *json_lines)
        assert done.returncode == 1
        assert f"failed: {name} {name[:8]}: ValueError('no \\u202estock')\n" in done.stderr


def test_tail_says_on_a_terminal_what_it_waits_for(gateway: GatewayProcess) -> None:
    main_end, terminal = pty.openpty()
    tail = subprocess.Popen(
        [*COMMAND, "tail", gateway.url, "--until", "ready", "--uuid", "u-never"],
        env=QUIET,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    try:
        TestDemo._read(main_end, until="… waiting for task u-never (no event of it yet) (2 s)".encode())
        tail.send_signal(signal.SIGINT)
        assert tail.wait(10) == 130
    finally:
        tail.kill()
        tail.wait()
        os.close(main_end)


def test_tail_ends_when_its_reader_does_though_nothing_happens(gateway: GatewayProcess) -> None:
    with running("tail", gateway.url, "--type", "task-nothing", "--json") as tail:
        assert tail.stdout is not None and tail.stderr is not None
        tail.stdout.readline()
        tail.stdout.close()
        assert tail.wait(10) == 0
        assert tail.stderr.read() == ""


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
    text = unstyle(event_line({"type": "gateway-status", "id": "x-1", "sources": sources}) or "")
    assert text == "-- the gateway is not connected to the broker eu: connection refused\\x1b[2J. Start it."
    assert event_line({"type": "gateway-status", "id": "x-1", "sources": sources[:1]}) is None


@pytest.mark.parametrize("uuid", [12345, 3.5, True, ["a"]])
def test_a_line_shows_an_id_of_any_type(uuid: object) -> None:
    time = "2026-11-21T08:31:00.123456Z"
    text = event_line({"type": "task-started", "time": time, "name": "n", "uuid": uuid, "state": "STARTED"})
    assert text is not None and str(uuid) in text


@pytest.mark.parametrize("character", ["\u202e", "\u2066", "\u200f", "\u2028", "\u2029", "\ufeff", "\ud800"])
def test_a_line_shows_characters_that_reverse_or_hide_text_as_escapes(character: str) -> None:
    time = "2026-11-21T08:31:00.123456Z"
    event = {"type": "task-failed", "time": time, "name": f"a{character}b", "exception": f"x{character}y"}
    text = event_line(event)
    assert text is not None and character not in text
    assert text.count(f"\\u{ord(character):04x}") == 2
    emoji = "\U0001f469\u200d\U0001f680 \u2714\ufe0f"  # a joiner, and a selector of its form
    assert emoji in (event_line(event | {"name": emoji}) or "")


def test_a_line_shows_which_texts_the_gateway_has_cut() -> None:
    time = "2026-11-21T08:31:00.123456Z"
    event = {"type": "task-failed", "time": time, "id": "e-7", "name": "n", "exception": "E('x…"}
    text = unstyle(event_line(event | {"truncated": ["exception", "traceback"]}) or "")
    assert text.endswith("E('x…  (truncated: exception, traceback; full event: GET /events/e-7)")
    assert "truncated:" not in (event_line(event | {"truncated": True}) or "")  # a custom field


def test_a_line_for_people_cannot_steer_the_terminal() -> None:
    event = {
        "type": "task-failed\x1b[2J",
        "time": "2026-11-21T08:31:00.123456Z",
        "name": "a\x9b31m\nb",
        "uuid": "\x1b]0;title\x07",
        "exception": "x\r\x08" * 500,
    }
    text = event_line(event)
    assert text is not None
    escapes = text.replace("\x1b[", "")
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in escapes)
    assert "\\x1b" in text
    assert len(text) < 400


class TestDemo:
    """The embedded cluster and the gateway together."""

    def test_it_shows_every_kind_of_event_and_ends_with_ctrl_c(self) -> None:
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
                deadline = time.monotonic() + 60
                for text in tail.stdout:
                    event = json.loads(text)
                    seen.add(event["type"].removeprefix("task-"))
                    if event["type"] == "task-started":
                        assert event["name"], event
                    if seen >= kinds:
                        break
                    assert time.monotonic() < deadline, f"still missing: {kinds - seen}"
            demo.send_signal(signal.SIGINT)
            assert demo.wait(10) == 130
            rest = self._read(main_end)
            assert b"Traceback" not in rest
            assert b"Error" not in rest
        finally:
            demo.kill()
            demo.wait()
            os.close(main_end)

    def test_it_says_when_its_port_is_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            done = call("demo", "--port", str(taken.getsockname()[1]))
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


def test_serve_says_where_its_broker_is_and_who_can_reach_it() -> None:
    broker = f"amqp://user:s3cret@127.0.0.1:{free_port()}/orders%2Feu"
    with running("serve", "--broker", broker, "--host", "0.0.0.0", "--port", "0", "--insecure") as serve:
        assert serve.stderr is not None
        first, second = serve.stderr.readline(), serve.stderr.readline()
        serve.terminate()
        assert serve.wait(10) == 0
        said = serve.stderr.read()
    assert f"broker {broker.rpartition('@')[2].partition('/')[0]}, vhost 'orders/eu'; try: curl" in first
    assert "INSECURE: 0.0.0.0 is not a loopback address" in second
    assert said.count("SIGTERM: shutting down") == 1
    assert "s3cret" not in first + second + said


def test_serve_says_what_to_do_about_events_that_it_refuses(
    gateway: GatewayProcess, publisher: Publisher
) -> None:
    publisher.send_raw(b"\x80\x04N.", "application/x-python-serialize", "binary")
    assert wait_for(lambda: 'set event_serializer = "json"' in gateway.log.read_text(), 10), gateway.tail()
    assert "refused so far, by reason: {'content-type': 1}" in gateway.log.read_text()


def test_serve_ends_with_ctrl_c_while_the_broker_is_away() -> None:
    with running("serve", "--broker", f"amqp://127.0.0.1:{free_port()}", "--port", "0") as serve:
        assert serve.stderr is not None
        assert "listening on" in serve.stderr.readline()
        assert "not consuming" in serve.stderr.readline()
        serve.send_signal(signal.SIGINT)
        assert serve.wait(10) == 130
        said = serve.stderr.read()
        assert "SIGINT: shutting down; open streams (0) are closed within 4 s" in said
        assert "Traceback" not in said


def test_a_password_is_never_printed(folder: Path) -> None:
    url = f"amqp://user:s3cret@127.0.0.1:{free_port()}/vhost"
    gateway = GatewayProcess(url, folder)
    gateway.launch()
    try:
        assert wait_for(lambda: "not consuming" in gateway.tail(), 10)
        assert "s3cret" not in gateway.log.read_text()
    finally:
        gateway.stop()
