"""How long to wait before the next attempt to connect."""

import logging
import random

FIRST_SECONDS = 0.5
MAX_SECONDS = 15.0

log = logging.getLogger(__name__)


class Backoff:
    """Doubling pauses with full jitter above a half, so that gateways do not come back in step."""

    def __init__(self) -> None:
        self._seconds = FIRST_SECONDS

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._seconds = FIRST_SECONDS

    def after(self, reason: str) -> float:
        """Return how long to wait after a failure, in seconds, and log both."""
        seconds = self._seconds * random.uniform(0.5, 1.0)
        self._seconds = min(self._seconds * 2, MAX_SECONDS)
        log.warning("broker: not consuming (%s); next attempt in %.1f s", reason, seconds)
        return seconds
