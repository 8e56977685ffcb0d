"""When messages arrived that a broker has kept while no gateway ran.

A broker does not tell when it got a message. The timestamps of the events do, roughly: those of all senders
together, so that one wrong clock matters little. The estimate only goes forward, and is never later than now.
"""

from collections.abc import Sequence

from celery_gateway.events.event import Event, is_number

PRESENT_SECONDS = 5.0
"""Messages that are this recent, or more, arrive now."""


class ArrivalEstimate:
    """The estimate for one source.

    Args:
        since: when the last message before arrived, in epoch seconds.

    Attributes:
        is_present: everything that was kept has been read.
    """

    def __init__(self, since: float) -> None:
        self.is_present = False
        self._at = since

    def of(self, events: Sequence[Event], now: float) -> float:
        """Return when the events of a message arrived, in epoch seconds.

        Args:
            now: epoch seconds.
        """
        if self.is_present:
            return now
        for event in events:
            timestamp = event.get("timestamp")
            if is_number(timestamp):
                self._at = max(self._at, min(timestamp, now))
        self.is_present = now - self._at < PRESENT_SECONDS
        return now if self.is_present else self._at
