"""Diagnoses of the errors that aio-pika, kombu and redis-py raise at real servers."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aio_pika
import pytest
from aiormq.abc import AbstractChannel
from kombu import Connection

from celery_gateway.broker.address import address_of
from celery_gateway.broker.diagnosis import CODES, Diagnosis, Phase, consumer_cancelled, diagnose
from celery_gateway.broker.permissions import grant_rabbitmq
from tests.support.foreign_server import HTTP_ANSWER, server, tls_server
from tests.support.proxy import Proxy
from tests.support.rabbitmq import Process, RabbitMQ, free_port
from tests.support.rabbitmq_users import add_user, clear_permissions, set_permissions

PASSWORD = "s3cr3t-%41"  # in a URL: s3cr3t-%2541
TIMEOUT_SECONDS = 1.0

Steps = Callable[[AbstractChannel], Awaitable[object]]


@asynccontextmanager
async def channel_at(url: str) -> AsyncIterator[AbstractChannel]:
    connection = await aio_pika.connect(url, timeout=TIMEOUT_SECONDS)
    try:
        channel = await connection.channel(publisher_confirms=False)
        yield await channel.get_underlay_channel()
    finally:
        with suppress(Exception):
            await asyncio.wait_for(connection.close(), 2)


async def diagnosis_at(url: str, steps: Steps | None = None) -> Diagnosis:
    """The diagnosis of the error while connecting to the URL's vhost, or in the steps behind that."""
    phase = Phase.CONNECT
    try:
        async with channel_at(url) as channel:
            phase = Phase.CONSUME if steps in (declare_queue, declare_exchange, consume) else Phase.LOST
            if steps is not None:
                await steps(channel)
    except (Exception, asyncio.CancelledError) as error:
        diagnosis = diagnose(error, url, phase=phase)
    else:
        raise AssertionError("no error")
    assert diagnosis.code in CODES
    assert diagnosis.what and diagnosis.remedy
    assert PASSWORD not in str(diagnosis) and "s3cr3t" not in str(diagnosis)
    return diagnosis


async def closed(channel: AbstractChannel, timeout_seconds: float = 30) -> None:
    """Wait until the channel is closed, and raise the error that closed it."""
    await asyncio.wait_for(asyncio.shield(asyncio.wait({channel.closing})), timeout_seconds)
    channel.closing.result()


@pytest.fixture(scope="module")
def user(rabbitmq: RabbitMQ) -> str:
    """A user without permissions."""
    name = f"user-{uuid.uuid4().hex[:8]}"
    add_user(rabbitmq, name, PASSWORD)
    return name


@pytest.fixture
def url(rabbitmq: RabbitMQ, broker: str, user: str) -> str:
    return broker.replace("guest:guest", f"{user}:s3cr3t-%2541")


def permit(rabbitmq: RabbitMQ, url: str, configure: str, write: str, read: str) -> None:
    address = address_of(url)
    set_permissions(rabbitmq, address.vhost, address.user, configure, write, read)


async def declare_queue(channel: AbstractChannel) -> None:
    await channel.queue_declare("celery-gateway.test", exclusive=True)


async def declare_exchange(channel: AbstractChannel) -> None:
    await channel.exchange_declare("celeryev", exchange_type="topic", durable=True)


async def consume(channel: AbstractChannel) -> None:
    await declare_queue(channel)
    await channel.queue_bind("celery-gateway.test", "celeryev", routing_key="#")
    await channel.basic_consume("celery-gateway.test", lambda message: asyncio.sleep(0))


async def test_an_unknown_host_name() -> None:
    diagnosis = await diagnosis_at("amqp://joe:s3cr3t@nowhere.invalid//")
    assert diagnosis.code == "dns"
    assert "nowhere.invalid" in diagnosis.what
    assert diagnosis.remedy.endswith("getent hosts nowhere.invalid")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_closed_port(host: str) -> None:
    port = free_port()
    diagnosis = await diagnosis_at(f"amqp://joe:s3cr3t@{host}:{port}//")
    assert diagnosis.code == "unreachable"
    assert f"{host}:{port}" in diagnosis.what and "refused" in diagnosis.what


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
async def test_a_server_that_never_answers(scheme: str) -> None:
    with server(None) as port:
        diagnosis = await diagnosis_at(f"{scheme}://127.0.0.1:{port}//")
    assert diagnosis.code == "timeout"
    assert f"127.0.0.1:{port}" in diagnosis.what


@pytest.mark.parametrize("answer", [HTTP_ANSWER, b"AMQP\x00\x01\x00\x00", b"220 mail.example ESMTP\r\n"])
async def test_a_server_of_another_protocol(answer: bytes) -> None:
    with server(answer) as port:
        diagnosis = await diagnosis_at(f"amqp://127.0.0.1:{port}//")
    assert diagnosis.code == "not-amqp"


async def test_a_server_that_closes_the_connection() -> None:
    with server(b"") as port:
        diagnosis = await diagnosis_at(f"amqp://127.0.0.1:{port}//")
    assert diagnosis.code == "connection-lost"


async def test_tls_at_a_port_without_tls(rabbitmq: RabbitMQ) -> None:
    diagnosis = await diagnosis_at(f"amqps://guest:guest@127.0.0.1:{rabbitmq.port}//")
    assert diagnosis.code == "tls"
    assert "amqp://" in diagnosis.remedy


async def test_certificates(folder: Path) -> None:
    with tls_server(folder) as port:
        diagnosis = await diagnosis_at(f"amqps://127.0.0.1:{port}//")
        assert (diagnosis.code, "signed" in diagnosis.what) == ("certificate", True)
        diagnosis = await diagnosis_at(f"amqps://127.0.0.1:{port}//?cafile={folder / 'certificate.pem'}")
        assert (diagnosis.code, "127.0.0.1" in diagnosis.what) == ("certificate", True)
        diagnosis = await diagnosis_at(f"amqps://127.0.0.1:{port}//?cafile=/nowhere.pem")
        assert diagnosis.code == "url"


async def test_a_wrong_password(rabbitmq: RabbitMQ) -> None:
    diagnosis = await diagnosis_at(f"amqp://guest:s3cr3t@127.0.0.1:{rabbitmq.port}//")
    assert diagnosis.code == "login-refused"
    assert "guest" in diagnosis.what
    assert diagnosis.remedy.endswith("rabbitmqctl change_password guest PASSWORD")


async def test_a_missing_vhost_and_one_without_permissions(rabbitmq: RabbitMQ, url: str, user: str) -> None:
    address = address_of(url)
    missing = f"missing-{uuid.uuid4().hex[:8]}"
    diagnosis = await diagnosis_at(f"{url.rpartition('/')[0]}/{missing}")
    assert diagnosis.code == "vhost-unknown"
    assert f"rabbitmqctl add_vhost {missing} && rabbitmqctl set_permissions -p {missing}" in diagnosis.remedy
    clear_permissions(rabbitmq, address.vhost, user)
    diagnosis = await diagnosis_at(url)
    assert diagnosis.code == "vhost-refused"
    assert user in diagnosis.what and address.vhost in diagnosis.what
    assert diagnosis.remedy.endswith(grant_rabbitmq(address, "celeryev"))


async def test_a_connection_limit_of_a_vhost(rabbitmq: RabbitMQ) -> None:
    name = f"full-{uuid.uuid4().hex[:8]}"
    full = rabbitmq.add_vhost(name)
    rabbitmq.ctl("set_vhost_limits", "-p", name, '{"max-connections": 0}')
    diagnosis = await diagnosis_at(full)
    assert diagnosis.code == "limit-reached"


async def test_missing_permissions(rabbitmq: RabbitMQ, broker: str, url: str, user: str) -> None:
    async with channel_at(broker) as channel:
        await declare_exchange(channel)
    own = r"^celery-gateway\."
    for permissions, steps, subject in [
        (("^$", "^$", "^$"), declare_queue, "queue celery-gateway.test"),
        ((own, own, own), declare_exchange, "exchange celeryev"),
        ((own, "^$", "^celeryev$"), consume, "queue celery-gateway.test"),  # to bind: write
        ((own, own, "^$"), consume, "exchange celeryev"),  # to bind: read
        ((own, own, "^celeryev$"), consume, "queue celery-gateway.test"),  # to consume: read
    ]:
        permit(rabbitmq, url, *permissions)
        diagnosis = await diagnosis_at(url, steps)
        assert (diagnosis.code, subject in diagnosis.what) == ("permission-refused", True), (
            permissions,
            diagnosis,
        )
        assert diagnosis.remedy.endswith(grant_rabbitmq(address_of(url), "celeryev"))


async def test_the_permissions_of_the_remedy_are_sufficient(
    rabbitmq: RabbitMQ, broker: str, url: str
) -> None:
    async with channel_at(broker) as channel:
        await declare_exchange(channel)
    program, *arguments = grant_rabbitmq(address_of(url), "celeryev").replace("'", "").split(" ")
    assert program == "rabbitmqctl"
    rabbitmq.ctl(*arguments)
    async with channel_at(url) as channel:
        await consume(channel)


async def test_a_missing_exchange_and_a_different_one(rabbitmq: RabbitMQ) -> None:
    fresh = rabbitmq.add_vhost(f"exchange-{uuid.uuid4().hex[:8]}")

    async def passive(channel: AbstractChannel) -> None:
        await channel.exchange_declare("celeryev", passive=True)

    assert (await diagnosis_at(fresh, passive)).code == "exchange-missing"
    async with channel_at(fresh) as channel:
        await channel.exchange_declare("celeryev", exchange_type="topic", durable=False)
    diagnosis = await diagnosis_at(fresh, declare_exchange)
    assert diagnosis.code == "exchange-differs"
    assert "durable" in diagnosis.what


async def test_a_connection_that_an_administrator_closes(rabbitmq: RabbitMQ, broker: str) -> None:
    async def steps(channel: AbstractChannel) -> None:
        vhost = address_of(broker).vhost
        await asyncio.to_thread(rabbitmq.ctl, "close_all_connections", "--vhost", vhost, "enough")
        await closed(channel)

    diagnosis = await diagnosis_at(broker, steps)
    assert (diagnosis.code, "enough" in diagnosis.what) == ("closed-by-broker", True)


async def test_a_vhost_that_is_deleted_while_connected(rabbitmq: RabbitMQ) -> None:
    name = f"short-{uuid.uuid4().hex[:8]}"

    async def steps(channel: AbstractChannel) -> None:
        await asyncio.to_thread(rabbitmq.ctl, "delete_vhost", name)
        await closed(channel)

    diagnosis = await diagnosis_at(rabbitmq.add_vhost(name), steps)
    assert (diagnosis.code, "deleted" in diagnosis.what) == ("vhost-unknown", True)


async def test_a_silent_broker(rabbitmq: RabbitMQ, broker: str) -> None:
    with Proxy(rabbitmq.port) as proxy:

        async def steps(channel: AbstractChannel) -> None:
            await asyncio.to_thread(proxy.stall)
            await closed(channel, 20)

        diagnosis = await diagnosis_at(f"{proxy.url(broker)}?heartbeat=1", steps)
    assert diagnosis.code == "heartbeat-missed"


def test_a_cancelled_consumer() -> None:
    diagnosis = consumer_cancelled("amqp://guest:guest@localhost/shop", "celery-gateway.host.1")
    assert diagnosis.code == "consumer-cancelled"
    assert "celery-gateway.host.1" in diagnosis.what and "shop" in diagnosis.remedy


def kombu_diagnosis(url: str) -> Diagnosis:
    try:
        with Connection(url) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=5)
    except Exception as error:
        diagnosis = diagnose(error, url, phase=Phase.CONNECT)
    else:
        raise AssertionError("no error")
    assert "s3cr3t" not in str(diagnosis)
    return diagnosis


def test_kombu_at_rabbitmq(rabbitmq: RabbitMQ) -> None:
    at = f"127.0.0.1:{rabbitmq.port}"
    assert kombu_diagnosis("pyamqp://nowhere.invalid//").code == "dns"
    assert kombu_diagnosis(f"pyamqp://127.0.0.1:{free_port()}//").code == "unreachable"
    assert kombu_diagnosis(f"pyamqp://guest:s3cr3t@{at}//").code == "login-refused"
    assert kombu_diagnosis(f"pyamqp://guest:guest@{at}/nowhere").code == "vhost-unknown"


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
        assert kombu_diagnosis(f"redis://127.0.0.1:{port}/0").code == "login-refused"
        assert kombu_diagnosis(f"redis://:s3cr3t@127.0.0.1:{port}/0").code == "login-refused"
        assert kombu_diagnosis(f"redis://joe:s3cr3t@127.0.0.1:{port}/0").code == "login-refused"
        assert kombu_diagnosis(f"redis://:sesame@127.0.0.1:{port}/9").code == "vhost-unknown"
    finally:
        process.kill()
    assert kombu_diagnosis(f"redis://127.0.0.1:{port}/0").code == "unreachable"
    assert kombu_diagnosis("redis://nowhere.invalid/0").code == "dns"


def test_an_unexpected_error_is_shown() -> None:
    diagnosis = diagnose(RuntimeError("the moon"), "amqp://joe:s3cr3t@host//", phase=Phase.CONNECT)
    assert diagnosis.code == "unexpected"
    assert diagnosis.what == "host:5672: RuntimeError: the moon"
