"""Back-off: how long a source waits before its next attempt to connect, and what it logs meanwhile.

- The pause doubles with the failures in a row, up to a bound, with a jitter of a half, so that gateways do
  not reconnect at the same moment.
- A failure is an attempt that did not get as far as consuming, or a consumer that ended within
  ``STABLE_SECONDS``. A consumer that lasted longer is a success, however it ended, and resets the pause. So
  the pauses stay short under a broker that closes the connection every few seconds.
- A broker with several URLs has a pause only after each of them has failed.
- Each kind of failure is logged once a minute; the end of an outage is logged once.

Pure but for the log: the clock and the random numbers are injected.
"""

import logging
import random
import time
from collections.abc import Callable

from celery_gateway.broker.diagnosis import Diagnosis

FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 15.0
STABLE_SECONDS = 2.0
LOG_SECONDS = 60.0

log = logging.getLogger(__name__)


class Backoff:
    """The back-off of one source.

    Args:
        name: the broker's, ``None`` if it is the only one; for the log.
        urls: how many URLs the broker has.
        first_pause_seconds: after the first failure.
        max_pause_seconds: after many failures.
        clock: monotonic, in seconds.
        uniform: returns a random number between two others.
    """

    def __init__(
        self,
        name: str | None,
        urls: int = 1,
        *,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
        max_pause_seconds: float = MAX_PAUSE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._broker = f"broker {name}" if name else "broker"
        self._urls = urls
        self._first_pause_seconds = first_pause_seconds
        self._max_pause_seconds = max_pause_seconds
        self._clock = clock
        self._uniform = uniform
        self._pause_seconds = first_pause_seconds
        self._failures = 0  # since the last success
        self._failing_since = 0.0
        self._succeeded_at: float | None = None
        self._logged_at: dict[str, float] = {}  # by code
        self._is_outage_logged = False

    def record_success(self, what: str) -> None:
        """Record that consuming has begun.

        Args:
            what: for the log, such as ``consuming celeryev``.
        """
        self._succeeded_at = self._clock()
        if self._is_outage_logged:
            seconds = self._succeeded_at - self._failing_since
            log.info("%s: %s again after %.1f s and %d attempts", self._broker, what, seconds, self._failures)
        elif not self._failures:
            log.info("%s: %s", self._broker, what)
        self._is_outage_logged = False

    def record_failure(self, diagnosis: Diagnosis, error: BaseException | None = None) -> float:
        """Record an attempt that failed, or the end of consuming.

        Args:
            error: its traceback is logged if the diagnosis is ``unexpected``.

        Returns:
            The seconds to wait before the next attempt.
        """
        now = self._clock()
        was_stable = self._succeeded_at is not None and now - self._succeeded_at >= STABLE_SECONDS
        self._succeeded_at = None
        if was_stable or not self._failures:
            self._failures = 0
            self._failing_since = now
            self._pause_seconds = self._first_pause_seconds
        self._failures += 1
        self._log(now, diagnosis, error)
        if self._failures % self._urls:
            return 0.0
        seconds = self._uniform(self._pause_seconds / 2, self._pause_seconds)
        self._pause_seconds = min(self._pause_seconds * 2, self._max_pause_seconds)
        return seconds

    def _log(self, now: float, diagnosis: Diagnosis, error: BaseException | None) -> None:
        logged_at = self._logged_at.get(diagnosis.code)
        if logged_at is not None and now - logged_at < LOG_SECONDS:
            return
        self._logged_at[diagnosis.code] = now
        self._is_outage_logged = True
        # A text with a URL is not in the traceback, because it may have a password.
        has_traceback = diagnosis.code == "unexpected" and "://" not in str(error)
        log.warning(
            "%s: not consuming: %s. %s (attempt %d; the gateway tries again; logged once a minute)",
            self._broker,
            diagnosis.what,
            diagnosis.remedy.rstrip("."),
            self._failures,
            exc_info=error if has_traceback else None,
        )
