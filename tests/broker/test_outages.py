"""What a gateway does when its broker goes away, breaks off, refuses it or is not what it seems.

Each test watches a real gateway from outside. Always (`watching`): /healthz answers 200 throughout, no stream
is closed, the log has no traceback and no password, and the process ends well. In most, publishers number
their events, and of what is missing in a stream every hole holds a told gap (tests/ledger.py).
"""

import ssl
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest
from kombu import Connection

from tests.gateway_process import GatewayProcess
from tests.ledger import GAP, Entry, Ledger, LedgerStream, discrepancies
from tests.proxy import Proxy
from tests.publisher import Publisher
from tests.rabbitmq import RabbitMQ, wait_for
from tests.stream_client import SseStream

PROBE_SECONDS = 0.02
OUTAGE_LINES = 3
"""So many lines may the log have of the first seconds of an outage, however often the gateway tries."""
ALARM_SECONDS = 3.0
"""Longer than the silence by which a connection with a heartbeat of a second is found dead."""
MINIMAL = (r"^celery-gateway\..*", r"^celery-gateway\..*", r"^(celery-gateway\..*|celeryev)$")
"""Permissions to configure, write and read that have to do."""


class Probe:
    """Asks /healthz and /readyz again and again, in a thread."""

    def __init__(self, url: str) -> None:
        self.ready: list[tuple[int, str]] = []  # each answer of /readyz: the status code, the reason
        self.unhealthy: list[str] = []
        self._url = url
        self._stopping = Event()
        self._thread = Thread(target=self._run, daemon=True, name="probe")
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=5) as client:
            while not self._stopping.wait(PROBE_SECONDS):
                try:
                    health, answer = client.get("/healthz"), client.get("/readyz")
                except httpx.TransportError as error:
                    self.unhealthy.append(repr(error))
                    continue
                if health.status_code != 200:
                    self.unhealthy.append(f"/healthz answered {health.status_code} {health.text}")
                self.ready.append((answer.status_code, answer.json()["reason"]))


class Watch:
    """A gateway, two subscribers that are there from its start, and what it says of itself."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self.probe = Probe(gateway.url)
        self.stream = LedgerStream(gateway.url)
        self.sse = SseStream(gateway.url)
        self._ready_before = self._gaps_before = 0
        self._log_before = 0

    def mark(self) -> None:
        """What is asked from now on is about the time after this."""
        self._ready_before = len(self.probe.ready)
        self._gaps_before = len(self.stream.gaps)
        self._log_before = len(self.gateway.log.read_text().splitlines())

    def until_not_ready(self, *words: str, timeout_seconds: float = 10.0) -> str:
        """The reason that /readyz gives with its 503, once it has these words."""

        def reasons() -> list[str]:
            answers = self.probe.ready[self._ready_before :]
            return [reason for code, reason in answers if code == 503 and _has_words(reason, words)]

        assert wait_for(lambda: bool(reasons()), timeout_seconds), (
            f"/readyz never says {words or '503'}, but {self.probe.ready[-1:]}\n{self.gateway.tail()}"
        )
        reason = reasons()[-1]
        assert " " in reason, f"{reason!r} is no reason in words"
        return reason

    def until_ready(self, timeout_seconds: float = 20.0) -> None:
        """The latest answer of /readyz is 200, and came after the mark."""
        assert wait_for(lambda: self._seen(200) and self.probe.ready[-1][0] == 200, timeout_seconds), (
            f"not ready: {self.probe.ready[-1:]}\n{self.gateway.tail()}"
        )

    def until_gap(self, timeout_seconds: float = 20.0) -> None:
        """A gap of the broker's has been told since the mark, to both subscribers."""
        assert wait_for(lambda: len(self.stream.gaps) > self._gaps_before, timeout_seconds), (
            f"no gap is told\n{self.gateway.tail()}"
        )
        assert all(gap["reason"] == "broker" and gap["id"] for gap in self.stream.gaps), self.stream.gaps
        self.sse.until(
            lambda events: (
                [event["id"] for event in events if event["type"] == GAP]
                == [gap["id"] for gap in self.stream.gaps]
            )
        )

    def lines(self) -> list[str]:
        """What the log has since the mark."""
        return self.gateway.log.read_text().splitlines()[self._log_before :]

    def assert_says(self, *words: str) -> None:
        """The log since the mark has a line with these words, and few lines in all."""
        lines = self.lines()
        assert wait_for(lambda: any(_has_words(line, words) for line in self.lines()), 5), (
            f"no line says {words}:\n" + "\n".join(self.lines())
        )
        assert len(lines) <= OUTAGE_LINES, "\n".join(lines)

    def _seen(self, status_code: int) -> bool:
        return any(code == status_code for code, _ in self.probe.ready[self._ready_before :])


def _has_words(line: str, words: Sequence[str]) -> bool:
    return all(word.lower() in line.lower() for word in words)


@contextmanager
def watching(
    broker_url: str, folder: Path, *, options: Sequence[str] = (), is_ready: bool = True
) -> Iterator[Watch]:
    """A gateway watched from its start; with `is_ready` the broker has to let it in first."""
    gateway = GatewayProcess(broker_url, folder, options=("--keepalive", "1", *options))
    watch = None
    try:
        if is_ready:
            gateway.start()
        else:
            gateway.launch()
            assert wait_for(lambda: _answers(gateway), 20), gateway.tail()
        watch = Watch(gateway)
        yield watch
        for stream in (watch.stream, watch.sse):
            assert not stream.closed(timeout_seconds=0), f"a stream was closed\n{gateway.tail()}"
        assert not watch.probe.unhealthy, f"{watch.probe.unhealthy[:5]}\n{gateway.tail()}"
    finally:
        if watch is not None:
            watch.probe.stop()
            watch.stream.close()
            watch.sse.close()
        exit_code = gateway.stop()
    assert exit_code == 0, gateway.tail()
    log = gateway.log.read_text()
    assert "Traceback" not in log, log[-3000:]
    for secret in (":guest@", ":s3cret@", "s3cret"):
        assert secret not in log, log[-3000:]


def _answers(gateway: GatewayProcess) -> bool:
    try:
        return httpx.get(f"{gateway.url}/healthz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def node(folder: Path) -> Iterator[RabbitMQ]:
    """A node of our own, to be stopped under everybody."""
    node = RabbitMQ(folder / "node")
    try:
        node.start()
        yield node
    finally:
        node.stop()


@pytest.fixture
def proxy(rabbitmq: RabbitMQ) -> Iterator[Proxy]:
    with Proxy(rabbitmq.port) as proxy:
        yield proxy


def queues_of_the_gateway(rabbitmq: RabbitMQ, broker: str) -> dict[str, str]:
    """Names and arguments of the queues that a gateway consumes; the one bound to the exchange is first."""
    columns = ("name", "consumers", "arguments", "--no-table-headers")
    text = rabbitmq.ctl("list_queues", "-p", vhost_of(broker), *columns)
    rows = (line.split("\t") for line in text.splitlines() if line.startswith("celery-gateway."))
    return dict(sorted((name, arguments) for name, consumers, arguments in rows if consumers == "1"))


def vhost_of(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def publish_until_seen(url: str, watch: Watch, timeout_seconds: float = 20.0) -> None:
    """Somebody comes by, declares the exchange and publishes: one of the events has to come through."""
    name = uuid.uuid4().hex
    publisher = Publisher(url)
    try:

        def seen() -> bool:
            publisher.send(
                {"type": "ledger-mark", "hostname": "passer-by", "timestamp": time.time(), "mark": name}
            )
            return any(event.get("mark") == name for event in watch.stream.events)

        assert wait_for(seen, timeout_seconds), watch.gateway.tail()
    finally:
        publisher.close()


# --------------------------------------------------------------------------- the ledger itself


@pytest.mark.parametrize(
    ("numbers", "is_correct"),
    [
        ([0, 1, 2, 3], True),
        ([0, 1, -1, 3], True),
        ([0, 1, -1, 2, 3], True),
        ([-1, 1, 2, 3], True),
        ([0, 1, 3], False),
        ([-1, 0, 1, 3, -1], False),
        ([1, 2, 3], False),
        ([0, 1, 2], False),
        ([0, 1, 2, -1], False),
        ([0, 1, 1, 2, 3], False),
        ([0, 2, 1, 3], False),
        ([0, 1, 2, 3, 4], False),
    ],
)
def test_the_ledger_finds_what_is_wrong(numbers: list[int], is_correct: bool) -> None:
    entries = [Entry(GAP, -1) if number < 0 else Entry("author", number) for number in numbers]
    found = discrepancies(entries, "author", confirmed={0, 1, 2, 3}, attempted=4)
    assert (not found) == is_correct, found


def test_what_the_broker_never_confirmed_is_not_missed() -> None:
    assert not discrepancies(
        [Entry("author", 0), Entry("author", 2)], "author", confirmed={0, 2}, attempted=4
    )


def test_a_workers_entries_are_in_order_by_task() -> None:
    """An event may wait for what names its task while others pass."""
    entries = [
        Entry("worker", 3, "b"),
        Entry("worker", 0, "a"),
        Entry("worker", 1, "a"),
        Entry("worker", 4, "b"),
    ]
    assert not discrepancies(entries, "worker", {0, 1, 3, 4}, 5, walks=True)
    assert discrepancies(entries[::-1], "worker", {0, 1, 3, 4}, 5, walks=True)


# --------------------------------------------------------------------------- the network


def test_a_connection_cut_again_and_again(proxy: Proxy, broker: str, folder: Path) -> None:
    with watching(proxy.url(broker), folder) as watch, Ledger(broker) as ledger:
        ledger.wait_until_it_flows(watch.stream)
        assert not watch.stream.gaps, "a gap is told where nothing was lost"
        for cut in (proxy.cut, proxy.hang_up, proxy.cut):
            watch.mark()
            cut()
            watch.until_gap()
            watch.until_ready()
            ledger.wait_until_it_flows(watch.stream)
        ledger.settle(watch.stream)


def test_a_refused_connection_is_tried_less_and_less_often(proxy: Proxy, broker: str, folder: Path) -> None:
    with watching(proxy.url(broker), folder) as watch, Ledger(broker) as ledger:
        ledger.wait_until_it_flows(watch.stream)
        watch.mark()
        proxy.answer(b"")  # an attempt is seen, and fails
        watch.until_not_ready()
        before, started = proxy.connects, time.monotonic()
        assert wait_for(lambda: proxy.connects >= before + 3, 15)
        assert time.monotonic() - started > 0.7, "three attempts at once"
        proxy.refuse()
        assert len(watch.lines()) <= OUTAGE_LINES, "\n".join(watch.lines())
        proxy.resume()
        watch.until_gap()
        watch.until_ready()
        ledger.wait_until_it_flows(watch.stream)
        ledger.settle(watch.stream)


def test_a_pulled_cable_is_noticed_by_its_silence(proxy: Proxy, broker: str, folder: Path) -> None:
    url = f"{proxy.url(broker)}?heartbeat=1"
    with watching(url, folder) as watch, Ledger(broker) as ledger:
        ledger.wait_until_it_flows(watch.stream)
        watch.mark()
        proxy.stall()
        watch.until_not_ready(timeout_seconds=10)
        proxy.resume()
        watch.until_gap()
        watch.until_ready()
        ledger.wait_until_it_flows(watch.stream)
        ledger.settle(watch.stream)


def test_a_silence_shorter_than_the_heartbeats_loses_nothing(proxy: Proxy, broker: str, folder: Path) -> None:
    with watching(f"{proxy.url(broker)}?heartbeat=10", folder) as watch, Ledger(broker) as ledger:
        ledger.wait_until_it_flows(watch.stream)
        watch.mark()
        proxy.stall()
        published = [author.attempted for author in ledger.authors]
        assert wait_for(
            lambda: all(
                author.attempted > before + 100
                for author, before in zip(ledger.authors, published, strict=True)
            ),
            10,
        )
        proxy.resume()
        ledger.wait_until_it_flows(watch.stream)
        ledger.settle(watch.stream)
        assert not watch.stream.gaps


# --------------------------------------------------------------------------- the node


@pytest.mark.timeout(90)
def test_a_node_that_stops_and_one_that_restarts(node: RabbitMQ, folder: Path) -> None:
    with watching(node.url, folder) as watch, Ledger(node.url) as ledger:
        ledger.wait_until_it_flows(watch.stream)
        watch.mark()
        node.stop_app()
        watch.until_not_ready()
        watch.assert_says(f"127.0.0.1:{node.port}")
        node.start_app()
        watch.until_gap()
        watch.until_ready()
        ledger.wait_until_it_flows(watch.stream)
        watch.mark()
        with node.down():
            watch.until_not_ready(f"127.0.0.1:{node.port}")
        watch.until_gap()
        watch.until_ready()
        ledger.wait_until_it_flows(watch.stream)
        ledger.settle(watch.stream)


def test_a_memory_alarm_stops_publishers_and_no_stream(node: RabbitMQ, folder: Path) -> None:
    url = f"{node.url}?heartbeat=1"
    # With --control it publishes, too: that connection is blocked, and must not be the one that consumes.
    with watching(url, folder, options=("--control",)) as watch, Ledger(node.url) as ledger:
        ledger.wait_until_it_flows(watch.stream)
        node.ctl("set_vm_memory_high_watermark", "0.000001")
        try:
            assert wait_for(lambda: "memory" in node.ctl("eval", "rabbit_alarm:get_alarms()."), 10)
            published = [author.attempted for author in ledger.authors]
            time.sleep(ALARM_SECONDS)
            held = [author.attempted for author in ledger.authors]
            assert all(after <= before + 1 for before, after in zip(published, held, strict=True)), "no alarm"
        finally:
            node.ctl("set_vm_memory_high_watermark", "0.4")
        ledger.wait_until_it_flows(watch.stream)
        assert {code for code, _ in watch.probe.ready} == {200}, "not ready because of others' alarm"
        ledger.settle(watch.stream)
        assert not watch.stream.gaps


# --------------------------------------------------------------------------- what others do to the broker


def delete_the_queue(rabbitmq: RabbitMQ, broker: str) -> None:
    name, *_ = queues_of_the_gateway(rabbitmq, broker)
    rabbitmq.ctl("delete_queue", "-p", vhost_of(broker), name)


def delete_the_queue_of_losses(rabbitmq: RabbitMQ, broker: str) -> None:
    """The one that gets what the broker drops, so that it is told."""
    _, name = queues_of_the_gateway(rabbitmq, broker)
    rabbitmq.ctl("delete_queue", "-p", vhost_of(broker), name)


def delete_the_exchange(rabbitmq: RabbitMQ, broker: str) -> None:
    with Connection(broker) as connection:
        connection.default_channel.exchange_delete("celeryev")


def close_the_connections(rabbitmq: RabbitMQ, broker: str) -> None:
    rabbitmq.ctl("close_all_connections", "--vhost", vhost_of(broker), "by the test")


@pytest.mark.parametrize(
    "harm",
    [delete_the_queue, delete_the_queue_of_losses, delete_the_exchange, close_the_connections],
    ids=lambda harm: harm.__name__,
)
def test_harm_done_under_load(
    harm: Callable[[RabbitMQ, str], None], rabbitmq: RabbitMQ, broker: str, folder: Path
) -> None:
    with watching(broker, folder) as watch, Ledger(broker, reconnect_seconds=3) as ledger:
        ledger.wait_until_it_flows(watch.stream)
        watch.mark()
        harm(rabbitmq, broker)
        watch.until_gap()
        watch.until_ready()
        ledger.wait_until_it_flows(watch.stream)
        ledger.settle(watch.stream)


def test_an_exchange_that_is_deleted_and_made_again_at_once(
    rabbitmq: RabbitMQ, broker: str, folder: Path
) -> None:
    """By the next publisher, say: no look every so often finds it gone, but our binding is."""
    with watching(broker, folder) as watch, Ledger(broker) as ledger:
        ledger.wait_until_it_flows(watch.stream)
        watch.mark()
        delete_the_exchange(rabbitmq, broker)
        watch.until_gap()
        watch.until_ready()
        ledger.wait_until_it_flows(watch.stream)
        ledger.settle(watch.stream)


@pytest.mark.parametrize("harm", [delete_the_queue, delete_the_exchange], ids=lambda harm: harm.__name__)
def test_harm_done_while_idle(
    harm: Callable[[RabbitMQ, str], None], rabbitmq: RabbitMQ, broker: str, folder: Path
) -> None:
    with watching(broker, folder) as watch:
        publish_until_seen(broker, watch)
        watch.mark()
        harm(rabbitmq, broker)
        watch.until_gap()
        watch.until_ready()
        publish_until_seen(broker, watch)


# --------------------------------------------------------------------------- who may do what


@pytest.fixture
def user(rabbitmq: RabbitMQ) -> Iterator[str]:
    """A user with the password s3cret and no permissions."""
    name = f"gateway-{uuid.uuid4().hex[:8]}"
    rabbitmq.ctl("add_user", name, "s3cret")
    try:
        yield name
    finally:
        rabbitmq.ctl("delete_user", name)


def as_user(url: str, user: str) -> str:
    return url.replace("guest:guest@", f"{user}:s3cret@")


def test_rights_on_its_own_queues_alone_do_not_do_and_it_says_which(
    rabbitmq: RabbitMQ, broker: str, user: str, folder: Path
) -> None:
    own = r"^celery-gateway\..*"
    rabbitmq.ctl("set_permissions", "-p", vhost_of(broker), user, own, own, own)
    with watching(as_user(broker, user), folder, is_ready=False) as watch:
        watch.until_not_ready("celeryev", "set_permissions", user)


def test_few_permissions_do_and_none_are_asked_for(
    rabbitmq: RabbitMQ, broker: str, user: str, folder: Path
) -> None:
    vhost = vhost_of(broker)
    with (
        watching(as_user(broker, user), folder, is_ready=False) as watch,
        Ledger(broker) as ledger,
    ):
        watch.until_not_ready()
        watch.assert_says("set_permissions", user)
        rabbitmq.ctl("set_permissions", "-p", vhost, user, *MINIMAL)
        watch.until_ready()
        arguments = " ".join(queues_of_the_gateway(rabbitmq, broker).values())
        assert "x-dead-letter-exchange" in arguments, "it would not be told what the broker drops"
        exchanges = rabbitmq.ctl("list_exchanges", "-p", vhost, "name")
        assert "celery-gateway.witness" not in exchanges, "it may not bind one, and leaves none behind"
        ledger.wait_until_it_flows(watch.stream)
        watch.mark()
        # Taken away: what is consumed goes on, a new connection is not let in.
        rabbitmq.ctl("clear_permissions", "-p", vhost, user)
        rabbitmq.ctl("close_all_connections", "--vhost", vhost, "by the test")
        watch.until_not_ready("set_permissions", user)
        # Let in again, and not allowed to do anything.
        rabbitmq.ctl("set_permissions", "-p", vhost, user, "^$", "^$", "^$")
        assert not watch.gateway.is_ready()
        rabbitmq.ctl("set_permissions", "-p", vhost, user, *MINIMAL)
        watch.until_gap()
        watch.until_ready()
        ledger.wait_until_it_flows(watch.stream)
        ledger.settle(watch.stream)


def test_an_exchange_that_is_not_there_yet_and_not_ours_to_declare(
    rabbitmq: RabbitMQ, user: str, folder: Path
) -> None:
    broker = rabbitmq.add_vhost(f"outages-{uuid.uuid4().hex[:8]}")
    rabbitmq.ctl("set_permissions", "-p", vhost_of(broker), user, *MINIMAL)
    with watching(as_user(broker, user), folder, is_ready=False) as watch:
        watch.until_not_ready()
        watch.assert_says("celeryev")
        with Ledger(broker) as ledger:  # its authors declare it, as workers do
            watch.until_ready()
            ledger.wait_until_it_flows(watch.stream)
            ledger.settle(watch.stream)


def test_a_wrong_password_that_is_mended(
    rabbitmq: RabbitMQ, proxy: Proxy, broker: str, user: str, folder: Path
) -> None:
    rabbitmq.ctl("set_permissions", "-p", vhost_of(broker), user, *MINIMAL)
    rabbitmq.ctl("change_password", user, "another")
    with (
        watching(proxy.url(as_user(broker, user)), folder, is_ready=False) as watch,
        Ledger(broker) as ledger,
    ):
        watch.until_not_ready()
        assert wait_for(lambda: proxy.connects >= 3, 15)
        watch.assert_says("password", user)
        rabbitmq.ctl("change_password", user, "s3cret")
        watch.until_ready()
        ledger.wait_until_it_flows(watch.stream)
        ledger.settle(watch.stream)


def test_a_vhost_that_is_added_deleted_and_added_again(
    rabbitmq: RabbitMQ, proxy: Proxy, folder: Path
) -> None:
    vhost = f"outages-{uuid.uuid4().hex[:8]}"
    with watching(proxy.url(rabbitmq.vhost_url(vhost)), folder, is_ready=False) as watch:
        watch.until_not_ready()
        assert wait_for(lambda: proxy.connects >= 3, 15)
        watch.assert_says("vhost", vhost)
        with Ledger(rabbitmq.add_vhost(vhost)) as ledger:
            watch.until_ready()
            ledger.wait_until_it_flows(watch.stream)
            watch.mark()
            rabbitmq.ctl("delete_vhost", vhost)
            watch.until_not_ready("add_vhost", vhost)
            rabbitmq.add_vhost(vhost)
            watch.until_gap()
            watch.until_ready()
            ledger.wait_until_it_flows(watch.stream)
            ledger.settle(watch.stream)


# --------------------------------------------------------------------------- not the broker at all


def test_a_name_that_nobody_knows(folder: Path) -> None:
    with watching("amqp://guest:guest@name.invalid:5672//", folder, is_ready=False) as watch:
        watch.until_not_ready()
        watch.assert_says("name.invalid")


@pytest.mark.parametrize(
    "greeting",
    [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"\x00" * 4096, b"AMQP\x00\x01\x00\x00"],
    ids=["http", "zeros", "another-amqp"],
)
def test_a_stranger_at_the_brokers_port(greeting: bytes, proxy: Proxy, broker: str, folder: Path) -> None:
    proxy.answer(greeting)
    with watching(proxy.url(broker), folder, is_ready=False) as watch:
        watch.until_not_ready()
        assert wait_for(lambda: proxy.connects >= 3, 15)
        watch.assert_says(str(proxy.port))
        proxy.resume()
        watch.until_ready()
        publish_until_seen(broker, watch)


def test_a_port_that_takes_connections_and_never_answers(proxy: Proxy, broker: str, folder: Path) -> None:
    proxy.stall()
    with watching(proxy.url(broker), folder, is_ready=False) as watch:
        watch.until_not_ready()
        assert wait_for(lambda: proxy.connects >= 2, 25), "the first attempt is never given up"
        watch.assert_says(str(proxy.port))
        proxy.resume()
        watch.until_ready()
        publish_until_seen(broker, watch)


def test_tls_at_a_port_without(proxy: Proxy, broker: str, folder: Path) -> None:
    url = proxy.url(broker).replace("amqp://", "amqps://")
    with watching(url, folder, is_ready=False) as watch:
        watch.until_not_ready()
        assert wait_for(lambda: proxy.connects >= 3, 15)
        watch.assert_says("TLS")


@pytest.fixture(scope="module")
def certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1, signed by itself, and its key, in one file."""
    path = folder / "certificate.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=127.0.0.1",
            ),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", folder / "public.pem"),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + (folder / "public.pem").read_text())
    return path


def test_a_certificate_that_is_not_trusted_and_then_is(
    rabbitmq: RabbitMQ, broker: str, certificate: Path, folder: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Proxy(rabbitmq.port, tls=context) as proxy:
        url = proxy.url(broker).replace("amqp://", "amqps://")
        with watching(url, folder, is_ready=False) as watch:
            watch.until_not_ready()
            watch.assert_says("certificate")
        with watching(f"{url}?cafile={certificate}", folder) as watch, Ledger(broker) as ledger:
            ledger.wait_until_it_flows(watch.stream)
            watch.mark()
            proxy.cut()
            watch.until_gap()
            ledger.wait_until_it_flows(watch.stream)
            ledger.settle(watch.stream)


# --------------------------------------------------------------------------- several URLs


@pytest.fixture
def other_proxy(rabbitmq: RabbitMQ) -> Iterator[Proxy]:
    """Another node of the same cluster, as far as a gateway can see."""
    with Proxy(rabbitmq.port) as proxy:
        yield proxy


def test_the_next_broker_is_used_when_one_fails(
    proxy: Proxy, other_proxy: Proxy, broker: str, folder: Path
) -> None:
    hosts = f"127.0.0.1:{proxy.port},127.0.0.1:{other_proxy.port}"
    proxy.refuse()
    url = f"amqp://guest:guest@{hosts}/{vhost_of(broker)}"
    with watching(url, folder) as watch, Ledger(broker) as ledger:
        ledger.wait_until_it_flows(watch.stream)
        assert not watch.stream.gaps
        for dying, living in ((other_proxy, proxy), (proxy, other_proxy)):
            connects = living.connects
            living.resume()
            watch.mark()
            dying.refuse()
            watch.until_gap()
            watch.until_ready()
            assert living.connects > connects
            ledger.wait_until_it_flows(watch.stream)
        # Both are away, and one comes back.
        watch.mark()
        other_proxy.refuse()
        reason = watch.until_not_ready("127.0.0.1")
        assert str(proxy.port) in reason or str(other_proxy.port) in reason
        other_proxy.resume()
        watch.until_gap()
        watch.until_ready()
        ledger.wait_until_it_flows(watch.stream)
        ledger.settle(watch.stream)


@pytest.mark.parametrize("separator", [",", ";", None], ids=["comma", "semicolon", "repeated"])
def test_several_urls_of_one_broker(
    separator: str | None, proxy: Proxy, other_proxy: Proxy, broker: str, folder: Path
) -> None:
    first, second = proxy.url(broker), other_proxy.url(broker)
    proxy.refuse()
    url, options = (first, ("--broker", second)) if separator is None else (f"{first}{separator}{second}", ())
    with watching(url, folder, options=options) as watch, Ledger(broker) as ledger:
        ledger.wait_until_it_flows(watch.stream)
        assert other_proxy.connects
        ledger.settle(watch.stream)
