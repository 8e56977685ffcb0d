"""Proxies before a gateway, as their users set them up first: defaults, and compression switched on.

The files of deploy/nginx have tests of their own, in test_nginx.py. docs/compatibility.md has the table that
these tests show.
"""

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.support.gateway_process import GatewayProcess
from tests.support.npm_readers import DEV_SERVERS, installed
from tests.support.publisher import Publisher
from tests.support.rabbitmq import Process, free_port, wait_for
from tests.support.stream_client import NdjsonStream, SseStream
from tests.support.transports import KINDS, Message, messages

PATH = "/celery"
KEEPALIVE_SECONDS = 0.3
IDLE_KEEPALIVES = 10
PROXY_TIMEOUT_SECONDS = 2
"""Less than the gateway is idle in these tests: its keep-alives keep the stream open."""
GZIP_TYPES = "text/event-stream application/x-ndjson"

# HTTP/1.0, the default, except for WebSockets: these need 1.1, and the Host that Origin is compared with.
NGINX = """
{user}
pid {folder}/nginx.pid;
events {{}}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    access_log off;
    gzip on;
    gzip_proxied any;
    gzip_types {types};
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{gateway_port};
            proxy_read_timeout {timeout}s;
        }}
        location /celery/ws {{
            proxy_pass http://127.0.0.1:{gateway_port};
            proxy_read_timeout {timeout}s;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""

HAPROXY = """
global
    stats socket {folder}/haproxy.sock
defaults
    mode http
    timeout connect 5s
    timeout client {timeout}s
    timeout server {timeout}s
    timeout tunnel {timeout}s
    compression algo gzip
    compression type {types}
frontend all
    bind 127.0.0.1:{port}
    default_backend gateway
backend gateway
    option httpchk
    server one 127.0.0.1:{gateway_port} check inter 100ms
backend other
    option httpchk GET /readyz
    server two 127.0.0.1:{gateway_port} check inter 100ms
"""

CADDY = """
{{
    admin off
    auto_https off
}}
http://:{port} {{
    bind 127.0.0.1
    encode gzip
    reverse_proxy 127.0.0.1:{gateway_port}
}}
"""


class RunningProxy(NamedTuple):
    """A proxy, and where the gateway is found behind it."""

    url: str
    port: int
    folder: Path
    process: Process


@pytest.fixture(scope="module")
def gateway(broker: str, folder: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(
        broker, folder, options=["--root-path", PATH, "--keepalive", str(KEEPALIVE_SECONDS)]
    )
    try:
        process.start()
        yield process
    finally:
        process.stop()


def program(name: str) -> str:
    """Where Debian has it is not in every PATH."""
    return shutil.which(name) or f"/usr/sbin/{name}"


def nginx(folder: Path, configuration: Path) -> list[str]:
    return [
        program("nginx"),
        "-p",
        str(folder),
        "-c",
        str(configuration),
        "-e",
        "stderr",
        "-g",
        "daemon off;",
    ]


def haproxy(folder: Path, configuration: Path) -> list[str]:
    return [program("haproxy"), "-db", "-f", str(configuration)]


def caddy(folder: Path, configuration: Path) -> list[str]:
    return [program("caddy"), "run", "--config", str(configuration), "--adapter", "caddyfile"]


CONFIGURED: dict[str, tuple[str, Callable[[Path, Path], list[str]]]] = {
    "nginx": (NGINX, nginx),
    "haproxy": (HAPROXY, haproxy),
    "caddy": (CADDY, caddy),
}


def configured(name: str, gateway: GatewayProcess, folder: Path) -> RunningProxy:
    """A proxy that has a configuration file, started."""
    text, command = CONFIGURED[name]
    port = free_port()
    configuration = folder / f"{name}.conf"
    configuration.write_text(
        text.format(
            folder=folder,
            port=port,
            gateway_port=gateway.port,
            timeout=PROXY_TIMEOUT_SECONDS,
            types=GZIP_TYPES,
            user="user root;" if os.geteuid() == 0 else "",
        )
    )
    process = Process(
        command(folder, configuration),
        log=folder / f"{name}.log",
        env={**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
        cwd=folder,
    )
    process.wait_until(lambda: listens(port), 15)
    return RunningProxy(f"http://127.0.0.1:{port}{PATH}", port, folder, process)


def scripted(script: Path, gateway: GatewayProcess, folder: Path) -> RunningProxy:
    """A proxy in Node that prints its port, started."""
    process = Process(["node", script, gateway.url], log=folder / f"{script.stem}.log", cwd=script.parent)

    def port() -> int | None:
        found = re.search(r"listening on (\d+)", process.log.read_text())
        return int(found[1]) if found else None

    process.wait_until(lambda: port() is not None, 60)
    listening = port()
    assert listening is not None
    return RunningProxy(f"http://127.0.0.1:{listening}{PATH}", listening, folder, process)


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def started(name: str, gateway: GatewayProcess, folder: Path) -> RunningProxy:
    if name in CONFIGURED:
        return configured(name, gateway, folder)
    if name == "express":
        return scripted(installed() / "express.mjs", gateway, folder)
    if not (DEV_SERVERS / "node_modules").exists():
        pytest.skip(f"{name} is not installed: `make matrix` does that")
    return scripted(DEV_SERVERS / f"{name}.mjs", gateway, folder)


@pytest.fixture(scope="module", params=["nginx", "haproxy", "caddy", "express", "webpack-dev-server", "vite"])
def proxy(
    request: pytest.FixtureRequest, gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningProxy]:
    proxy = started(request.param, gateway, tmp_path_factory.mktemp(request.param))
    try:
        yield proxy
    finally:
        proxy.process.stop()


def websocket_messages(proxy: RunningProxy, type: str) -> Iterator[Message]:
    """Yield the messages of a WebSocket with the Origin that a page has behind the same proxy."""
    origin = f"http://127.0.0.1:{proxy.port}"
    url = f"{proxy.url.replace('http', 'ws', 1)}/ws?type={type}"
    with connect(url, origin=Origin(origin)) as websocket:
        while True:
            yield json.loads(websocket.recv(timeout=10))


@pytest.mark.parametrize("kind", KINDS)
def test_events_come_at_once(proxy: RunningProxy, publisher: Publisher, kind: str) -> None:
    """One small event at a time, each read before the next is sent, by a client that takes gzip."""
    type = f"at-once-{kind}-{proxy.port}"
    if kind == "websocket":
        with closing(websocket_messages(proxy, type)) as stream:
            assert next(stream)["resume"] == "live"
            for n in range(5):
                publisher.send({"type": type, "n": n})
                assert next(message for message in stream if message["type"] == type)["n"] == n
    else:
        with (SseStream if kind == "sse" else NdjsonStream)(proxy.url, {"type": type}) as client:
            assert "gzip" in client.response.request.headers["Accept-Encoding"]
            for n in range(5):
                publisher.send({"type": type, "n": n})
                client.until(lambda events, n=n: len(events) == n + 1, 5)


def test_keepalives_pass(proxy: RunningProxy) -> None:
    """They keep streams of all kinds open for longer than the proxy's timeouts."""
    every = frozenset[str]()
    streams = [messages(proxy, kind, type="nothing", skipped=every) for kind in ("sse", "ndjson")]
    streams.append(websocket_messages(proxy, "nothing"))
    with ExitStack() as stack:
        for stream in streams:
            stack.callback(stream.close)
            assert [next(stream)["type"] for _ in range(2)] == ["gateway-open", "gateway-status"]
        started_at = time.monotonic()
        for stream in streams:
            got = [next(stream)["type"] for _ in range(IDLE_KEEPALIVES)]
            assert got == ["gateway-bookmark"] * IDLE_KEEPALIVES
        assert time.monotonic() - started_at > PROXY_TIMEOUT_SECONDS


def test_a_long_stream_is_whole(proxy: RunningProxy, publisher: Publisher) -> None:
    """What a proxy cuts into chunks of its own arrives as it was sent."""
    type, text = f"long-{proxy.port}", "".join(f"{n:x} " for n in range(80_000))[:300_000]
    with SseStream(proxy.url, {"type": type}) as client:
        for n in range(5):
            publisher.send({"type": type, "n": n, "text": text})
        events = client.until(lambda events: len(events) == 5, 10)
    assert [(event["n"], event["text"] == text) for event in events] == [(n, True) for n in range(5)]


def test_haproxys_health_checks_pass(gateway: GatewayProcess, tmp_path: Path) -> None:
    """`option httpchk` as it is asks with OPTIONS and HTTP/1.0, without a Host; and GET with a path."""
    proxy = configured("haproxy", gateway, tmp_path)
    try:
        passed = {"one": "UP L7OK/204", "two": "UP L7OK/200"}
        assert wait_for(lambda: checks(proxy) == passed, 10), checks(proxy)
    finally:
        proxy.process.stop()


def checks(proxy: RunningProxy) -> dict[str, str]:
    """The servers that HAProxy has checked, with their states, and what the last check found."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(proxy.folder / "haproxy.sock"))
        except FileNotFoundError:
            return {}  # HAProxy renames it to this name after it has opened the TCP port
        client.sendall(b"show stat\n")
        lines = client.makefile().read().removeprefix("# ").splitlines()
    rows = csv.DictReader(lines)
    return {
        row["svname"]: f"{row['status']} {row['check_status'].removeprefix('* ')}/{row['check_code']}"
        for row in rows
        if row["svname"] in ("one", "two") and row["check_code"]
    }


COMMANDS = {
    "curl": ["curl", "-sN"],
    "curl --http1.0": ["curl", "-sN", "--http1.0"],
    "wget": ["wget", "-qO-"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name: str, gateway: GatewayProcess, publisher: Publisher) -> None:
    """Each line is there at once, and is JSON: no sizes of chunks between them."""
    type = f"command-{name.replace(' ', '')}"
    command = [*COMMANDS[name], f"{gateway.url}/events?format=ndjson&type={type}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert json.loads(process.stdout.readline())["resume"] == "live"
            numbers: list[int] = []
            for n in range(5):
                publisher.send({"type": type, "n": n})
                while len(numbers) == n:
                    message = json.loads(process.stdout.readline())
                    numbers += [message["n"]] if message["type"] == type else []
            assert numbers == list(range(5))
        finally:
            process.terminate()


def test_http_1_0_gets_no_chunks(gateway: GatewayProcess) -> None:
    """The connection's end is the stream's end, as that version of HTTP has it."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
        client.sendall(b"GET /events?format=ndjson&type=nothing HTTP/1.0\r\n\r\n")
        answer = client.makefile("rb")
        status, *headers = iter(answer.readline, b"\r\n")
        assert b" 200 " in status
        assert [header for header in headers if header.lower().startswith(b"transfer-encoding")] == []
        assert json.loads(answer.readline())["type"] == "gateway-open"
