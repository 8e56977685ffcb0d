"""The steps to a broker's socket: name, TCP, TLS.

Each is tested separately, before aio-pika or kombu do all of them together. So the step that fails is known
by the test, not by the text of an error.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress

from kombu.utils.url import url_to_parts

from celery_gateway.broker.address import Address
from celery_gateway.broker.diagnosis import Phase, diagnose
from celery_gateway.broker.urls import BY_URL, Access
from celery_gateway.check.step import Step, found, passed

TIMEOUT_SECONDS = 5.0

_FINDINGS = {"queue-deleted": "closed-by-broker", "consumer-cancelled": "closed-by-broker"}
"""The findings for diagnoses that have none of their own."""


async def network_steps(address: Address, url: str) -> AsyncIterator[Step]:
    """Give the steps to the socket, up to the first failure."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            ips = await _resolve(address)
    except (OSError, UnicodeError) as error:
        if isinstance(error, UnicodeError):  # a label of the name is too long, or empty
            error = socket.gaierror(socket.EAI_NONAME, str(error))
        yield failed("dns", error, url)
        return
    if ips != [address.host]:
        yield passed("dns", f"{address.host} is {', '.join(ips)}")
    try:
        await _connect(address, None)
    except OSError as error:
        yield failed("tcp", error, url)
        return
    yield passed("tcp", f"{address.host_and_port} accepts connections")
    if address.is_tls and address.is_amqp:  # redis-py has rules of its own for certificates: see its probe
        try:
            await _connect(address, _context(url))
        except OSError as error:
            yield failed("tls", error, url)
            return
        yield passed("tls", f"{address.host_and_port} has TLS")


def failed(
    name: str,
    error: BaseException,
    url: str,
    phase: Phase = Phase.CONNECT,
    exchange: str = "celeryev",
    access: Access = BY_URL,
) -> Step:
    """Return the step that an error has ended, with its diagnosis."""
    diagnosis = diagnose(error, url, phase=phase, exchange=exchange, access=access)
    finding = _FINDINGS.get(diagnosis.code, diagnosis.code)
    return found(name, finding, diagnosis.what, diagnosis.remedy)


async def missing_tls(address: Address) -> Step | None:
    """Return a step if a port that closed the connection requires TLS, and the URL has none."""
    if address.is_tls or not (address.is_amqp or address.is_redis):
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        await _connect(address, context)
    except OSError:
        return None
    scheme = "rediss" if address.is_redis else "amqps"
    return found("tls", "tls", f"{address.host_and_port} requires TLS", f"Begin the URL with {scheme}://")


async def needless_tls(address: Address) -> Step | None:
    """Return a step if a Redis has no TLS, and the URL has it. (Such a server waits for more bytes.)"""
    if not (address.is_tls and address.is_redis):
        return None
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            try:
                writer.write(b"PING\r\n")
                reply = await reader.readline()
            finally:
                writer.close()
        if reply.startswith((b"+PONG", b"-NOAUTH", b"-DENIED")):
            what = f"{address.host_and_port} has no TLS"
            return found("tls", "tls", what, "If that is intended, begin the URL with redis://")
    return None


async def _resolve(address: Address) -> list[str]:
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


async def _connect(address: Address, context: ssl.SSLContext | None) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            await writer.wait_closed()


def _context(url: str) -> ssl.SSLContext:
    """Return the TLS context for the URL's parameters, whose names are aiormq's."""
    query = url_to_parts(url).query
    context = ssl.create_default_context(cafile=query.get("cafile"), capath=query.get("capath"))
    if query.get("no_verify_ssl", "0") != "0":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate := query.get("certfile"):
        context.load_cert_chain(certificate, query.get("keyfile"))
    return context
