"""The servers of the comparison: each is started for one measurement, on free ports of 127.0.0.1.

Each has here what a reader needs to judge the comparison: its configuration, and which process is measured.
"""

import re
import resource
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.lab import ROOT, Lab
from celery_gateway.tokens import sign
from tests.support.gateway_process import GatewayProcess
from tests.support.rabbitmq import Process, free_port

START_SECONDS = 20
SPARE_FILES = 100

# Nchan keeps messages in memory, enough for the longest measurement, and has no logs. With
# `master_process off` the only process of nginx is its worker, so stopping it leaves no orphans.
NGINX_CONFIGURATION = """\
load_module {modules}/ngx_nchan_module.so;
daemon off;
master_process off;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{
    worker_connections {connections};
}}
http {{
    access_log off;
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    nchan_shared_memory_size 256M;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        keepalive_requests 1000000;
        nchan_channel_id benchmark;
        location = /publish {{
            nchan_publisher;
            nchan_message_buffer_length 20000;
            nchan_message_timeout 60s;
        }}
        location = /events {{
            nchan_subscriber eventsource;
            nchan_subscriber_first_message newest;
        }}
    }}
}}
"""


class Unavailable(Exception):
    """A server cannot take part; the message has the reason and the fix."""


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        pid: the process whose CPU time and memory are measured.
        port: where the subscribers connect.
        subscribe: arguments of subscribers.c.
        publish: arguments of ``benchmarks.publish``.
    """

    pid: int
    port: int
    subscribe: Sequence[str]
    publish: Sequence[str]


class Contender(NamedTuple):
    """One row of the tables. ``start`` also takes further arguments for the server's command line."""

    name: str
    label: str
    start: Callable[..., AbstractContextManager[Server]]


@contextmanager
def gateway(transport: str, lab: Lab, *options: str) -> Iterator[Server]:
    """``python -m celery_gateway serve`` with its default settings, on the lab's RabbitMQ."""
    process = GatewayProcess(lab.broker_url, lab.new_folder("gateway"), options=options)
    process.start(START_SECONDS)
    try:
        yield Server(process.pid, process.port, GATEWAY_TRANSPORTS[transport], ("amqp", lab.broker_url))
    finally:
        process.stop()


@contextmanager
def secured_gateway(lab: Lab, *options: str) -> Iterator[Server]:
    """The gateway with authentication: all subscribers have one token, whose scope is a filter of names."""
    folder = lab.new_folder("access")
    (folder / "auth.toml").write_text(ACCESS_FILE)
    (folder / "secret").write_text(secret := secrets.token_hex(32))
    token = sign(secret, issuer="benchmark", subject="benchmark", name="*", minutes=60)
    with gateway("sse", lab, "--auth", str(folder / "auth.toml"), *options) as server:
        headers = f"text/event-stream\r\nAuthorization: Bearer {token}"  # in the place of Accept
        yield replace(server, subscribe=("-p", "/events", "-a", headers))


ACCESS_FILE = """\
[issuers.benchmark]
issuer = "benchmark"
algorithm = "HS256"
secret_file = "secret"
[issuers.benchmark.quota]
streams = 100_000
new_streams_per_second = 100_000
memory_bytes = 200_000_000
"""
GATEWAY_TRANSPORTS = {
    "sse": ("-p", "/events", "-a", "text/event-stream"),
    "ndjson": ("-p", "/events", "-a", "application/x-ndjson"),
    "ws": ("-k", "ws", "-p", "/ws"),
}


@contextmanager
def nchan(lab: Lab) -> Iterator[Server]:
    """nginx with Nchan, EventSource subscribers of one channel in memory, fed by POST."""
    nginx = _program("nginx", "nginx-light libnginx-mod-nchan")
    about = subprocess.run([nginx, "-V"], capture_output=True, text=True).stderr
    found = re.search(r"--modules-path=(\S+)", about)
    modules = Path(found[1] if found else "/usr/lib/nginx/modules")
    if not (modules / "ngx_nchan_module.so").exists():
        raise Unavailable(_missing("nginx with nchan", "nginx-light libnginx-mod-nchan"))
    folder, port = lab.new_folder("nginx"), free_port()
    configuration = folder / "nginx.conf"
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    configuration.write_text(
        NGINX_CONFIGURATION.format(
            modules=modules, folder=folder, port=port, files=files, connections=files - SPARE_FILES
        )
    )
    with _running([nginx, "-p", folder, "-c", configuration], folder, port) as pid:
        yield Server(pid, port, ("-p", "/events"), ("nchan", str(port)))


@contextmanager
def nats(lab: Lab) -> Iterator[Server]:
    """nats-server with its default settings: one subject, plain NATS subscribers."""
    program = _program("nats-server", "nats-server")
    folder, port = lab.new_folder("nats"), free_port()
    with _running([program, "-a", "127.0.0.1", "-p", str(port)], folder, port) as pid:
        yield Server(pid, port, ("-k", "nats"), ("nats", str(port)))


@contextmanager
def floor(lab: Lab) -> Iterator[Server]:
    """floor.c: send() of a joined buffer, and nothing else."""
    folder, port, feed_port = lab.new_folder("floor"), free_port(), free_port()
    with _running([lab.floor, str(port), str(feed_port)], folder, port) as pid:
        yield Server(pid, port, ("-p", "/"), ("lines", str(feed_port)))


@contextmanager
def naive(lab: Lab) -> Iterator[Server]:
    """naive.py: sse-starlette with a queue and an encoding per client, on the lab's RabbitMQ."""
    folder, port = lab.new_folder("naive"), free_port()
    args = [sys.executable, "-m", "benchmarks.naive", lab.broker_url, str(port)]
    with _running(args, folder, port) as pid:
        yield Server(pid, port, ("-p", "/events"), ("amqp", lab.broker_url))


@contextmanager
def _running(args: Sequence[str | Path], folder: Path, port: int) -> Iterator[int]:
    """Yield a server's process id, once it listens."""
    process = Process(args, log=folder / "log", cwd=ROOT)
    try:
        process.wait_until(lambda: _listens(port), START_SECONDS)
        yield process.pid
    finally:
        process.stop()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _program(name: str, packages: str) -> str:
    # Debian installs nginx in /usr/sbin, which is only in root's PATH.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise Unavailable(_missing(name, packages))
    return path


def _missing(what: str, packages: str) -> str:
    return f"{what} is missing: apt-get install -y --no-install-recommends {packages}"


CONTENDERS = (
    Contender("gateway-sse", "gateway, SSE", partial(gateway, "sse")),
    Contender("gateway-auth", "gateway, SSE, with authentication", secured_gateway),
    Contender("gateway-ndjson", "gateway, NDJSON", partial(gateway, "ndjson")),
    Contender("gateway-ws", "gateway, WebSocket", partial(gateway, "ws")),
    Contender("nchan", "nginx + Nchan, SSE", nchan),
    Contender("nats", "nats-server, NATS", nats),
    Contender("floor", "lower bound: C, only send()", floor),
    Contender("naive", "naive: one queue per client, SSE", naive),
)
