"""Messages and events that are not passed on: counted by reason, and logged once a minute."""

import logging
import time
from collections import Counter

LOG_SECONDS = 60.0

_REMEDIES = {
    "content-type": 'Events are read in JSON or msgpack only: set event_serializer = "json" in the app of '
    "the workers and clients, and restart them",
    "log-full": "The shared log takes no entries, or too slowly; its status says why",
}
"""What users can do about refused messages, by reason."""

log = logging.getLogger(__name__)


class RefusedMessages:
    """The counts by reason, as ``counts``; they only grow."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._logged_at = -LOG_SECONDS

    def count(self, reasons: tuple[str, ...]) -> None:
        """Count messages or events, one for each reason."""
        self.counts.update(reasons)
        now = time.monotonic()
        if now - self._logged_at >= LOG_SECONDS:
            self._logged_at = now
            remedies = "".join(f". {_REMEDIES[reason]}" for reason in self.counts if reason in _REMEDIES)
            counts = dict(self.counts)
            log.warning("refused so far, by reason: %s%s (logged once a minute)", counts, remedies)
