"""Attempts to reach a broker: how long to wait before the next, and what to say of them, once a minute.

Pure but for the log: the clock and the dice are given.
"""

import logging
import random
import time
from collections.abc import Callable

from gateway.source.failure import Failure

FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 15.0
STABLE_SECONDS = 10.0
"""Consuming for so long is a success; what ends sooner counts as one more failure."""
LOG_SECONDS = 60.0

log = logging.getLogger(__name__)


class Attempts:
    """Counts one source's attempts.

    Args:
        name: the broker's, ``None`` if it is the only one.
        addresses: how many URLs the broker has: after so many failures in a row there is a pause.
    """

    def __init__(
        self,
        name: str | None,
        addresses: int = 1,
        *,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._broker = f"broker {name}" if name else "broker"
        self._addresses = addresses
        self._clock = clock
        self._dice = dice
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._failed = 0  # since the last success
        self._failing_since = 0.0
        self._succeeded_at: float | None = None
        self._logged_at: float | None = None
        self._is_told = False

    def succeeded(self, how: str) -> None:
        """Take note that consuming has begun."""
        self._succeeded_at = self._clock()
        if self._is_told:
            seconds = self._succeeded_at - self._failing_since
            log.info("%s: %s again, after %.1f s and %d attempts", self._broker, how, seconds, self._failed)
        elif not self._failed:
            log.info("%s: %s", self._broker, how)
        self._is_told = False

    def failed(self, failure: Failure) -> float:
        """Take note of an attempt that failed or an end of consuming; return the seconds to wait.

        The pauses double, each with a jitter of a half, so that gateways do not come back in step.
        """
        now = self._clock()
        was_stable = self._succeeded_at is not None and now - self._succeeded_at >= STABLE_SECONDS
        self._succeeded_at = None
        if was_stable or not self._failed:
            self._failed = 0
            self._failing_since = now
            self._pause_seconds = FIRST_PAUSE_SECONDS
        self._failed += 1
        if was_stable or self._logged_at is None or now - self._logged_at >= LOG_SECONDS:
            self._logged_at = now
            self._is_told = True
            log.warning(
                "%s: not consuming: %s. %s (attempt %d; tried on, and logged once a minute)",
                self._broker,
                failure.what,
                failure.remedy.rstrip("."),
                self._failed,
            )
        if self._failed % self._addresses:
            return 0.0
        seconds = self._dice(self._pause_seconds / 2, self._pause_seconds)
        self._pause_seconds = min(self._pause_seconds * 2, MAX_PAUSE_SECONDS)
        return seconds
