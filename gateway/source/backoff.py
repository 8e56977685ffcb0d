"""How long to wait before the next attempt to connect."""

import random

FIRST_SECONDS = 0.5
MAX_SECONDS = 15.0


class Backoff:
    """Doubling pauses with full jitter above a half, so that gateways do not come back in step."""

    def __init__(self) -> None:
        self._seconds = FIRST_SECONDS

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._seconds = FIRST_SECONDS

    def next_seconds(self) -> float:
        """Return the next pause."""
        seconds = self._seconds
        self._seconds = min(seconds * 2, MAX_SECONDS)
        return seconds * random.uniform(0.5, 1.0)
