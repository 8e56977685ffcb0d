"""Limits on each connection of our server: its place, its memory and its deadlines.

Rules: they apply before a request is read, and need nothing of the application. The connections of
``uvicorn_direct`` call them. A limit that is reached is counted (``limits.REASONS``) and ends the connection.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from celery_gateway.http.input_turns import InputScheduler
from celery_gateway.stream.limits import Budget, Limits
from celery_gateway.stream.unexpected_errors import report

REQUEST_SECONDS: Final = 15.0
"""Maximum time from the first byte of a request or a WebSocket's message, or from the connection's start, to
its end."""
CONNECTION_BYTES: Final = 4_000
"""Memory charged for a connection by itself, an estimate. (An idle SSE stream takes 5,200 bytes in all.)"""
CONNECTION_SHARE: Final = 9
"""One address may have this many times as many connections as it leaves free: it may be a proxy's."""
FREE_CONNECTIONS: Final = 100
"""This many of one address are accepted although its memory is used up: a health check may be among them."""
QUEUED_REQUEST_BYTES: Final = 5_000
"""Memory that a queued request takes beside its body and headers."""
FRAGMENT_BYTES: Final = 100
"""Memory that a fragment of a message takes beside its text."""
FREE_INPUT_BYTES: Final = 4 << 10
"""Incomplete input up to this length is not charged."""
MIN_PROGRESS_BYTES: Final = 64 << 10
"""How much a client has to read of a response in ``slow_seconds``, if so much is left."""
START_SECONDS: Final = 0.0003
"""CPU time to start a request, an estimate: its response is made in a later turn."""


class ServerLimits:
    """The limits that the connections of a server share.

    Args:
        limits: those of all clients.
        max_connections: maximum number at a time; one address may have nine tenths of them.
        slow_seconds: how long a client may make no progress in reading a response.
        on_error: is called with an unexpected error in processing a connection's input; by default it is
            logged.

    Attributes:
        connections: the places of the connections.
        input: the turns in which their input is processed.
    """

    def __init__(
        self,
        limits: Limits,
        max_connections: int,
        slow_seconds: float,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        self.limits = limits
        self.on_error = on_error or partial(report, "a connection failed and was closed")
        self.connections = Budget(
            max_connections, "connections", "connections (ulimit -n)", share=CONNECTION_SHARE
        )
        self.slow_seconds = slow_seconds
        self.input = InputScheduler()


class Guard:
    """One connection's place, memory and deadlines.

    Args:
        server: the limits that the connections of its server share.
        client: the address of the other end.
        abort: drops the connection.
        further_bytes: memory of the connection beside ``CONNECTION_BYTES``.
    """

    __slots__ = (
        "server",
        "client",
        "_base_bytes",
        "_own_bytes",
        "_place",
        "_memory",
        "_abort",
        "_request_timer",
        "_write_timer",
        "_unwritten",
        "_is_released",
    )

    def __init__(
        self, server: ServerLimits, client: str, abort: Callable[[], None], further_bytes: int = 0
    ) -> None:
        self.server = server
        self.client = client
        self._base_bytes = CONNECTION_BYTES + further_bytes
        self._own_bytes = 0
        self._place = server.connections.reserve(client)
        self._memory = server.limits.memory.reserve(client)
        self._abort = abort
        self._request_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unwritten = 0
        self._is_released = False

    def admit(self) -> str | None:
        """Take a place for the connection.

        Returns:
            ``None``, or the limit that is reached: ``connections`` or ``memory``.
        """
        if not self._place.resize(1):
            return "connections"
        if self._memory.resize(self._base_bytes):
            self._own_bytes = self._base_bytes
        elif self.server.connections.used_by(self.client) > FREE_CONNECTIONS:
            return "memory"
        return None

    def charge(self, size_bytes: int) -> bool:
        """Charge what the connection holds beside itself; return whether the memory suffices."""
        return self._is_released or self._memory.resize(self._own_bytes + size_bytes)

    def expect_request(self, on_late: Callable[[], None]) -> None:
        """Call ``on_late`` if the request that is being received does not end in ``REQUEST_SECONDS``."""
        if self._request_timer is None and not self._is_released:
            self._request_timer = asyncio.get_running_loop().call_later(REQUEST_SECONDS, on_late)

    def request_received(self) -> None:
        """End the deadline of ``expect_request``."""
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def expect_reading(self, unwritten_bytes: Callable[[], int]) -> None:
        """Drop the connection if its client does not continue to read, until ``reading_resumed``.

        Args:
            unwritten_bytes: returns how much the transport still has to write.
        """
        if self._write_timer is None and not self._is_released:
            self._unwritten = unwritten_bytes()
            self._write_timer = asyncio.get_running_loop().call_later(
                self.server.slow_seconds, self._check_reading, unwritten_bytes
            )

    def reading_resumed(self) -> None:
        """End the deadline of ``expect_reading``: the transport's buffer has drained."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def count(self, reason: str) -> None:
        """Count a client that is refused or disconnected.

        Args:
            reason: one of ``limits.REASONS``.
        """
        details = ""
        if reason == "connections":
            details = (
                f"{self.server.connections.limit} are allowed, nine tenths of them from one address; "
                "to allow more, raise the limit of open files (ulimit -n)"
            )
        self.server.limits.count(reason, details)

    def release(self) -> None:
        """Release place and memory, and end the deadlines. None can be started from now on."""
        self._is_released = True
        self.request_received()
        self.reading_resumed()
        self._place.release()
        self._memory.release()

    def _check_reading(self, unwritten_bytes: Callable[[], int]) -> None:
        self._write_timer = None
        left = unwritten_bytes()
        if left and left > self._unwritten - MIN_PROGRESS_BYTES:
            self.count("slow-response")
            self._abort()
        elif left:
            self.expect_reading(unwritten_bytes)
