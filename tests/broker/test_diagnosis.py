"""What aio-pika, kombu and redis-py really raise at real servers, put into words."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aio_pika
import pytest
from aiormq.abc import AbstractChannel
from kombu import Connection

from gateway.source.failure import CODES, Failure, consumer_cancelled, failure_of
from gateway.source.place import grant, place_of
from tests.foreign_server import HTTP_ANSWER, server, tls_server
from tests.rabbitmq import Process, RabbitMQ, free_port

PASSWORD = "s3cr3t-%41"  # in a URL: s3cr3t-%2541
TIMEOUT_SECONDS = 1.0

Talk = Callable[[AbstractChannel], Awaitable[object]]


@asynccontextmanager
async def channel_at(url: str) -> AsyncIterator[AbstractChannel]:
    connection = await aio_pika.connect(url, timeout=TIMEOUT_SECONDS)
    try:
        channel = await connection.channel(publisher_confirms=False)
        yield await channel.get_underlay_channel()
    finally:
        with suppress(Exception):
            await asyncio.wait_for(connection.close(), 2)


async def failure_at(url: str, talk: Talk | None = None) -> Failure:
    """What goes wrong on the way to the URL's vhost, or in the talk there."""
    try:
        async with channel_at(url) as channel:
            if talk is not None:
                await talk(channel)
    except (Exception, asyncio.CancelledError) as error:
        failure = failure_of(error, url)
    else:
        raise AssertionError("nothing went wrong")
    assert failure.code in CODES
    assert failure.what and failure.remedy
    assert PASSWORD not in str(failure) and "s3cr3t" not in str(failure)
    return failure


async def closed(channel: AbstractChannel, timeout_seconds: float = 10.0) -> None:
    """Wait until it is over, and raise why."""
    await asyncio.wait_for(asyncio.shield(asyncio.wait({channel.closing})), timeout_seconds)
    channel.closing.result()


@pytest.fixture(scope="module")
def user(rabbitmq: RabbitMQ) -> str:
    """A user that may do nothing anywhere."""
    name = f"user-{uuid.uuid4().hex[:8]}"
    rabbitmq.ctl("add_user", name, PASSWORD)
    return name


@pytest.fixture
def url(rabbitmq: RabbitMQ, broker: str, user: str) -> str:
    return broker.replace("guest:guest", f"{user}:s3cr3t-%2541")


def permit(rabbitmq: RabbitMQ, url: str, configure: str, write: str, read: str) -> None:
    place = place_of(url)
    rabbitmq.ctl("set_permissions", "-p", place.vhost, place.user, configure, write, read)


async def declare_queue(channel: AbstractChannel) -> None:
    await channel.queue_declare("celery-gateway.test", exclusive=True)


async def declare_exchange(channel: AbstractChannel) -> None:
    await channel.exchange_declare("celeryev", exchange_type="topic", durable=True)


async def consume(channel: AbstractChannel) -> None:
    await declare_queue(channel)
    await channel.queue_bind("celery-gateway.test", "celeryev", routing_key="#")
    await channel.basic_consume("celery-gateway.test", lambda message: asyncio.sleep(0))


async def test_a_host_that_has_no_address() -> None:
    failure = await failure_at("amqp://joe:s3cr3t@nowhere.invalid//")
    assert failure.code == "dns"
    assert "nowhere.invalid" in failure.what
    assert failure.remedy.endswith("getent hosts nowhere.invalid")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_nothing_listens(host: str) -> None:
    port = free_port()
    failure = await failure_at(f"amqp://joe:s3cr3t@{host}:{port}//")
    assert failure.code == "unreachable"
    assert f"{host}:{port}" in failure.what and "refused" in failure.what


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
async def test_a_server_that_never_answers(scheme: str) -> None:
    with server(None) as port:
        failure = await failure_at(f"{scheme}://127.0.0.1:{port}//")
    assert failure.code == "timeout"
    assert f"127.0.0.1:{port}" in failure.what


@pytest.mark.parametrize("answer", [HTTP_ANSWER, b"AMQP\x00\x01\x00\x00", b"220 mail.example ESMTP\r\n"])
async def test_a_server_of_something_else(answer: bytes) -> None:
    with server(answer) as port:
        failure = await failure_at(f"amqp://127.0.0.1:{port}//")
    assert failure.code == "not-amqp"


async def test_a_server_that_hangs_up() -> None:
    with server(b"") as port:
        failure = await failure_at(f"amqp://127.0.0.1:{port}//")
    assert failure.code == "connection-lost"


async def test_tls_at_a_plain_port(rabbitmq: RabbitMQ) -> None:
    failure = await failure_at(f"amqps://guest:guest@127.0.0.1:{rabbitmq.port}//")
    assert failure.code == "tls"
    assert "amqp://" in failure.remedy


async def test_certificates(folder: Path) -> None:
    with tls_server(folder) as port:
        failure = await failure_at(f"amqps://127.0.0.1:{port}//")
        assert (failure.code, "signed" in failure.what) == ("certificate", True)
        failure = await failure_at(f"amqps://127.0.0.1:{port}//?cafile={folder / 'certificate.pem'}")
        assert (failure.code, "127.0.0.1" in failure.what) == ("certificate", True)
        failure = await failure_at(f"amqps://127.0.0.1:{port}//?cafile=/nowhere.pem")
        assert failure.code == "url"


async def test_a_wrong_password(rabbitmq: RabbitMQ) -> None:
    failure = await failure_at(f"amqp://guest:s3cr3t@127.0.0.1:{rabbitmq.port}//")
    assert failure.code == "login-refused"
    assert "guest" in failure.what
    assert failure.remedy.endswith("rabbitmqctl change_password guest PASSWORD")


async def test_a_vhost_that_is_not_there_and_one_that_is_not_for_us(
    rabbitmq: RabbitMQ, url: str, user: str
) -> None:
    place = place_of(url)
    missing = f"missing-{uuid.uuid4().hex[:8]}"
    failure = await failure_at(f"{url.rpartition('/')[0]}/{missing}")
    assert failure.code == "vhost-unknown"
    assert f"rabbitmqctl add_vhost {missing} && rabbitmqctl set_permissions -p {missing}" in failure.remedy
    rabbitmq.ctl("clear_permissions", "-p", place.vhost, user)
    failure = await failure_at(url)
    assert failure.code == "vhost-refused"
    assert user in failure.what and place.vhost in failure.what
    assert failure.remedy.endswith(grant(place, "celeryev"))


async def test_a_vhost_that_is_full(rabbitmq: RabbitMQ) -> None:
    name = f"full-{uuid.uuid4().hex[:8]}"
    full = rabbitmq.add_vhost(name)
    rabbitmq.ctl("set_vhost_limits", "-p", name, '{"max-connections": 0}')
    failure = await failure_at(full)
    assert failure.code == "limit-reached"


async def test_rights_that_are_missing(rabbitmq: RabbitMQ, broker: str, url: str, user: str) -> None:
    async with channel_at(broker) as channel:
        await declare_exchange(channel)
    own = r"^celery-gateway\."
    for rights, talk, thing in [
        (("^$", "^$", "^$"), declare_queue, "queue celery-gateway.test"),
        ((own, own, own), declare_exchange, "exchange celeryev"),
        ((own, "^$", "^celeryev$"), consume, "queue celery-gateway.test"),  # to bind: write
        ((own, own, "^$"), consume, "exchange celeryev"),  # to bind: read
        ((own, own, "^celeryev$"), consume, "queue celery-gateway.test"),  # to consume: read
    ]:
        permit(rabbitmq, url, *rights)
        failure = await failure_at(url, talk)
        assert (failure.code, thing in failure.what) == ("permission-refused", True), (rights, failure)
        assert failure.remedy.endswith(grant(place_of(url), "celeryev"))


async def test_the_rights_that_the_remedy_gives_are_enough(rabbitmq: RabbitMQ, broker: str, url: str) -> None:
    async with channel_at(broker) as channel:
        await declare_exchange(channel)
    program, *arguments = grant(place_of(url), "celeryev").replace("'", "").split(" ")
    assert program == "rabbitmqctl"
    rabbitmq.ctl(*arguments)
    async with channel_at(url) as channel:
        await consume(channel)


async def test_the_exchange(rabbitmq: RabbitMQ) -> None:
    fresh = rabbitmq.add_vhost(f"exchange-{uuid.uuid4().hex[:8]}")

    async def passive(channel: AbstractChannel) -> None:
        await channel.exchange_declare("celeryev", passive=True)

    assert (await failure_at(fresh, passive)).code == "exchange-missing"
    async with channel_at(fresh) as channel:
        await channel.exchange_declare("celeryev", exchange_type="topic", durable=False)
    failure = await failure_at(fresh, declare_exchange)
    assert failure.code == "exchange-differs"
    assert "durable" in failure.what


async def test_a_connection_that_somebody_closes(rabbitmq: RabbitMQ, broker: str) -> None:
    async def talk(channel: AbstractChannel) -> None:
        vhost = place_of(broker).vhost
        await asyncio.to_thread(rabbitmq.ctl, "close_all_connections", "--vhost", vhost, "enough")
        await closed(channel)

    failure = await failure_at(broker, talk)
    assert (failure.code, "enough" in failure.what) == ("closed-by-broker", True)


async def test_a_vhost_that_is_deleted_under_us(rabbitmq: RabbitMQ) -> None:
    name = f"short-{uuid.uuid4().hex[:8]}"

    async def talk(channel: AbstractChannel) -> None:
        await asyncio.to_thread(rabbitmq.ctl, "delete_vhost", name)
        await closed(channel)

    failure = await failure_at(rabbitmq.add_vhost(name), talk)
    assert (failure.code, "deleted" in failure.what) == ("vhost-unknown", True)


async def test_a_broker_that_stops(rabbitmq: RabbitMQ, broker: str) -> None:
    async def talk(channel: AbstractChannel) -> None:
        await asyncio.to_thread(rabbitmq.stop_app)
        try:
            await closed(channel)
        finally:
            await asyncio.to_thread(rabbitmq.start_app)

    failure = await failure_at(broker, talk)
    assert (failure.code, "shutdown" in failure.what) == ("closed-by-broker", True)


async def test_a_broker_that_falls_silent(rabbitmq: RabbitMQ, broker: str) -> None:
    assert rabbitmq._server is not None

    async def talk(channel: AbstractChannel) -> None:
        os.kill(rabbitmq._server.pid, signal.SIGSTOP)
        try:
            await closed(channel, 20)
        finally:
            os.kill(rabbitmq._server.pid, signal.SIGCONT)

    failure = await failure_at(f"{broker}?heartbeat=1", talk)
    assert failure.code == "heartbeat-missed"


def test_a_consumer_that_is_cancelled_has_no_exception() -> None:
    failure = consumer_cancelled("amqp://guest:guest@localhost/shop", "celery-gateway.host.1")
    assert failure.code == "consumer-cancelled"
    assert "celery-gateway.host.1" in failure.what and "shop" in failure.remedy


def kombu_failure(url: str) -> Failure:
    try:
        with Connection(url) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=5)
    except Exception as error:
        failure = failure_of(error, url)
    else:
        raise AssertionError("nothing went wrong")
    assert "s3cr3t" not in str(failure)
    return failure


def test_kombu_at_rabbitmq(rabbitmq: RabbitMQ) -> None:
    at = f"127.0.0.1:{rabbitmq.port}"
    assert kombu_failure("pyamqp://nowhere.invalid//").code == "dns"
    assert kombu_failure(f"pyamqp://127.0.0.1:{free_port()}//").code == "unreachable"
    assert kombu_failure(f"pyamqp://guest:s3cr3t@{at}//").code == "login-refused"
    assert kombu_failure(f"pyamqp://guest:guest@{at}/nowhere").code == "vhost-unknown"


def test_kombu_at_redis(folder: Path) -> None:
    port = free_port()
    process = Process(
        [
            *("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder),
            *("--requirepass", "sesame", "--databases", "4"),
        ],
        log=folder / "redis.log",
    )
    try:
        process.wait_until(lambda: "Ready to accept connections" in process.tail(), 10)
        assert kombu_failure(f"redis://127.0.0.1:{port}/0").code == "login-refused"
        assert kombu_failure(f"redis://:s3cr3t@127.0.0.1:{port}/0").code == "login-refused"
        assert kombu_failure(f"redis://joe:s3cr3t@127.0.0.1:{port}/0").code == "login-refused"
        assert kombu_failure(f"redis://:sesame@127.0.0.1:{port}/9").code == "vhost-unknown"
    finally:
        process.kill()
    assert kombu_failure(f"redis://127.0.0.1:{port}/0").code == "unreachable"
    assert kombu_failure("redis://nowhere.invalid/0").code == "dns"


def test_what_was_not_foreseen_says_what_it_was() -> None:
    failure = failure_of(RuntimeError("the moon"), "amqp://joe:s3cr3t@host//")
    assert failure.code == "unexpected"
    assert failure.what == "host:5672: RuntimeError: the moon"
