"""Each remedy is pasted, and `check` passes afterwards; unusable URLs are refused in one line."""

import asyncio
import json
import re
import ssl
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from celery_gateway.broker.amqp_source import AMQPSource
from celery_gateway.broker.pidbox import Command
from celery_gateway.broker.pidbox_client import request
from celery_gateway.broker.source import Status
from celery_gateway.broker.urls import brokers
from celery_gateway.check.preflight import preflight
from celery_gateway.check.step import Result, exit_code
from celery_gateway.errors import WorkerControlError
from tests.support.gateway_process import ROOT
from tests.support.proxy import Proxy
from tests.support.rabbitmq import Process, RabbitMQ, free_port, wait_for
from tests.support.rabbitmq_users import add_user, set_permissions
from tests.support.redis_server import RedisServer, commands, dispatching, redis_server
from tests.support.thorough import variants

PASSWORD = "s3cr3t"


def checked(url: str, wait_seconds: float = 6.0) -> Result:
    (broker,) = brokers(url)
    result = asyncio.run(preflight(broker.urls[0], "celeryev", wait_seconds, access=broker.access))
    assert PASSWORD not in str(result)
    return result


def finding(result: Result) -> tuple[str | None, str]:
    """The first finding, and its remedy."""
    return next(((step.finding, step.remedy) for step in result.steps if step.finding), (None, ""))


# ------------------------------------------------------------------------------------- RabbitMQ


@pytest.fixture(scope="module")
def named(rabbitmq: RabbitMQ) -> tuple[str, str, str]:
    """A user and a vhost whose names need quotes in a shell, and their URL."""
    user, vhost = f"joe's user-{uuid.uuid4().hex[:8]}", f'my "shop"/\'{uuid.uuid4().hex[:8]}'
    add_user(rabbitmq, user, PASSWORD)
    rabbitmq.ctl("add_vhost", vhost)
    set_permissions(rabbitmq, vhost, "guest", ".*", ".*", ".*")
    set_permissions(rabbitmq, vhost, user, ".*", ".*", ".*")
    url = f"amqp://{quote(user, safe='')}:{PASSWORD}@127.0.0.1:{rabbitmq.port}/{quote(vhost, safe='')}"
    return user, vhost, url


@pytest.fixture(scope="module")
def traffic(rabbitmq: RabbitMQ, named: tuple[str, str, str]) -> Iterator[None]:
    _, _, url = named
    with dispatching(re.sub("//.*@", "//guest:guest@", url)):
        yield


def paste(rabbitmq: RabbitMQ, remedy: str) -> None:
    lines = commands(remedy, "rabbitmqctl")
    assert lines, remedy
    for line in lines:
        rabbitmq.ctl(*line[1:])


def test_a_missing_vhost_and_the_permissions_there(rabbitmq: RabbitMQ, named: tuple[str, str, str]) -> None:
    url = f"{named[2].rpartition('/')[0]}/no%20{uuid.uuid4().hex[:8]}%27s"
    result = checked(url)
    assert finding(result)[0] == "vhost-unknown"
    paste(rabbitmq, finding(result)[1])
    assert finding(checked(url, 0.3))[0] == "no-workers"


Names = tuple[str, str, str]
Limit = tuple[str, str, Callable[[RabbitMQ, str, str], Any]]
LIMITS: list[Limit] = [
    (
        "permissions",
        "permission-refused",
        lambda broker, user, vhost: broker.ctl("set_permissions", "-p", vhost, user, "^$", "^$", "^$"),
    ),
    (
        "no access to the vhost",
        "vhost-refused",
        lambda broker, user, vhost: broker.ctl("clear_permissions", "-p", vhost, user),
    ),
    (
        "topics",
        "permission-refused",
        lambda broker, user, vhost: broker.ctl(
            "set_topic_permissions", "-p", vhost, user, "celeryev", r"^task\..*", r"^task\..*"
        ),
    ),
    (
        "queues of a vhost",
        "limit-reached",
        lambda broker, user, vhost: broker.ctl("set_vhost_limits", "-p", vhost, '{"max-queues": 1}'),
    ),
    (
        "connections of a vhost",
        "limit-reached",
        lambda broker, user, vhost: broker.ctl("set_vhost_limits", "-p", vhost, '{"max-connections": 1}'),
    ),
    (
        "connections of a user",
        "limit-reached",
        lambda broker, user, vhost: broker.ctl("set_user_limits", user, '{"max-connections": 0}'),
    ),
    (
        "channels of a user",
        "limit-reached",
        lambda broker, user, vhost: broker.ctl("set_user_limits", user, '{"max-channels": 1}'),
    ),
]


@pytest.mark.parametrize("limit", variants(3, LIMITS), ids=[name for name, *_ in LIMITS])
def test_restrictions_of_rabbitmq(
    limit: Limit, rabbitmq: RabbitMQ, named: tuple[str, str, str], traffic: None
) -> None:
    _, code, restrict = limit
    user, vhost, url = named
    restrict(rabbitmq, user, vhost)
    result = checked(url)
    assert finding(result)[0] == code, result
    paste(rabbitmq, finding(result)[1])
    result = checked(url)
    assert exit_code(result.steps) == 0, result


class Sink:
    def __init__(self) -> None:
        self.statuses: list[Status] = []

    def message(self, message: Any) -> None: ...

    def lost(self) -> None: ...

    def status(self, status: Status) -> None:
        self.statuses.append(status)


async def test_a_memory_alarm(own_rabbitmq: RabbitMQ) -> None:
    """A running gateway reports the alarm and its end; so does `check`."""
    rabbitmq, url = own_rabbitmq, own_rabbitmq.add_vhost(f"alarm-{uuid.uuid4().hex[:8]}")
    sink = Sink()
    running = asyncio.create_task(AMQPSource([url]).run(sink))
    try:
        await until(lambda: bool(sink.statuses))
        await asyncio.to_thread(rabbitmq.ctl, "set_vm_memory_high_watermark", "0.0001")
        await until(lambda: "alarm" in sink.statuses[-1].reason)
        assert sink.statuses[-1].is_consuming
        (broker,) = brokers(url)
        result = await preflight(broker.urls[0], "celeryev", 4.0)
        assert finding(result)[0] == "publishers-blocked", result
        await asyncio.to_thread(paste, rabbitmq, finding(result)[1])
        await until(lambda: "alarm" not in sink.statuses[-1].reason)
        with dispatching(url):
            assert exit_code((await preflight(broker.urls[0], "celeryev", 6.0)).steps) == 0
    finally:
        await asyncio.to_thread(rabbitmq.ctl, "set_vm_memory_high_watermark", "0.6")
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def until(condition: Callable[[], bool], seconds: float = 90) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it is not true in time.
    """
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("refused", ["tripwire", "overflow"])
async def test_a_missing_permission_leaves_no_queue_without_consumer(
    refused: str, rabbitmq: RabbitMQ, named: tuple[str, str, str]
) -> None:
    """Optional declarations are skipped; each queue that is bound to the events has a consumer."""
    user, vhost, url = named
    own = rf"^celery-gateway\.(?!{refused})"
    await asyncio.to_thread(
        rabbitmq.ctl, "set_permissions", "-p", vhost, user, own, own, rf"{own}|^celeryev$"
    )
    sink = Sink()
    running = asyncio.create_task(AMQPSource([url]).run(sink))
    try:
        with dispatching(re.sub("//.*@", "//guest:guest@", url)):  # it declares the exchange
            await until(lambda: bool(sink.statuses) and sink.statuses[-1].is_consuming, 15)
            text = await asyncio.to_thread(
                rabbitmq.ctl, *("list_queues", "-p", vhost, "name", "consumers", "--no-table-headers")
            )
        consumers = dict(line.split("\t") for line in text.splitlines() if "celery-gateway" in line)
        events = {name: count for name, count in consumers.items() if ".overflow." not in name}
        assert list(events.values()) == ["1"], text
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


# ------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, and its key, in one file."""
    path, key, public = folder / "both.pem", folder / "its.key", folder / "its.crt"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", public),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(key.read_text() + public.read_text())
    return path


def test_remote_control_uses_the_query_of_the_url_as_the_source_does(
    rabbitmq: RabbitMQ, broker: str, certificate: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def replies(url: str) -> list[Any]:
        return list(request(brokers(url)[0].urls[0], [Command.ACTIVE], None, 0.2))

    with Proxy(rabbitmq.port, tls=context) as proxy:
        secure = proxy.url(broker).replace("amqp://", "amqps://")
        for query in (
            f"cafile={certificate}",
            f"cacertfile={certificate}&connection_timeout=7&name=x&heartbeat=3",
            "no_verify_ssl=1",
        ):
            assert replies(f"{secure}?{query}") == []
        with pytest.raises(WorkerControlError, match="CERTIFICATE_VERIFY_FAILED"):
            replies(secure)
    assert replies(f"{broker}?connection_timeout=7&timeout=5&auth=plain") == []


def test_redis_with_tls(folder: Path, certificate: Path) -> None:
    port = free_port()
    options = ["--tls-port", str(port), "--tls-auth-clients", "no"]
    options += ["--tls-cert-file", str(certificate), "--tls-key-file", str(certificate)]
    options += ["--tls-ca-cert-file", str(certificate)]
    with redis_server(folder, *options) as server, dispatching(server.url):
        plain = f"redis://127.0.0.1:{port}/0"
        code, remedy = finding(checked(plain))
        assert code == "tls" and remedy == "Begin the URL with rediss://"
        assert exit_code(checked(plain.replace("redis", "rediss")).steps) == 0
        strict = plain.replace("redis", "rediss") + "?ssl_cert_reqs=required"
        code, remedy = finding(checked(strict))
        assert code == "certificate" and "ssl_ca_certs=/path/ca.pem" in remedy
        assert exit_code(checked(f"{strict}&ssl_ca_certs={certificate}").steps) == 0
        code, remedy = finding(checked(server.url.replace("redis", "rediss")))
        assert code == "tls" and "begin the URL with redis://" in remedy
        assert finding(checked(f"{strict}&ssl_ca_certs=/nowhere.pem"))[0] == "url"


# ------------------------------------------------------------------------------------- Redis


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RedisServer]:
    with redis_server(folder, "--databases", "4") as server, dispatching(server.url):
        yield server


def paste_redis(server: RedisServer, remedy: str) -> None:
    lines = commands(remedy, "redis-cli")
    assert lines, remedy
    for line in lines:
        assert line[1:5] == ["-h", "127.0.0.1", "-p", str(server.port)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=10)
        has_all = "pattern after the *" in done.stdout
        assert done.stdout.strip() == "OK" or has_all, (line, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("rules", "options"),
    [
        (["resetkeys", "resetchannels", "-@all"], ""),
        (["~_kombu.*", "&*", "+@all"], ""),
        (["allkeys", "resetchannels", "+@all"], ""),
        (["~nothing", "&/0.celeryev/*", "+psubscribe", "+ping"], ""),
        (["resetkeys", "resetchannels", "-@all"], "?global_keyprefix=shop.&fanout_patterns=false"),
    ],
)
def test_permissions_in_redis(rules: list[str], options: str, server: RedisServer) -> None:
    user = f"user-{uuid.uuid4().hex[:8]}"
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", user, "on", f">{PASSWORD}", *rules)
    url = server.url.replace("//", f"//{user}:{PASSWORD}@") + options
    given = {"global_keyprefix": "shop.", "fanout_patterns": False} if options else {}
    with dispatching(server.url, given):
        result = checked(url)
        code, remedy = finding(result)
        if code is not None:
            assert code == "permission-refused", result
            paste_redis(server, remedy)
            result = checked(url)
    assert exit_code(result.steps) == 0, result
    if code is not None:  # and they are sufficient for --control
        (broker,) = brokers(url)
        assert list(request(broker.urls[0], [Command.ACTIVE], None, 0.2, access=broker.access)) == []
        with server.client() as client:
            assert client.keys("*") == []


def test_restrictions_of_redis(server: RedisServer) -> None:
    with server.client() as client:
        client.config_set("maxmemory", 1)
        code, remedy = finding(checked(server.url))
        assert code == "limit-reached"
        paste_redis(server, remedy)
        assert exit_code(checked(server.url).steps) == 0
        client.execute_command("CONFIG", "SET", "requirepass", PASSWORD)
        try:
            assert finding(checked(server.url))[0] == "login-refused"
            assert finding(checked(server.url.replace("//", "//:wrong@")))[0] == "login-refused"
            code, remedy = finding(checked(server.url.replace("//", f"//:{PASSWORD}@").replace("/0", "/9")))
            assert code == "vhost-unknown" and f"-p {server.port} CONFIG GET databases" in remedy
        finally:
            client.execute_command("CONFIG", "SET", "requirepass", "")
        client.config_set("maxclients", 1)
        code, remedy = finding(checked(server.url))
        assert code == "limit-reached", remedy
        client.config_set("maxclients", 100)
    assert finding(checked(f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0"))[0] in (None, "login-refused")


def test_servers_that_are_not_brokers(folder: Path) -> None:
    with redis_server(folder, "--cluster-enabled", "yes") as cluster:
        code, remedy = finding(checked(cluster.url, 1.0))
        assert code in ("not-amqp", "no-workers")
    log = folder / "http.log"
    port = free_port()
    http = Process([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"], log=log)
    try:
        assert wait_for(lambda: "Serving" in http.tail() or http.returncode is not None or _listens(port), 10)
        code, remedy = finding(checked(f"redis://127.0.0.1:{port}/0", 1.0))
        assert code in ("not-amqp", "connection-lost", "timeout")
    finally:
        http.kill()


def _listens(port: int) -> bool:
    import socket

    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


# ------------------------------------------------------------------------------------- unusable URLs

REFUSED = [
    ("sqs://key:secret@", 11),
    ("SQS://", 11),
    ("filesystem://", 11),
    ("sqla+sqlite:///celery.db", 11),
    ("sqlalchemy+sqlite:///celery.db", 11),
    ("confluentkafka://localhost", 11),
    ("kafka://localhost", 11),
    ("zookeeper://localhost", 11),
    ("consul://localhost", 11),
    ("etcd://localhost", 11),
    ("mongodb://localhost/x", 11),
    ("azureservicebus://a:b@c", 11),
    ("gcpubsub://projects/x", 11),
    ("pigeon://localhost", 11),
    ("memory://", 11),
    ("redis://localhost/celery", 10),
    ("redis://localhost/0?socket_timeut=5", 10),
    ("redis://localhost/0?socket_timeout=x", 10),
    ("redis://localhost?db=1", 10),
    ("rediss://localhost?ssl_cert_reqs=maybe", 10),
    ("sentinel://localhost", 10),
    ("amqp://localhost//?hartbeat=5", 10),
    ("redis://:pass?word@localhost/0", 10),
]
SCRIPT = """
import json, sys
touched = []

def hook(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if event in ("socket.connect", "socket.getaddrinfo", "os.mkdir") or writes:
        touched.append((event, str(arguments[:2])))

sys.path.insert(0, sys.argv[1])
import click
from click.testing import CliRunner
from celery_gateway.cli.check import check
from celery_gateway.cli.serve import serve
from celery_gateway.check import preflight
from celery_gateway.http import server
if len(sys.argv) > 3:
    sys.modules["redis"] = None
sys.addaudithook(hook)
answers = {}
for url in json.loads(sys.argv[2]):
    checked = CliRunner().invoke(check, ["--broker", url, "--wait", "0"])
    served = CliRunner().invoke(serve, ["--broker", url, "--port", "0"]) if url != "memory://" else checked
    answers[url] = [checked.exit_code, checked.output, served.exit_code, str(served.exception or ""),
    served.output]
print(json.dumps([answers, touched]))
"""


def refused(folder: Path, urls: list[str], *more: str) -> tuple[dict[str, list[Any]], list[Any]]:
    done = subprocess.run(
        # -B: files of Python's own (.pyc) do not count.
        [sys.executable, "-B", "-c", SCRIPT, str(ROOT), json.dumps(urls), *more],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answers, touched = json.loads(done.stdout)
    return answers, touched


def test_unusable_urls_are_refused_without_side_effects(folder: Path, tmp_path: Path) -> None:
    """No name is resolved, nothing is connected, no file is created, and the error is one line."""
    answers, touched = refused(tmp_path, [url for url, _ in REFUSED])
    assert touched == [] and list(tmp_path.iterdir()) == []
    for url, code in REFUSED:
        check_code, output, serve_code, error, _ = answers[url]
        assert check_code == code, (url, output)
        assert "report" not in output and "secret" not in output and "?word" not in output + error
        if url != "memory://":
            assert serve_code != 0 and "\n" not in error and error, (url, error)
        if code == 11 and url != "memory://":
            assert "RabbitMQ (amqp://) or Redis (redis://" in output


def test_a_missing_package_is_named_by_our_extra(tmp_path: Path) -> None:
    answers, _ = refused(tmp_path, ["redis://localhost/0"], "without redis")
    check_code, output, serve_code, error, _ = answers["redis://localhost/0"]
    assert check_code == 11 and "→ Run: pip install 'celery-gateway[redis]'" in output
    assert serve_code != 0 and error.endswith("pip install 'celery-gateway[redis]'")
    extras = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    assert re.search(r"^redis = ", extras, re.MULTILINE)
