"""How `celery-gateway tail` reaches a gateway: its URL, and proxies. (Its streams: tests/cli/test_cli.py.)"""

import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
from click import unstyle
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_gateway.cli.event_line import event_line
from celery_gateway.cli.outcome import Outcome
from celery_gateway.cli.proxy import is_loopback, parse, proxy_of
from celery_gateway.cli.redact import redacted
from celery_gateway.cli.tail import tail as command
from celery_gateway.cli.terminal import printable_json
from celery_gateway.errors import GatewayError
from celery_gateway.events.event import FILTER_FIELDS
from celery_gateway.events.event_types import STATE_OF_EVENT
from tests.support.gateway_process import ROOT
from tests.support.rabbitmq import free_port
from tests.support.thorough import tries

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
TERMINAL_SIZE = ("columns", "lines")  # readline sets them, and so a pytest-xdist worker can have them
QUIET = {
    key: value
    for key, value in os.environ.items()
    if not key.startswith(("GATEWAY_", "CELERY_")) and key.lower() not in (*PROXIES, *TERMINAL_SIZE)
}


def tail(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "celery_gateway", "tail", *arguments],
        env=QUIET | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )


class Answers(BaseHTTPRequestHandler):
    """Answers like a gateway whose stream ends, whatever is asked for; and redirects."""

    asked: list[str]
    body = b'{"type":"gateway-close","reason":"ready","id":"a-1","known":1,"ready":1}\n'

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if "/moved" in self.path:
            self.send_response(301)
            self.send_header("Location", self.path.replace("/moved", "/celery"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def http_server(body: bytes = Answers.body) -> Iterator[tuple[int, list[str]]]:
    """Its port, and the targets that it was asked for, which are whole URLs if it is used as a proxy."""
    asked: list[str] = []
    handler = type("Handler", (Answers,), {"asked": asked, "body": body})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_address[1], asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:8555", "http://localhost:8555"),
        ("gateway.example/celery", "http://gateway.example/celery"),
        ("https://gateway.example/celery/", "https://gateway.example/celery"),
        ("http://gateway.example/celery/events", "http://gateway.example/celery"),
        ("[::1]:8555", "http://[::1]:8555"),
        ("user:secret@gateway.example", "http://user:secret@gateway.example"),
    ],
)
def test_a_url_may_lack_its_scheme(text: str, url: str) -> None:
    assert parse(text).geturl() == url


@pytest.mark.parametrize(
    "text",
    ["", "ftp://x", "http://", "localhost:port", "localhost:99999", "[::1", "http:///x", "localhost?a=b"],
)
def test_what_is_no_url_of_a_gateway_is_refused_without_passwords(text: str) -> None:
    with pytest.raises(click.UsageError):
        parse(text)
    with pytest.raises(click.UsageError) as refused:
        parse("ftp://user:secret@x")
    assert "secret" not in refused.value.message and "user:***@x" in refused.value.message


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("http://gateway.example", {"http": "http://p:1"}, "http://p:1"),
        ("http://gateway.example", {"http": "p:1"}, "http://p:1"),
        ("http://gateway.example", {"all": "http://p:1"}, "http://p:1"),
        ("https://gateway.example", {"http": "http://p:1"}, None),
        ("http://gateway.example", {"http": "http://p:1", "no": "ample"}, "http://p:1"),
        ("http://gateway.example", {"http": "http://p:1", "no": "localhost, .example"}, None),
        ("http://gateway.example", {"http": "http://p:1", "no": "*"}, None),
        ("http://[2001:db8::1]:80", {"http": "http://p:1", "no": "[::1],[2001:db8::1]"}, None),
        ("http://localhost:8555", {"http": "http://p:1"}, None),
        ("http://127.1.2.3", {"all": "socks5://p:1"}, None),
        ("http://[::1]:8555", {"http": "http://p:1", "no": "[::1"}, None),
    ],
)
def test_which_proxy_is_asked(url: str, environment: dict[str, str], proxy: str | None) -> None:
    assert proxy_of(urlsplit(url), environment)[1] == proxy


@pytest.mark.parametrize(
    ("host", "is_this_machine"),
    [("localhost", True), ("a.localhost", True), ("::1", True), ("127.9.9.9", True), ("0.0.0.0", False)]
    + [("localhost.example", False), ("10.0.0.1", False)],
)
def test_which_hosts_are_this_machine(host: str, is_this_machine: bool) -> None:
    assert is_loopback(host) is is_this_machine


@pytest.mark.parametrize(
    "environment",
    [
        {"HTTP_PROXY": "http://127.0.0.1:9"},
        {"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "localhost,[::1]"},
        {"ALL_PROXY": "socks5://127.0.0.1:9"},
    ],
)
def test_a_gateway_of_this_machine_is_asked_directly(environment: dict[str, str]) -> None:
    with http_server() as (port, asked):
        done = tail(f"localhost:{port}", **environment)
    assert done.returncode == 1, done.stderr  # the stream has ended, and no task was in it
    assert done.stderr == ""
    assert asked == ["/events?format=ndjson"]


def test_another_host_is_asked_through_the_proxy_and_redirects_are_followed() -> None:
    with http_server() as (port, asked):
        done = tail("gateway.example/moved", HTTP_PROXY=f"127.0.0.1:{port}", NO_PROXY="localhost,[::1]")
    assert "gateway-close" in done.stdout, done.stderr
    assert asked == [f"http://gateway.example/{path}/events?format=ndjson" for path in ("moved", "celery")]


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        (
            {"ALL_PROXY": "socks5://u:s3cret@127.0.0.1:9"},
            "cannot use the proxy socks5://u:***@127.0.0.1:9 (ALL_PROXY in the environment): a SOCKS proxy",
        ),
        (
            {"http_proxy": "ftp://127.0.0.1:9"},
            "(http_proxy in the environment): the URL of a proxy begins with",
        ),
        (
            {"HTTP_PROXY": "http://u:s3cret@127.0.0.1:9"},
            "cannot connect to http://gateway.example/events through the proxy http://u:***@127.0.0.1:9: ",
        ),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(environment: dict[str, str], says: str) -> None:
    done = tail("gateway.example", **environment)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr and "s3cret" not in done.stderr


def test_the_password_of_a_gateway_is_not_shown() -> None:
    done = tail(f"u:s3cret@127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "http://u:***@127.0.0.1" in done.stderr and "s3cret" not in done.stderr


def test_the_exit_codes_are_in_the_help() -> None:
    text = tail("--help").stdout
    for code in (0, 1, 2, 3, 4, 5, 130):
        assert re.search(rf"(?m)^ +{code}  [a-z]", text.partition("Exit codes:")[2]), text


def test_failures_are_listed_at_the_end_of_a_wait() -> None:
    outcome = Outcome(is_workflow=True, target="r")
    assert outcome.progress == "workflow r (no event of it yet)"
    tasks = [
        {"uuid": f"task-{number}", "state": "FAILURE", "name": "n", "exception": f"E({number})"}
        for number in range(7)
    ]
    page = {"type": "gateway-snapshot", "done": True, "tasks": [*tasks, {"uuid": "x", "state": "STARTED"}]}
    outcome.record(page)
    assert outcome.progress == "workflow r (7 of 8 known tasks ready)"
    assert list(outcome.notes(page)) == []
    outcome.record({"type": "task-revoked", "uuid": "task-0", "state": "REVOKED", "name": "n"})
    closed = {"type": "gateway-close", "reason": "ready"}
    notes = list(outcome.notes(closed))
    assert notes[:2] == ["revoked: n task-0", "failed: n task-1: E(1)"]
    assert notes[5:] == ["… and 2 more tasks that did not succeed"]


# Whatever a stream has

ODD_NUMBERS = [1e308, -1e308, math.inf, -math.inf, math.nan, 10**400, 2**63, 253402300799.9, -62135596800]
ODD_TIMES = [
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "2026-02-30T00:00:00Z",
    "24:00",
]
ODD_TEXTS = [
    "\x1b[2J",
    "a\x9bb",
    "\u202e\ud800\u2028",
    "\x00\n\r\x7f",
    "gateway-close",
    "task-own",
    "x" * 3000,
]
ODD = st.sampled_from([*ODD_NUMBERS, *ODD_TIMES, *ODD_TEXTS])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    *(
        *FILTER_FIELDS,
        "time",
        "timestamp",
        "id",
        "runtime",
        "result",
        "exception",
        "args",
        "kwargs",
        "reason",
    ),
    *("active", "processed", "truncated", "sources", "tasks", "worker", "consuming", "done", "message"),
    *("known", "ready", "\x1b]0;x\x07"),
]
OBJECT = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=12)
TYPES = st.sampled_from(
    [*STATE_OF_EVENT, "task-lost", "gateway-close", "gateway-snapshot", "gateway-status", "gateway-gap"]
    + ["worker-online", "task-own", "\x1b[31m"]
)
MESSAGE = st.builds(
    lambda kind, fields, tasks, sources: {
        **fields,
        "type": kind,
        **({"tasks": tasks} if kind == "gateway-snapshot" and "tasks" not in fields else {}),
        **({"sources": sources} if kind == "gateway-status" and "sources" not in fields else {}),
    },
    TYPES,
    OBJECT,
    st.lists(OBJECT | JSON, max_size=2),
    st.lists(OBJECT | JSON, max_size=2),
)
ZONES = ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"]


@pytest.fixture(params=ZONES, scope="module")
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield request.param
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def steers(text: str) -> bool:
    """Whether a text could steer a terminal, by more than the colours and new lines of ours."""
    return any(
        ord(character) < 32 or 0x7F <= ord(character) < 0xA0 or character in "\u202e\u2028\ud800"
        for character in unstyle(text).replace("\n", "")
    )


@settings(max_examples=tries(60), suppress_health_check=[HealthCheck.too_slow])
@given(MESSAGE)
def test_any_json_gives_a_line_that_cannot_steer_the_terminal(zone: str, message: dict[str, Any]) -> None:
    text = event_line(message)
    if text is not None:
        assert not steers(text), text
        (text + "\n").encode()
    event_line({name: value for name, value in message.items() if name != "type"})  # not even a type


@pytest.mark.parametrize(
    "value", ["9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00Z", 253402300799.9, -62135596800]
)
def test_the_first_and_the_last_year_have_lines(zone: str, value: object) -> None:
    event = {"type": "task-started", "time": value, "name": "shop.pay", "uuid": "u-1"}
    assert "shop.pay" in (event_line(event) or "")
    page = {"type": "gateway-snapshot", "tasks": [{"uuid": "u-1", "name": "shop.pay", "timestamp": value}]}
    assert "shop.pay" in (event_line(page) or "")


@settings(max_examples=tries(60), suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(MESSAGE, max_size=4), st.booleans())
def test_the_outcome_takes_any_json(messages: list[dict[str, Any]], is_workflow: bool) -> None:
    outcome = Outcome(is_workflow=is_workflow, target="g")
    for message in messages:
        outcome.record(message)
        assert isinstance("".join(outcome.notes(message)) + outcome.progress, str)
    assert outcome.exit_code in (0, 1, 3, 4)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=3))
def test_json_for_a_terminal_has_the_same_content_and_cannot_steer_it(value: dict[str, Any]) -> None:
    shown = printable_json(json.dumps(value, ensure_ascii=False, indent="\t"))
    assert not steers(shown)
    assert json.dumps(json.loads(shown)) == json.dumps(json.loads(json.dumps(value)))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"type":"task-own","id":"a-1","n":' + b"1" * 5000 + b"}\n", "task-own"),
        (b"[" * 100_000 + b"\n", "cannot connect to"),
        (b'["gateway-close"]\n', "not a message of a gateway"),
        (b'{"type":{},"id":1}\n', "not a message of a gateway"),
        (b'{"type":"\xff"}\n', "not UTF-8"),
        (b'{"type":"task-own","id":"\xc3\xa9\\n","time":"9999-12-31T23:59:59Z","name":[]}\n', "task-own"),
    ],
)
def test_a_stream_that_is_not_a_gateways_ends_without_a_traceback(body: bytes, says: str) -> None:
    with http_server(body + Answers.body) as (port, _):
        done = CliRunner().invoke(command, [f"localhost:{port}", "--timeout", "5"])
    assert isinstance(done.exception, GatewayError) or done.exit_code == 1
    assert says in f"{done.output}{done.exception}"


@pytest.mark.parametrize(
    "url",
    [
        "http://u:s3cret@h:80/events?access_token=s3cret&name=a",
        "http://s3cret@h",
        "http://u:s3/cret@h/x",
        "http://u:1/s3cret@h",
        "http://u:s3?cret@h:1/?api_key=s3cret;sig=s3cret",
        "http://u:s#3cret@h",
        "http://u:s3@cret@h/",
        "http://u:s3cret@[::1",
        "http://:s3cret@h",
        "http://h/?a=1&ACCESS_TOKEN=s3cret#token=s3cret",
        "http://h/?next=http://u:s3cret@x",
        "u:s3cret@h:port",
    ],
)
def test_no_secret_of_a_url_is_shown(url: str) -> None:
    for secret in ("s3", "cret", "3cret"):
        assert secret not in redacted(url)
    try:
        parse(url)
    except click.UsageError as refused:
        assert "cret" not in refused.message and "s3" not in refused.message


def test_a_url_without_secrets_is_shown_as_it_is() -> None:
    for url in ("http://h:8555/events?name=a@b&type=x", "https://[::1]:80/celery", "localhost:8555"):
        assert redacted(url) == url
