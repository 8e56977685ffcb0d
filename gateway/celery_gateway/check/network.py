"""The way to a broker's socket: name, TCP, TLS.

Each is tried by itself, before aio-pika or kombu try them together, so that what fails is known by what was
tried and not by what an error says.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress

from kombu.utils.url import url_to_parts

from gateway.check.step import Step, found, passed
from gateway.source.failure import failure_of
from gateway.source.place import Place

TIMEOUT_SECONDS = 5.0


async def steps_to(place: Place, url: str) -> AsyncIterator[Step]:
    """Yield the steps up to the first that fails."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            addresses = await _addresses(place)
    except (OSError, UnicodeError) as error:
        if isinstance(error, UnicodeError):  # a label of the name is too long, or empty
            error = socket.gaierror(socket.EAI_NONAME, str(error))
        yield failed("dns", error, url)
        return
    if addresses != [place.host]:
        yield passed("dns", f"{place.host} is {', '.join(addresses)}")
    try:
        await _connect(place, None)
    except OSError as error:
        yield failed("tcp", error, url)
        return
    yield passed("tcp", f"{place.address} accepts connections")
    if place.is_tls:
        try:
            await _connect(place, _context(url))
        except OSError as error:
            yield failed("tls", error, url)
            return
        yield passed("tls", f"{place.address} speaks TLS")


def failed(name: str, error: BaseException, url: str, exchange: str = "celeryev") -> Step:
    """Return the step that an error ended."""
    failure = failure_of(error, url, exchange)
    finding = {"queue-deleted": "closed-by-broker", "consumer-cancelled": "closed-by-broker"}
    return found(name, finding.get(failure.code, failure.code), failure.what, failure.remedy)


async def wanted_tls(place: Place) -> Step | None:
    """Return what was wrong if a port hung up because it wants TLS, which was not spoken."""
    if place.is_tls or not (place.is_amqp or place.is_redis):
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        await _connect(place, context)
    except OSError:
        return None
    scheme = "rediss" if place.is_redis else "amqps"
    return found("tls", "tls", f"{place.address} wants TLS", f"Begin the URL with {scheme}://")


async def _addresses(place: Place) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


async def _connect(place: Place, context: ssl.SSLContext | None) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        _, writer = await asyncio.open_connection(place.host, place.port, ssl=context)
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            await writer.wait_closed()


def _context(url: str) -> ssl.SSLContext:
    """Return the context that the URL's parameters ask for, in aiormq's words and redis-py's."""
    query = url_to_parts(url).query
    context = ssl.create_default_context(
        cafile=query.get("cafile") or query.get("ssl_ca_certs"), capath=query.get("capath")
    )
    requirement = str(query.get("ssl_cert_reqs", "")).lower().removeprefix("cert_")
    if query.get("no_verify_ssl", "0") != "0" or requirement in ("none", "optional"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate = query.get("certfile") or query.get("ssl_certfile")
    if certificate:
        context.load_cert_chain(certificate, query.get("keyfile") or query.get("ssl_keyfile"))
    return context
