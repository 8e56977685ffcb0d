"""A gateway whose broker is unreachable, closes the connection, refuses it, or is another server.

Each test watches a real gateway from outside (tests/support/gateway_watch.py). In most tests, publishers
number their events, and wherever events are missing in a stream there is a gap (tests/support/ledger.py).
Outages of a whole node are in test_node_outages.py.
"""

import ssl
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kombu import Connection

from tests.support.gateway_watch import OUTAGE_LINES, publish_until_seen, watching
from tests.support.ledger import GAP, Entry, Ledger, discrepancies
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQ, wait_for
from tests.support.rabbitmq_users import (
    add_user,
    change_password,
    clear_permissions,
    delete_user,
    delete_vhost,
    set_permissions,
)
from tests.support.thorough import variants

MINIMAL = (r"^celery-gateway\..*", r"^celery-gateway\..*", r"^(celery-gateway\..*|celeryev)$")
"""The permissions to configure, write and read that are sufficient."""


@pytest.fixture
def proxy(rabbitmq: RabbitMQ) -> Iterator[Proxy]:
    with Proxy(rabbitmq.port) as proxy:
        yield proxy


def queues_of_the_gateway(rabbitmq: RabbitMQ, broker: str) -> dict[str, str]:
    """Names and arguments of the queues that a gateway consumes; the event queue is first."""
    columns = ("name", "consumers", "arguments", "--no-table-headers")
    text = rabbitmq.ctl("list_queues", "-p", vhost_of(broker), *columns)
    rows = (line.split("\t") for line in text.splitlines() if line.startswith("celery-gateway."))
    found = [(name, arguments) for name, consumers, arguments in rows if consumers == "1"]
    return dict(sorted(found, key=lambda queue: ".overflow." in queue[0]))


def vhost_of(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


# ------------------------------------------------------------------------------------- the ledger itself


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
def test_the_ledger_finds_discrepancies(numbers: list[int], is_correct: bool) -> None:
    entries = [Entry(GAP, -1) if number < 0 else Entry("author", number) for number in numbers]
    found = discrepancies(entries, "author", confirmed={0, 1, 2, 3}, attempted=4)
    assert (not found) == is_correct, found


def test_events_that_the_broker_did_not_confirm_may_be_missing() -> None:
    assert not discrepancies(
        [Entry("author", 0), Entry("author", 2)], "author", confirmed={0, 2}, attempted=4
    )


def test_the_entries_of_a_worker_are_in_order_by_task() -> None:
    """An event may wait for the name of its task while other events pass."""
    entries = [
        Entry("worker", 3, "b"),
        Entry("worker", 0, "a"),
        Entry("worker", 1, "a"),
        Entry("worker", 4, "b"),
    ]
    assert not discrepancies(entries, "worker", {0, 1, 3, 4}, 5, walks=True)
    assert discrepancies(entries[::-1], "worker", {0, 1, 3, 4}, 5, walks=True)


# ------------------------------------------------------------------------------------- the network


def test_a_connection_cut_again_and_again(proxy: Proxy, broker: str, folder: Path) -> None:
    with watching(proxy.url(broker), folder) as watch, Ledger(broker) as ledger:
        ledger.wait_until_it_flows(watch.stream)
        assert not watch.stream.gaps, "a gap is reported, but nothing was lost"
        for cut in (proxy.cut, proxy.hang_up, proxy.cut):
            watch.mark()
            cut()
            watch.until_gap()
            watch.until_ready()
            ledger.wait_until_it_flows(watch.stream)
        ledger.settle(watch.stream)


def test_attempts_are_made_less_and_less_often(proxy: Proxy, broker: str, folder: Path) -> None:
    with watching(proxy.url(broker), folder) as watch, Ledger(broker) as ledger:
        ledger.wait_until_it_flows(watch.stream)
        watch.mark()
        proxy.answer(b"")  # an attempt is counted, and fails
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


def test_a_pulled_cable_is_detected_by_its_silence(proxy: Proxy, broker: str, folder: Path) -> None:
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


def test_a_short_silence_loses_nothing(proxy: Proxy, broker: str, folder: Path) -> None:
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


# ------------------------------------------------------------------------------------- changes by others


def delete_the_queue(rabbitmq: RabbitMQ, broker: str) -> None:
    name, *_ = queues_of_the_gateway(rabbitmq, broker)
    rabbitmq.ctl("delete_queue", "-p", vhost_of(broker), name)


def delete_the_overflow_queue(rabbitmq: RabbitMQ, broker: str) -> None:
    """Delete the queue whose messages report that the broker has dropped events."""
    _, name = queues_of_the_gateway(rabbitmq, broker)
    rabbitmq.ctl("delete_queue", "-p", vhost_of(broker), name)


def delete_the_exchange(rabbitmq: RabbitMQ, broker: str) -> None:
    with Connection(broker) as connection:
        connection.default_channel.exchange_delete("celeryev")


def close_the_connections(rabbitmq: RabbitMQ, broker: str) -> None:
    rabbitmq.ctl("close_all_connections", "--vhost", vhost_of(broker), "by the test")


@pytest.mark.parametrize(
    "delete",
    variants(2, [delete_the_queue, close_the_connections, delete_the_overflow_queue, delete_the_exchange]),
    ids=lambda delete: delete.__name__,
)
def test_a_deletion_under_load(
    delete: Callable[[RabbitMQ, str], None], rabbitmq: RabbitMQ, broker: str, folder: Path
) -> None:
    with watching(broker, folder) as watch, Ledger(broker, reconnect_seconds=3) as ledger:
        ledger.wait_until_it_flows(watch.stream)
        watch.mark()
        delete(rabbitmq, broker)
        watch.until_gap()
        watch.until_ready()
        ledger.wait_until_it_flows(watch.stream)
        ledger.settle(watch.stream)


def test_an_exchange_that_is_deleted_and_declared_again_at_once(
    rabbitmq: RabbitMQ, broker: str, folder: Path
) -> None:
    """By the next publisher: each check finds the exchange, but our binding is gone."""
    with watching(broker, folder) as watch, Ledger(broker) as ledger:
        ledger.wait_until_it_flows(watch.stream)
        watch.mark()
        delete_the_exchange(rabbitmq, broker)
        watch.until_gap()
        watch.until_ready()
        ledger.wait_until_it_flows(watch.stream)
        ledger.settle(watch.stream)


@pytest.mark.parametrize(
    "delete", [delete_the_queue, delete_the_exchange], ids=lambda delete: delete.__name__
)
def test_a_deletion_while_idle(
    delete: Callable[[RabbitMQ, str], None], rabbitmq: RabbitMQ, broker: str, folder: Path
) -> None:
    with watching(broker, folder) as watch:
        publish_until_seen(broker, watch)
        watch.mark()
        delete(rabbitmq, broker)
        watch.until_gap()
        watch.until_ready()
        publish_until_seen(broker, watch)


# ------------------------------------------------------------------------------------- permissions


@pytest.fixture
def user(rabbitmq: RabbitMQ) -> Iterator[str]:
    """A user with the password s3cret and no permissions."""
    name = f"gateway-{uuid.uuid4().hex[:8]}"
    add_user(rabbitmq, name, "s3cret")
    try:
        yield name
    finally:
        delete_user(rabbitmq, name)


def as_user(url: str, user: str) -> str:
    return url.replace("guest:guest@", f"{user}:s3cret@")


def test_permissions_for_its_own_queues_are_not_sufficient_and_the_missing_one_is_shown(
    rabbitmq: RabbitMQ, broker: str, user: str, folder: Path
) -> None:
    own = r"^celery-gateway\..*"
    set_permissions(rabbitmq, vhost_of(broker), user, own, own, own)
    with watching(as_user(broker, user), folder, is_ready=False) as watch:
        watch.until_not_ready("celeryev", "set_permissions", user)


def test_the_minimal_permissions_are_sufficient(
    rabbitmq: RabbitMQ, broker: str, user: str, folder: Path
) -> None:
    vhost = vhost_of(broker)
    with (
        watching(as_user(broker, user), folder, is_ready=False) as watch,
        Ledger(broker) as ledger,
    ):
        watch.until_not_ready()
        watch.assert_logged("set_permissions", user)
        set_permissions(rabbitmq, vhost, user, *MINIMAL)
        watch.until_ready()
        arguments = " ".join(queues_of_the_gateway(rabbitmq, broker).values())
        assert "x-dead-letter-exchange" in arguments, "events that the broker drops would not be reported"
        exchanges = rabbitmq.ctl("list_exchanges", "-p", vhost, "name")
        assert "celery-gateway.tripwire" not in exchanges, "it may not bind one, and must leave none behind"
        ledger.wait_until_it_flows(watch.stream)
        watch.mark()
        # Without permissions the connection still consumes, but a new one is refused.
        clear_permissions(rabbitmq, vhost, user)
        rabbitmq.ctl("close_all_connections", "--vhost", vhost, "by the test")
        watch.until_not_ready("set_permissions", user)
        # Access to the vhost, but no permission there.
        set_permissions(rabbitmq, vhost, user, "^$", "^$", "^$")
        assert not watch.gateway.is_ready()
        set_permissions(rabbitmq, vhost, user, *MINIMAL)
        watch.until_gap()
        watch.until_ready()
        ledger.wait_until_it_flows(watch.stream)
        ledger.settle(watch.stream)


def test_a_missing_exchange_without_the_permission_to_declare_it(
    rabbitmq: RabbitMQ, user: str, folder: Path
) -> None:
    broker = rabbitmq.add_vhost(f"outages-{uuid.uuid4().hex[:8]}")
    set_permissions(rabbitmq, vhost_of(broker), user, *MINIMAL)
    with watching(as_user(broker, user), folder, is_ready=False) as watch:
        watch.until_not_ready()
        watch.assert_logged("celeryev")
        with Ledger(broker) as ledger:  # its publishers declare it, as workers do
            watch.until_ready()
            ledger.wait_until_it_flows(watch.stream)
            ledger.settle(watch.stream)


def test_a_wrong_password_that_is_corrected(
    rabbitmq: RabbitMQ, proxy: Proxy, broker: str, user: str, folder: Path
) -> None:
    set_permissions(rabbitmq, vhost_of(broker), user, *MINIMAL)
    change_password(rabbitmq, user, "another")
    with (
        watching(proxy.url(as_user(broker, user)), folder, is_ready=False) as watch,
        Ledger(broker) as ledger,
    ):
        watch.until_not_ready()
        assert wait_for(lambda: proxy.connects >= 3, 15)
        watch.assert_logged("password", user)
        change_password(rabbitmq, user, "s3cret")
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
        watch.assert_logged("vhost", vhost)
        with Ledger(rabbitmq.add_vhost(vhost)) as ledger:
            watch.until_ready()
            ledger.wait_until_it_flows(watch.stream)
            watch.mark()
            delete_vhost(rabbitmq, vhost)
            watch.until_not_ready("add_vhost", vhost)
            rabbitmq.add_vhost(vhost)
            watch.until_gap()
            watch.until_ready()
            ledger.wait_until_it_flows(watch.stream)
            ledger.settle(watch.stream)


# ------------------------------------------------------------------------------------- other servers


def test_an_unknown_host_name(folder: Path) -> None:
    with watching("amqp://guest:guest@name.invalid:5672//", folder, is_ready=False) as watch:
        watch.until_not_ready()
        watch.assert_logged("name.invalid")


@pytest.mark.parametrize(
    "greeting",
    [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"\x00" * 4096, b"AMQP\x00\x01\x00\x00"],
    ids=["http", "zeros", "another-amqp"],
)
def test_another_server_at_the_brokers_port(greeting: bytes, proxy: Proxy, broker: str, folder: Path) -> None:
    proxy.answer(greeting)
    with watching(proxy.url(broker), folder, is_ready=False) as watch:
        watch.until_not_ready()
        assert wait_for(lambda: proxy.connects >= 3, 15)
        watch.assert_logged(str(proxy.port))
        proxy.resume()
        watch.until_ready()
        publish_until_seen(broker, watch)


def test_a_port_that_accepts_connections_and_never_replies(proxy: Proxy, broker: str, folder: Path) -> None:
    proxy.stall()
    with watching(proxy.url(broker), folder, is_ready=False) as watch:
        watch.until_not_ready()
        assert wait_for(lambda: proxy.connects >= 2, 25), "the first attempt has no timeout"
        watch.assert_logged(str(proxy.port))
        proxy.resume()
        watch.until_ready()
        publish_until_seen(broker, watch)


def test_tls_at_a_port_without_tls(proxy: Proxy, broker: str, folder: Path) -> None:
    url = proxy.url(broker).replace("amqp://", "amqps://")
    with watching(url, folder, is_ready=False) as watch:
        watch.until_not_ready()
        assert wait_for(lambda: proxy.connects >= 3, 15)
        watch.assert_logged("TLS")


@pytest.fixture(scope="module")
def certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, and its key, in one file."""
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
            watch.assert_logged("certificate")
        with watching(f"{url}?cafile={certificate}", folder) as watch, Ledger(broker) as ledger:
            ledger.wait_until_it_flows(watch.stream)
            watch.mark()
            proxy.cut()
            watch.until_gap()
            ledger.wait_until_it_flows(watch.stream)
            ledger.settle(watch.stream)


# ------------------------------------------------------------------------------------- several URLs


@pytest.fixture
def other_proxy(rabbitmq: RabbitMQ) -> Iterator[Proxy]:
    """Another address of the broker, for a gateway another node of the cluster."""
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
        for failing, other in ((other_proxy, proxy), (proxy, other_proxy)):
            connects = other.connects
            other.resume()
            watch.mark()
            failing.refuse()
            watch.until_gap()
            watch.until_ready()
            assert other.connects > connects
            ledger.wait_until_it_flows(watch.stream)
        # Both are unreachable, then one is reachable again.
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
