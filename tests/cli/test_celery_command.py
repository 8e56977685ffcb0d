"""`celery -A proj gateway`: all about the broker is the app's, and Celery's other commands do not mind it."""

import asyncio
import json
import os
import pickle
import re
import shutil
import signal
import ssl
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import amqp
import httpx
import msgpack
import pytest

from celery_gateway.broker.address import amqp_url
from celery_gateway.broker.tls import TLS
from celery_gateway.cli.app import gateway as command
from celery_gateway.cli.app import resolve, settings_of, urls_of
from celery_gateway.errors import SourceError
from tests.support.configured_app import create_app
from tests.support.gateway_process import ROOT, GatewayProcess
from tests.support.proxy import Proxy
from tests.support.publisher import Publisher, walk
from tests.support.rabbitmq import Process, RabbitMQ, free_port, wait_for
from tests.support.stream_client import NdjsonStream

CELERY = [sys.executable, "-m", "celery"]
APP = "tests.support.configured_app"
QUIET = {
    key: value for key, value in os.environ.items() if not key.startswith(("GATEWAY_", "CELERY_", "TESTS_"))
}
HEAVY = {
    "uvicorn",
    "starlette",
    "aio_pika",
    "aiormq",
    "sse_starlette",
    "httpx",
    "prometheus_client",
    "msgspec",
}
DEAD = "amqp://guest:guest@127.0.0.1:1//"

Settings = dict[str, Any]


def celery(
    *arguments: str, timeout_seconds: float = 30, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CELERY, *arguments],
        env=QUIET | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
    )


class CeleryGateway(GatewayProcess):
    """`celery -A tests.support.configured_app gateway` with these settings of the app."""

    def __init__(self, settings: Settings, folder: Path, *options: str, **environment: str) -> None:
        super().__init__("", folder)
        self._args = [
            *CELERY,
            "-A",
            APP,
            "gateway",
            "--port",
            str(self.port),
            *options,
        ]
        verbose = {"GATEWAY_VERBOSE_HEALTH": "1"}
        self._env = QUIET | {"TESTS_SETTINGS": json.dumps(settings)} | verbose | environment

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.signal(number)

    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.returncode


@contextmanager
def serving(
    settings: Settings, folder: Path, *options: str, is_ready: bool = True, **environment: str
) -> Iterator[CeleryGateway]:
    gateway = CeleryGateway(settings, folder, *options, **environment)
    try:
        gateway.start() if is_ready else gateway.launch()
        yield gateway
    finally:
        gateway.stop()


@contextmanager
def working(settings: Settings, folder: Path, *options: str) -> Iterator[Process]:
    """A worker of the same app."""
    worker = Process(
        [
            *CELERY,
            *(
                "-A",
                APP,
                "worker",
                "-P",
                "solo",
                "-n",
                f"{uuid.uuid4().hex}@localhost",
            ),
            *("-l", "INFO", "--without-gossip", "--without-mingle", *options),
        ],
        log=folder / f"worker-{uuid.uuid4().hex[:8]}.log",
        env=QUIET | {"TESTS_SETTINGS": json.dumps(settings)},
        cwd=ROOT,
    )
    try:
        worker.wait_until(lambda: "(all)" in worker.log.read_text(), 30)
        yield worker
    finally:
        worker.kill()


def send_task(settings: Settings) -> str:
    app = create_app(settings)
    try:
        return str(app.send_task("configured.add", (1, 2)).id)
    finally:
        app.close()


def dispatch(settings: Settings, name: str) -> None:
    """One task's event, as a worker of an app with these settings sends it."""
    app = create_app(settings)
    try:
        with app.events.default_dispatcher() as dispatcher:
            dispatcher.send("task-received", uuid=name, name=name, root_id=name)
    finally:
        app.close()


def dispatch_until_seen(settings: Settings, gateway: CeleryGateway) -> None:
    with NdjsonStream(gateway.url) as client:
        name = f"seen.{uuid.uuid4().hex}"

        def is_seen() -> bool:
            dispatch(settings, name)
            return any(event.get("name") == name for event in client.events)

        assert wait_for(is_seen, 20), gateway.tail()


def refused(gateway: GatewayProcess) -> float:
    """How many messages were refused for their content type."""
    text = httpx.get(f"{gateway.url}/metrics").text
    found = re.search(r'celery_gateway_refused_total\{reason="content-type"\} (\S+)', text)
    return float(found[1]) if found else 0.0


@pytest.fixture
def vhost(rabbitmq: RabbitMQ) -> str:
    return rabbitmq.add_vhost(f"command-{uuid.uuid4().hex[:8]}")


# --------------------------------------------------------------------------- what the app says


def test_a_worker_of_the_same_app_is_heard_over_the_apps_own_exchange(
    rabbitmq: RabbitMQ, vhost: str, folder: Path
) -> None:
    settings = {"broker_url": vhost, "event_exchange": "shop-events", "event_queue_prefix": "shop"}
    with (
        serving(settings, folder) as gateway,
        working(settings, folder, "-E"),
        NdjsonStream(gateway.url, {"name": "configured.add", "type": "task-*"}) as client,
    ):
        task = send_task(settings)
        got = client.until(lambda seen: any(event["type"] == "task-succeeded" for event in seen), 20)
        assert {event["uuid"] for event in got} == {task}
        exchanges = rabbitmq.ctl("list_exchanges", "-p", vhost.rpartition("/")[2], "name")
        assert "shop-events" in exchanges
        assert "celeryev" not in exchanges
        text = rabbitmq.ctl("list_queues", "-p", vhost.rpartition("/")[2], "name", "--no-table-headers")
        ours = [queue for queue in text.splitlines() if "celery-gateway" in queue]
        assert len(ours) == 2  # the event queue and the overflow queue
        assert all(queue.startswith("shop.celery-gateway.") for queue in ours)


@pytest.mark.parametrize("how", ["read-url", "list", "semicolon", "parts"])
def test_the_broker_is_the_one_that_the_app_reads_from(how: str, broker: str, folder: Path) -> None:
    _, _, rest = broker.partition("://")
    place, _, name = rest.rpartition("@")[2].partition("/")
    host, _, port = place.partition(":")
    settings: Settings = {
        "read-url": {"broker_url": DEAD, "broker_read_url": broker},
        "list": {"broker_url": [DEAD, broker]},
        "semicolon": {"broker_url": f"{DEAD};{broker}"},
        "parts": {"broker_url": host, "broker_port": int(port), "broker_user": "guest", "broker_vhost": name},
    }[how]
    with serving(settings, folder) as gateway, NdjsonStream(gateway.url) as client:
        publisher = Publisher(broker)
        try:
            publisher.send(*walk(how))
        finally:
            publisher.close()
        assert client.until(bool)[0]["name"] == how


def test_what_the_configuration_says_of_the_broker() -> None:
    def urls(**settings: Any) -> list[str]:
        return urls_of(create_app(settings))

    assert urls() == ["amqp://localhost"] or urls() == ["amqp://guest@localhost//"]
    assert urls(broker_url="redis.example", broker_transport="redis") == ["redis://redis.example"]
    assert urls(broker_url="amqp://h/v?heartbeat=5", broker_user="u", broker_password="p@:/") == [
        "amqp://u:p%40%3A%2F@h/v?heartbeat=5"
    ]
    assert urls(broker_url="amqp://x:y@h:7//", broker_user="u", broker_vhost="v") == ["amqp://x:y@h:7/%2F"]
    assert urls(broker_url="amqp://h", broker_transport_options={"virtual_host": "v"}) == ["amqp://h/v"]
    with pytest.raises(SourceError, match="broker_password"):
        urls(broker_password=lambda: "secret")


@pytest.mark.parametrize(
    ("settings", "accepted"),
    [
        ({}, {"application/json"}),
        ({"accept_content": ["json", "msgpack"]}, {"application/json", "application/x-msgpack"}),
        ({"accept_content": ["application/x-msgpack"]}, {"application/json", "application/x-msgpack"}),
        ({"event_serializer": "msgpack"}, {"application/json", "application/x-msgpack"}),
        ({"accept_content": ["pickle", "yaml"], "event_serializer": "pickle"}, {"application/json"}),
    ],
)
def test_what_is_read_is_what_the_app_accepts_but_never_pickle_or_yaml(
    settings: Settings, accepted: set[str]
) -> None:
    assert set(settings_of(create_app(settings))["accept"]) == accepted


def test_the_login_method_is_the_apps_or_the_urls() -> None:
    assert settings_of(create_app({"broker_login_method": "EXTERNAL"}))["login_method"] == "EXTERNAL"

    def auth(url: str, login_method: str | None) -> str:
        return amqp_url(url, heartbeat_seconds=1, name="x", login_method=login_method).query["auth"]

    assert auth("amqps://h//", "EXTERNAL") == "external"
    assert auth("amqps://h//?login_method=EXTERNAL", None) == "external"
    assert auth("amqp://h//", "AMQPLAIN") == auth("amqp://h//", None) == "plain"
    with pytest.raises(ValueError, match="GSSAPI"):
        auth("amqp://h//", "GSSAPI")


# --------------------------------------------------------------------------- options before the app


def test_flags_environment_and_file_go_before_the_app(
    broker: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = folder / "gateway.toml"
    config.write_text('exchange = "from-file"\nkeepalive = 5\n')
    settings = {"broker_url": DEAD, "event_exchange": "of-the-app"}
    app = create_app(settings)

    def resolved(*options: str, **environment: str) -> tuple[list[str], str]:
        """The URLs of the broker, and the exchange."""
        with monkeypatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            given = command.make_context("gateway", list(options)).params
        found, warnings = resolve(app, given, True)
        assert not warnings
        return list(found.broker), found.exchange

    file = ("--config", str(config))
    assert resolved() == ([DEAD], "of-the-app")
    assert resolved("--broker", broker) == ([broker], "of-the-app")
    assert resolved(*file, GATEWAY_BROKER=broker) == ([broker], "from-file")
    assert resolved(*file, GATEWAY_EXCHANGE="from-environment") == ([DEAD], "from-environment")
    assert resolved("--exchange", "from-flag", GATEWAY_EXCHANGE="x") == ([DEAD], "from-flag")
    # and a gateway that runs:
    with serving(settings, folder, *file, "--broker", broker, GATEWAY_EXCHANGE="in-force") as gateway:
        assert "in-force" in str(httpx.get(f"{gateway.url}/readyz").json())


def test_what_kubernetes_sets_for_a_service_of_that_name_is_not_taken(broker: str, folder: Path) -> None:
    gateway = CeleryGateway({"broker_url": broker}, folder, CELERY_GATEWAY_PORT="tcp://10.0.0.1:8555")
    config = folder / "port.toml"
    config.write_text(f"port = {gateway.port}\n")
    gateway._args[-2:] = ["--config", str(config)]
    try:
        gateway.start()
    finally:
        gateway.stop()


# --------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificates(folder: Path) -> dict[str, Path]:
    """Two certificates for 127.0.0.1 signed by themselves, each with its key in one file."""
    made = {}
    for name in ("right", "wrong"):
        made[name] = folder / f"{name}.pem"
        key, public = folder / f"{name}.key", folder / f"{name}.crt"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", key, "-out", public),
            ],
            check=True,
            capture_output=True,
        )
        made[name].write_text(key.read_text() + public.read_text())
    return made


def server_side(certificates: dict[str, Path], *, asks_for_client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates["right"])
    if asks_for_client:
        context.load_verify_locations(certificates["right"])
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextmanager
def tls_before(port: int, context: ssl.SSLContext) -> Iterator[Proxy]:
    with Proxy(port, tls=context) as proxy:
        try:
            yield proxy
        finally:
            proxy.hang_up()  # in good order: one that its other end has left already cannot be reset


@pytest.fixture
def tls(rabbitmq: RabbitMQ, certificates: dict[str, Path]) -> Iterator[Proxy]:
    with tls_before(rabbitmq.port, server_side(certificates)) as proxy:
        yield proxy


def test_tls_with_the_right_authority_for_events_and_for_control(
    tls: Proxy, vhost: str, certificates: dict[str, Path], folder: Path
) -> None:
    settings = {
        "broker_url": tls.url(vhost),
        "broker_use_ssl": {"ca_certs": str(certificates["right"]), "cert_reqs": int(ssl.CERT_REQUIRED)},
        "control_exchange": "shop",
    }
    # The worker was not told to send events (-E): it does because the gateway tells it to.
    with (
        working(settings, folder),
        serving(settings, folder, "--control") as gateway,
        NdjsonStream(gateway.url, {"name": "configured.add"}) as client,
    ):
        assert wait_for(lambda: "task events switched on" in gateway.log.read_text(), 20), gateway.tail()
        send_task(settings)
        client.until(lambda seen: any(event["type"] == "task-succeeded" for event in seen), 20)


def test_tls_with_a_certificate_of_ones_own(
    rabbitmq: RabbitMQ, broker: str, certificates: dict[str, Path], folder: Path
) -> None:
    authority = {"ca_certs": str(certificates["right"])}
    own = {"certfile": str(folder / "right.crt"), "keyfile": str(folder / "right.key")}
    with tls_before(rabbitmq.port, server_side(certificates, asks_for_client=True)) as proxy:
        url = proxy.url(broker)
        with serving({"broker_url": url, "broker_use_ssl": authority | own}, folder):
            pass
        with serving({"broker_url": url, "broker_use_ssl": authority}, folder, is_ready=False) as gateway:
            assert wait_for(lambda: "not consuming" in gateway.log.read_text(), 20), gateway.tail()
            assert not gateway.is_ready()


def test_tls_with_the_wrong_authority_is_refused_in_words(
    tls: Proxy, broker: str, certificates: dict[str, Path], folder: Path
) -> None:
    settings = {
        "broker_url": tls.url(broker),
        "broker_use_ssl": {"ca_certs": str(certificates["wrong"]), "cert_reqs": int(ssl.CERT_REQUIRED)},
    }
    with serving(settings, folder, is_ready=False) as gateway:
        assert wait_for(lambda: "not consuming" in gateway.log.read_text(), 20), gateway.tail()
        log = gateway.log.read_text()
        assert f"the certificate of 127.0.0.1:{tls.port} is not trusted" in log
        assert "broker_use_ssl = {'ca_certs': …}" in log
        assert not gateway.is_ready()


@pytest.mark.parametrize(
    ("options", "is_trusted"),
    [
        ({"ca_certs": "right"}, True),
        ({"ca_certs": "wrong"}, False),
        (True, False),
        ({"cert_reqs": 0, "ca_certs": "wrong"}, True),
        ({"ca_certs": "right", "server_hostname": None}, True),
        ({"ca_certs": "right", "server_hostname": "elsewhere.example"}, False),
        (
            {"ca_certs": "right", "ciphers": "ECDHE+AESGCM", "tls_minimum_version": ssl.TLSVersion.TLSv1_2},
            True,
        ),
        ({"context": {"cafile": "right"}}, True),
        ({"context": {"cafile": "right", "check_hostname": True}, "server_hostname": "elsewhere"}, False),
        ({"context": {"cafile": "wrong"}}, False),
    ],
)
async def test_whom_tls_trusts_is_whom_the_workers_trust(
    options: Any, is_trusted: bool, tls: Proxy, certificates: dict[str, Path]
) -> None:
    def with_paths(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: with_paths(inner) for key, inner in value.items()}
        return str(certificates[value]) if value in ("right", "wrong") else value

    options = with_paths(options)

    def py_amqp_trusts() -> bool:
        # kombu puts the URL's host where the name is None (kombu/transport/pyamqp.py)
        given = dict(options) if isinstance(options, dict) else options
        if isinstance(given, dict) and "server_hostname" in given:
            given["server_hostname"] = given["server_hostname"] or "127.0.0.1"
        connection = amqp.Connection(f"127.0.0.1:{tls.port}", ssl=given, connect_timeout=5)
        try:
            connection.connect()
        except ssl.SSLCertVerificationError:
            return False
        connection.close()
        return True

    ours = TLS(options)
    try:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", tls.port, ssl=ours.context(), server_hostname=ours.server_hostname
        )
        writer.close()
        trusts = True
    except ssl.SSLCertVerificationError:
        trusts = False
    assert trusts == is_trusted == await asyncio.to_thread(py_amqp_trusts)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ca_certs": "/nowhere.pem"}, "/nowhere.pem"),
        ({"ca_certs": "/dev/null"}, "broker_use_ssl cannot be used"),
        ({"ssl_ca_certs": "/x.pem"}, "'ssl_ca_certs'"),
        ({"server_hostname": "x", "cert_reqs": 0}, "check_hostname"),
    ],
)
def test_tls_that_cannot_be_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SourceError, match=f"broker_use_ssl.*{says}|{says}"):
        TLS(options)


# --------------------------------------------------------------------------- Redis


@pytest.fixture(scope="module")
def redis_port(folder: Path) -> Iterator[int]:
    program = shutil.which("redis-server")
    assert program, "redis-server is missing: run sh tests/support/setup-system.sh as root"
    port = free_port()
    redis = Process(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
        log=folder / "redis.log",
    )
    try:
        redis.wait_until(lambda: "Ready to accept connections" in redis.tail(), 10)
        yield port
    finally:
        redis.kill()


def test_redis_with_a_prefix_for_events_and_for_control(redis_port: int, folder: Path) -> None:
    without = {"broker_url": f"redis://127.0.0.1:{redis_port}/2"}
    settings = without | {"broker_transport_options": {"global_keyprefix": "shop:"}}
    with (
        serving(settings, folder, "--control") as gateway,
        NdjsonStream(gateway.url) as client,
        working(settings, folder),
    ):
        assert wait_for(lambda: "task events switched on" in gateway.log.read_text(), 20), gateway.tail()
        dispatch(without, "of.others")
        task = send_task(settings)
        got = client.until(lambda seen: any(event["type"] == "task-succeeded" for event in seen), 20)
        assert {event["uuid"] for event in got if "uuid" in event} == {task}


def test_redis_over_tls(redis_port: int, certificates: dict[str, Path], folder: Path) -> None:
    with tls_before(redis_port, server_side(certificates)) as proxy:
        for name in ("right", "wrong"):
            settings = {
                "broker_url": f"redis://127.0.0.1:{proxy.port}/2",
                "broker_use_ssl": {"ssl_ca_certs": str(certificates[name]), "ssl_cert_reqs": "required"},
            }
            with serving(settings, folder, is_ready=name == "right") as gateway:
                if name == "right":
                    dispatch_until_seen(settings, gateway)
                else:
                    assert wait_for(lambda: "is not trusted" in gateway.log.read_text(), 20), gateway.tail()
                    assert not gateway.is_ready()


# --------------------------------------------------------------------------- serializers


def test_msgpack_is_read_where_the_app_sends_it(broker: str, folder: Path) -> None:
    settings = {"broker_url": broker, "event_serializer": "msgpack", "accept_content": ["json", "msgpack"]}
    with serving(settings, folder) as gateway:
        dispatch_until_seen(settings, gateway)
        assert refused(gateway) == 0
        assert "serializer" not in gateway.log.read_text()


def test_an_app_of_json_alone_narrows_what_is_read(broker: str, folder: Path) -> None:
    publisher = Publisher(broker)
    try:
        with serving({"broker_url": broker}, folder) as gateway, NdjsonStream(gateway.url) as client:
            packed = msgpack.packb(walk("packed")[0])
            for content_type in (
                "application/x-msgpack",
                "application/msgpack; x=y",
                "application/json; x=y",
            ):
                publisher.send_raw(
                    packed if "msgpack" in content_type else json.dumps(walk("json")[0]).encode(),
                    content_type,
                )
            publisher.send_raw(json.dumps(walk("untyped")[0]).encode(), content_type=None)
            got = client.until(lambda seen: any(event["name"] == "untyped" for event in seen))
            assert [event["name"] for event in got] == ["json", "untyped"]
            assert refused(gateway) == 2
    finally:
        publisher.close()


class Trap:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_an_app_of_pickles_is_warned_and_nothing_is_unpickled(broker: str, folder: Path) -> None:
    settings = {
        "broker_url": broker,
        "event_serializer": "pickle",
        "task_serializer": "pickle",
        "accept_content": ["pickle"],
    }
    sprung = folder / "sprung"
    publisher = Publisher(broker)
    try:
        with (
            serving(settings, folder, "--control") as gateway,
            NdjsonStream(gateway.url, {"name": "*"}) as client,
        ):
            log = gateway.log.read_text()
            assert "event_serializer is pickle, which the gateway does not read" in log
            assert "accepts only pickle (accept_content)" in log
            assert "--control sends JSON" in log
            publisher.send_raw(pickle.dumps(Trap(sprung)), "application/x-python-serialize", "binary")
            publisher.send(*walk("json"))
            assert client.until(bool)[0]["name"] == "json"
            assert refused(gateway) == 1
            assert not sprung.exists()
        pickle.loads(pickle.dumps(Trap(sprung)))
        assert sprung.exists(), "the trap does not work"
    finally:
        publisher.close()


# --------------------------------------------------------------------------- a command of Celery's


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_with_a_signal_after_its_streams(number: signal.Signals, broker: str, folder: Path) -> None:
    with serving({"broker_url": broker}, folder) as gateway, NdjsonStream(gateway.url) as client:
        gateway.signal(number)
        assert client.closed()
        assert [(event["type"], event["reason"]) for event in client.events] == [("gateway-close", "drain")]
        assert wait_for(lambda: gateway.exit_code() is not None, 10)
        assert gateway.exit_code() == (130 if number == signal.SIGINT else 0)
        assert "Traceback" not in gateway.log.read_text()


def test_an_app_that_configures_logging_does_not_silence_it(broker: str, folder: Path) -> None:
    with serving({"broker_url": broker}, folder, TESTS_DICTCONFIG="1") as gateway:
        assert "listening on" in gateway.log.read_text()
        assert wait_for(lambda: "consuming celeryev" in gateway.log.read_text(), 5)


def test_celery_lists_it_and_its_help_has_every_option_of_serve() -> None:
    listed = celery("--help").stdout
    assert re.search(r"(?m)^  gateway +Stream the app's events live", listed), listed
    done = celery("gateway", "--help")
    assert done.returncode == 0
    serve = subprocess.run(
        [sys.executable, "-m", "celery_gateway", "serve", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    flags = set(re.findall(r"(?m)^ +(--[a-z-]+)", serve.stdout)) | {"--help"}
    assert len(flags) > 10
    assert flags == set(re.findall(r"(?m)^ +(--[a-z-]+)", done.stdout))
    assert "CELERY_BROKER_URL" not in done.stdout  # the app's own affair
    assert "Examples:" in done.stdout


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("tests.nothing", "The module tests.nothing was not found"),
        ("tests.support.configured_app:none", "The module tests.support.configured_app:none was not found"),
        ("broken_app", "ZeroDivisionError"),
    ],
)
def test_an_app_that_cannot_be_loaded_gets_celerys_own_words(app: str, says: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken_app.py"
    broken.write_text("1 / 0\n")
    done = celery("-A", app, "gateway", "--port", "0", PYTHONPATH=str(broken.parent))
    assert done.returncode == 2
    assert "Unable to load celery application" in done.stderr
    assert says in done.stderr


def test_a_wrong_call_says_why(broker: str) -> None:
    settings = json.dumps({"broker_url": broker, "broker_use_ssl": {"ca_certs": "/nowhere.pem"}})
    for arguments, code, says in (
        (["--prot", "1"], 2, "No such option"),
        (["--broker", "localhost"], 1, "invalid broker URL 'localhost'"),
        ([], 1, "/nowhere.pem"),
    ):
        done = celery("-A", APP, "gateway", *arguments, TESTS_SETTINGS=settings)
        assert done.returncode == code, done.stderr
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def test_without_an_app_the_broker_is_celerys_default(folder: Path) -> None:
    gateway = CeleryGateway({}, folder)
    gateway._args = [*CELERY, "gateway", "--port", str(gateway.port)]
    gateway._env = QUIET | {"CELERY_BROKER_URL": DEAD}
    gateway.launch()
    try:
        assert wait_for(lambda: "127.0.0.1:1 cannot be reached" in gateway.log.read_text(), 20), (
            gateway.tail()
        )
        assert "no app is given" in gateway.log.read_text()
    finally:
        assert gateway.stop() == 0


def test_celerys_other_commands_load_nothing_of_the_server(broker: str, folder: Path) -> None:
    with working({"broker_url": broker}, folder) as worker:
        modules = set(worker.log.read_text().rpartition("modules:")[2].splitlines()[0].split())
    ours = {name for name in modules if name.partition(".")[0] == "celery_gateway"}
    assert ours == {"celery_gateway", "celery_gateway.cli", "celery_gateway.cli.plugin"}
    assert not modules & HEAVY


def test_misspelled_variables_and_those_of_kubernetes_are_in_the_log(broker: str, folder: Path) -> None:
    link = "tcp://10.96.0.12:8555"
    gateway = CeleryGateway({"broker_url": broker}, folder, GATEWAY_PRT="1", GATEWAY_PORT=link)
    config = folder / "of-the-pod.toml"
    config.write_text(f"port = {gateway.port}\n")
    gateway._args[-2:] = ["--config", str(config)]
    try:
        gateway.start()
        log = gateway.log.read_text()
        assert "unknown environment variable GATEWAY_PRT: did you mean GATEWAY_PORT?" in log
        assert f"GATEWAY_PORT={link!r} is ignored" in log
    finally:
        gateway.stop()
