"""Messages in the log that no gateway has written: they are skipped, counted, and logged once a minute."""

import logging
import time

LOG_SECONDS = 60.0

log = logging.getLogger(__name__)


class ForeignMessages:
    """The messages that one gateway has skipped; ``count`` only grows."""

    def __init__(self) -> None:
        self.count = 0
        self._logged_at = -LOG_SECONDS

    def skip(self, offset: int, error: Exception) -> None:
        """Skip a message.

        Args:
            offset: in the engine.
            error: why it is not one of a gateway.
        """
        self.count += 1
        now = time.monotonic()
        if now - self._logged_at >= LOG_SECONDS:
            self._logged_at = now
            log.warning(
                "log: a message at offset %d is not one of a gateway, and was skipped: %s (%d until now; "
                "logged once a minute)",
                offset,
                error,
                self.count,
            )
