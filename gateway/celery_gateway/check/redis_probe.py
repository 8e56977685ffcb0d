"""The probe of Redis. It connects as the gateway does (``redis_connection``), in a thread, since that blocks.

If it is permitted, it subscribes to all channels that have the event exchange in their name. So it observes
events that a gateway would not get: on a channel with another prefix, or of another database.
"""

import asyncio
import os
import platform
import queue
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

from celery_gateway.broker.address import address_of
from celery_gateway.broker.diagnosis import Phase
from celery_gateway.broker.pidbox import command_message
from celery_gateway.broker.redis_channels import (
    PIDBOX_EXCHANGE,
    channel_name,
    escaped,
    is_match,
    is_of_exchange,
)
from celery_gateway.broker.redis_connection import RedisConnection
from celery_gateway.broker.redis_envelope import EnvelopeReader
from celery_gateway.broker.redis_replies import ReplyList
from celery_gateway.broker.redis_subscription import Subscription
from celery_gateway.broker.urls import Access
from celery_gateway.check.broker_probe import MisroutedMessage, Observation, worker_replies
from celery_gateway.check.network import failed
from celery_gateway.check.step import Step, found, passed

TIMEOUT_SECONDS = 5.0
POLL_SECONDS = 0.1
EXPIRE_SECONDS = 5.0
"""How long workers execute a command (kombu/pidbox.py), so that replies arrive before their list expires."""
_TIMEOUTS = {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": TIMEOUT_SECONDS}
_STEP_NAMES = {
    "vhost-unknown": "vhost",
    "permission-refused": "channel",
    "certificate": "tls",
    "tls": "tls",
}
"""The step that a finding belongs to; the others belong to the login."""

_Request = tuple[dict[str, Any], "asyncio.Future[None]"]


class RedisProbe:
    """See ``BrokerProbe``.

    Raises:
        TransportError: the package for Redis is not installed.
        ValueError: the URL cannot be read.
    """

    def __init__(self, url: str, exchange: str, access: Access) -> None:
        self.observations: asyncio.Queue[Observation] = asyncio.Queue()
        self.is_consuming = False
        self._url = url
        self._address = address_of(url)
        self._exchange = exchange
        self._access = access
        name = f"{access.queue_prefix}.check.{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}"
        self._reply_key = f"{name}.replies"
        self._requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._ended: asyncio.Future[None] | None = None
        self._phase = Phase.CONNECT
        self._has_sent = False
        self._connection = RedisConnection(url, access, _TIMEOUTS)

    async def open(self) -> AsyncIterator[Step]:
        loop, where = asyncio.get_running_loop(), self._address.host_and_port
        opened: asyncio.Future[bool] = loop.create_future()
        self._ended = loop.create_future()
        threading.Thread(
            target=self._run, args=[loop, opened], name="celery-gateway-check", daemon=True
        ).start()
        try:
            async with asyncio.timeout(4 * TIMEOUT_SECONDS):
                is_replica = await opened
        except TimeoutError:
            yield found(
                "login",
                "timeout",
                f"{where} accepts connections, but does not reply as Redis does",
                "Correct the port (the usual one of Redis is 6379), or check whether the broker is "
                "overloaded.",
            )
        except Exception as error:
            step = failed("login", error, self._url, self._phase, self._exchange, self._access)
            yield step._replace(name=_STEP_NAMES.get(step.finding or "", "login"))
        else:
            self.is_consuming = True
            if self._address.is_tls:
                yield passed("tls", f"{where} has TLS{self._certificate_remark()}")
            yield passed("login", "the broker accepts the login")
            channel = channel_name(self._address, self._exchange, self._access.transport_options)
            yield passed("channel", f"{channel} can be read")
            if is_replica:
                yield found(
                    "role",
                    "replica",
                    f"{where} is a read-only replica: events arrive, but workers cannot be asked",
                    "Set the master in the URL, or the sentinels (sentinel://HOST:26379/0 with "
                    "--transport-option master_name=…).",
                )

    async def consume(self) -> None:
        """Do nothing: an exchange is only a name in Redis, so events are observed from the beginning."""

    async def request(self, command: str, arguments: Mapping[str, Any]) -> None:
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests.put((command_message(command, arguments, "", self._reply_key, None, command), sent))
        await asyncio.wait(
            {sent, *([self._ended] if self._ended else [])}, return_when=asyncio.FIRST_COMPLETED
        )
        if sent.done():
            sent.result()

    async def close(self) -> None:
        self._stopping.set()
        if self._ended is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await asyncio.shield(self._ended)

    def _certificate_remark(self) -> str:
        if "ssl_" in self._url or self._access.tls:
            return ""
        strict = "?ssl_cert_reqs=required&ssl_ca_certs=FILE"
        return f" (the certificate is not checked; to check it, add {strict} to the URL)"

    def _run(self, loop: asyncio.AbstractEventLoop, opened: "asyncio.Future[bool]") -> None:
        """Connect, and observe until the probe is closed. Runs in the thread."""

        def on_end(error: BaseException) -> None:
            if opened.done():
                self.observations.put_nowait(error)
            else:
                opened.set_exception(error)

        def end() -> None:
            assert self._ended is not None
            self._ended.set_result(None)

        try:
            try:
                self._connection.open()
                self._phase = Phase.CONSUME
                subscription = self._connection.subscribe(self._connection.topics(self._exchange))
                with suppress(Exception):  # a permission that is not needed
                    subscription.add([f"*{escaped(self._exchange)}*"])
                loop.call_soon_threadsafe(_set_result, opened, self._connection.is_replica())
                self._observe(loop, subscription)
            finally:
                self._connection.close()
        except Exception as error:
            with suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(on_end, error)
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(end)

    def _observe(self, loop: asyncio.AbstractEventLoop, subscription: Subscription) -> None:
        topics = self._connection.topics(self._exchange)
        reader = EnvelopeReader(has_duplicates=True)  # the patterns overlap
        replies = self._connection.reply_list(self._reply_key)
        expected = 0

        def observe(observation: Observation) -> None:
            loop.call_soon_threadsafe(self.observations.put_nowait, observation)

        try:
            while not self._stopping.is_set():
                expected += self._send_next(loop, replies)
                if self._has_sent:
                    _read_replies(replies, observe)
                if (published := subscription.read(POLL_SECONDS)) is None:
                    continue
                if (message := reader.message(published.payload)) is None:
                    continue
                if any(is_match(published.channel, topic) for topic in topics):
                    observe(message)
                elif is_of_exchange(published.channel, self._exchange):
                    observe(MisroutedMessage(published.channel, message))
        finally:
            if self._has_sent:  # late replies arrive in a list that expires
                with suppress(Exception):
                    replies.release(expected, EXPIRE_SECONDS)
            subscription.close()

    def _send_next(self, loop: asyncio.AbstractEventLoop, replies: ReplyList) -> int:
        """Send the next command, if there is one; return to how many workers."""
        try:
            message, sent = self._requests.get_nowait()
        except queue.Empty:
            return 0
        try:
            replies.keep()
            expires_at = time.time() + EXPIRE_SECONDS
            headers = {"clock": 0, "expires": expires_at}
            count = self._connection.publish(PIDBOX_EXCHANGE, message, headers)
        except Exception as error:
            loop.call_soon_threadsafe(_set_exception, sent, error)
            return 0
        self._has_sent = True
        loop.call_soon_threadsafe(_set_result, sent, None)
        return count


def _read_replies(replies: ReplyList, observe: Callable[[Observation], None]) -> None:
    for message, headers in replies.read():
        for reply in worker_replies(message.body, str(headers.get("ticket"))):
            observe(reply)


def _set_result(future: "asyncio.Future[Any]", result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
