"""Whether the log can be reached, and the pauses between the attempts to connect."""

import logging
import random
from collections.abc import Callable

from celery_gateway.log.engine import LogError, Place

PAUSE_SECONDS = (0.2, 3.0)
"""The first and the longest pause before another attempt to connect."""
STALLED = "no gateway could write to the log for some seconds: its server takes no messages"

log = logging.getLogger(__name__)


class Outage:
    """The outage of one gateway's log, if there is one.

    Args:
        place: where the log is.
        on_change: called with each new reason.

    Attributes:
        reason: why the log cannot be reached; ``""`` if it can.
    """

    def __init__(self, place: Place, on_change: Callable[[str], None]) -> None:
        self.reason = "not connected to the log yet"
        self._place = place
        self._on_change = on_change
        self._pause_seconds = PAUSE_SECONDS[0]

    def on_connected(self) -> None:
        """Record that something was written and read back."""
        if self.reason:
            log.info("log: connected (%s)", " ".join(self._place))
            self._set("")

    def on_stalled(self) -> None:
        """Record that nothing was read for a while, though the connection is open."""
        if not self.reason:
            log.warning("log: %s", STALLED)
            self._set(STALLED)

    def on_batch(self) -> None:
        """Record that a batch was read."""
        if self.reason == STALLED:
            self.on_connected()

    def on_error(self, error: Exception) -> float:
        """Record that the connection has ended; return the seconds to wait."""
        if not self.reason:
            self._pause_seconds = PAUSE_SECONDS[0]
        reason = str(error)
        if not isinstance(error, LogError):
            reason = f"unexpected error: {type(error).__name__}"
            log.error("log: %s (the gateway tries again)", reason, exc_info=error)
        elif self.reason != reason:
            log.warning("log: %s (the gateway tries again)", reason)
        self._set(reason)
        seconds = random.uniform(self._pause_seconds / 2, self._pause_seconds)
        self._pause_seconds = min(self._pause_seconds * 2, PAUSE_SECONDS[1])
        return seconds

    def _set(self, reason: str) -> None:
        if reason != self.reason:
            self.reason = reason
            self._on_change(reason)
