"""A subscription to channels of Redis, which detects a silent server.

It does not reconnect: a lost connection is raised. Blocks, so it belongs into a thread.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

PING_SECONDS = 10.0
SILENCE_SECONDS = 30.0
"""A server that answers no ping for so long is gone: Redis sends no heartbeats."""
SUBSCRIBE_SECONDS = 10.0

_MESSAGES = frozenset({b"message", b"pmessage", "message", "pmessage"})


class Published(NamedTuple):
    """A payload that was published on a channel."""

    channel: str
    payload: bytes


class Subscription:
    """A subscription to channels by patterns.

    Args:
        pubsub: of redis-py.
        package: redis-py.
        silence_seconds: how long the server may send nothing.
        ping_seconds: the time without messages after which the server is pinged.
    """

    def __init__(
        self,
        pubsub: Any,
        package: Any,
        *,
        silence_seconds: float = SILENCE_SECONDS,
        ping_seconds: float = PING_SECONDS,
    ) -> None:
        self._pubsub = pubsub
        self._package = package
        self._silence_limit_seconds = silence_seconds
        self._ping_seconds = ping_seconds
        self._waiting: list[Published] = []  # arrived while a subscription was being confirmed
        self._silent_seconds = self._unpinged_seconds = 0.0

    def add(self, patterns: Sequence[str]) -> None:
        """Subscribe to more patterns; return when the server has confirmed them.

        Raises:
            Exception: the server refuses them, or does not answer.
        """
        self._pubsub.psubscribe(*patterns)
        # redis-py would reconnect by itself, and not report that messages were lost.
        connection = self._pubsub.connection
        connection.retry = self._package.retry.Retry(self._package.backoff.NoBackoff(), 0)
        missing = len(patterns)
        deadline = time.monotonic() + SUBSCRIBE_SECONDS
        while missing:
            if time.monotonic() > deadline or not connection.can_read(timeout=deadline - time.monotonic()):
                raise TimeoutError("the subscription was not confirmed")
            response = self._response()
            if response is not None and response[0] in (b"psubscribe", "psubscribe"):
                missing -= 1
            elif (published := _published(response)) is not None:
                self._waiting.append(published)

    def read(self, timeout_seconds: float) -> Published | None:
        """Return the next payload, or ``None`` if none arrived in time.

        Raises:
            TimeoutError: the server is silent for too long.
            Exception: the connection is lost.
        """
        if self._waiting:
            return self._waiting.pop(0)
        began_at = time.monotonic()
        if not self._pubsub.connection.can_read(timeout=timeout_seconds):
            self._check_silence(min(time.monotonic() - began_at, timeout_seconds))
            return None
        return _published(self._response())

    def close(self) -> None:
        """Close the connection."""
        self._pubsub.close()

    def _response(self) -> Any:
        response = self._pubsub.parse_response()
        self._silent_seconds = self._unpinged_seconds = 0.0
        return response

    def _check_silence(self, waited_seconds: float) -> None:
        """Count the server's silence by the time in which its messages were waited for.

        Not by the clock: a thread that had to wait, or was stopped, has sent no ping meanwhile.
        """
        self._silent_seconds += waited_seconds
        self._unpinged_seconds += waited_seconds
        if self._silent_seconds > self._silence_limit_seconds:
            raise TimeoutError(f"no answer for {self._silence_limit_seconds:g} s")
        if self._unpinged_seconds > self._ping_seconds:
            self._unpinged_seconds = 0.0
            self._pubsub.ping()


def _published(response: Any) -> Published | None:
    if not isinstance(response, list | tuple) or len(response) < 3 or response[0] not in _MESSAGES:
        return None
    channel, payload = response[-2], response[-1]
    return Published(
        channel if isinstance(channel, str) else bytes(channel).decode("utf-8", "replace"),
        payload.encode() if isinstance(payload, str) else bytes(payload),
    )
