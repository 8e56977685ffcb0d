"""Keep-alives and progress checks of pushed subscriptions.

Rules:

- A live stream that has been silent for most of ``keepalive_seconds`` gets a keep-alive, which moves the
  position of its client. So does one that waits for the log.
- A stream ends with the reason ``slow`` if its client has not read anything for ``slow_seconds``. It does not
  count as slow while it waits for its turn to catch up.
- Subscriptions are checked a part of them at a time, so that one callback of the event loop stays short.

All times are loop time, in seconds.
"""

import asyncio
from collections.abc import Callable

from celery_gateway.stream.subscription import Subscription

PARTS = 64
"""How many parts the subscriptions are divided into; one part is checked at a time."""
CHECKS_PER_KEEPALIVE = 4
KEEPALIVE_FROM = 0.75
"""A keep-alive is due when a stream has been silent for this part of ``keepalive_seconds``."""


class KeepaliveTimer:
    """Checks all pushed subscriptions periodically.

    Args:
        keepalive_seconds: about how long a stream may be silent; each is checked four times in that time.
        slow_seconds: how long a client may make no progress.
    """

    def __init__(self, keepalive_seconds: float, slow_seconds: float) -> None:
        self._keepalive_seconds = keepalive_seconds
        self._slow_seconds = slow_seconds
        self._parts: list[dict[Subscription, ProgressCheck]] = [{} for _ in range(PARTS)]
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, subscription: Subscription, buffered_bytes: Callable[[], int]) -> None:
        """Check a subscription from now on.

        Args:
            buffered_bytes: returns the size of its transport's buffer.
        """
        check = ProgressCheck(subscription, buffered_bytes, asyncio.get_running_loop().time())
        self._part(subscription)[subscription] = check
        if self._timer is None:
            self._schedule()

    def remove(self, subscription: Subscription) -> None:
        """Check a subscription no more."""
        self._part(subscription).pop(subscription, None)

    def _part(self, subscription: Subscription) -> "dict[Subscription, ProgressCheck]":
        return self._parts[hash(subscription) % PARTS]

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(
            self._keepalive_seconds / CHECKS_PER_KEEPALIVE / PARTS, self._check_part
        )

    def _check_part(self) -> None:
        self._schedule()  # first: after an unexpected error the checks go on
        now = asyncio.get_running_loop().time()
        part = self._parts[self._next]
        self._next = (self._next + 1) % PARTS
        for check in tuple(part.values()):
            check.tick(now, self._keepalive_seconds, self._slow_seconds)
        if not any(self._parts) and self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ProgressCheck:
    """Checks one pushed subscription.

    Args:
        buffered_bytes: returns the size of its transport's buffer.
        now: loop time of the beginning.
    """

    __slots__ = ("_subscription", "_buffered_bytes", "_progress", "_changed_at", "_stuck")

    def __init__(self, subscription: Subscription, buffered_bytes: Callable[[], int], now: float) -> None:
        self._subscription = subscription
        self._buffered_bytes = buffered_bytes
        self._progress: object = None
        self._changed_at = now  # since when ``_progress`` is the same; of a live stream, its last keep-alive
        self._stuck: tuple[float, int] | None = None  # since when the buffer has not shrunk, and its size

    def tick(self, now: float, keepalive_seconds: float, slow_seconds: float) -> None:
        """Charge the client for the buffer, send a due keep-alive, and end the stream of a slow client.

        An unexpected error ends this stream only.

        Args:
            now: loop time.
            keepalive_seconds, slow_seconds: as for ``KeepaliveTimer``.
        """
        subscription = self._subscription
        try:
            buffered_bytes = self._buffered_bytes()
            subscription.charge(buffered_bytes)
            progress = subscription.progress
            if subscription.is_ended:
                return
            if subscription.is_waiting and not subscription.is_paused:
                self._tick_waiting(now, keepalive_seconds * KEEPALIVE_FROM, progress)
                return
            if progress is None:
                is_slow = self._is_stuck(now, slow_seconds, buffered_bytes)
            else:
                is_slow = self._is_stalled(now, slow_seconds, (progress, buffered_bytes))
            if is_slow:
                subscription.end("slow")
            elif progress is None and self._is_silent(now, keepalive_seconds * KEEPALIVE_FROM):
                subscription.push_keepalive()
        except Exception as error:
            subscription.fail(error)

    def _tick_waiting(self, now: float, seconds: float, progress: object) -> None:
        """Send a keep-alive in a stream that has waited for the log for ``seconds``."""
        if progress != self._progress:
            self._changed_at, self._progress = now, progress
        elif now - self._changed_at >= seconds:
            self._changed_at = now
            self._subscription.push_keepalive()

    def _is_silent(self, now: float, seconds: float) -> bool:
        """Return whether a live stream has been silent for ``seconds``; its keep-alive is then sent now."""
        if now - max(self._subscription.cohort.written_at, self._changed_at) < seconds:
            return False
        self._changed_at, self._progress = now, None
        return True

    def _is_stuck(self, now: float, seconds: float, buffered_bytes: int) -> bool:
        """Return whether the client of a live stream has read nothing for ``seconds``."""
        if not buffered_bytes:
            self._stuck = None
        elif self._stuck is None or buffered_bytes < self._stuck[1]:
            self._stuck = now, buffered_bytes
        else:
            self._stuck = self._stuck[0], buffered_bytes
            return now - self._stuck[0] >= seconds
        return False

    def _is_stalled(self, now: float, seconds: float, progress: object) -> bool:
        """Return whether the client of a lagging stream has read nothing for ``seconds``."""
        # One whose transport is not full waits for its turn, not for its client.
        if progress != self._progress or not self._subscription.is_paused:
            self._changed_at, self._progress = now, progress
            return False
        return now - self._changed_at >= seconds
