"""When a gateway claims the lead.

Rules:

- A leader is dead if nothing of it was read for ``SILENT_TICKS``. Silence is counted in ticks of the event
  loop, as in ``broker.silence``: a gateway that did not run itself does not take the leader for dead.
- If no gateway leads, because the log is new or the leader has resigned, a claim is due at once.
- One claim at a time: a gateway waits until its claim is read back, or for ``CLAIM_SECONDS``.
- A gateway that stops does not claim any more, even if no other one does.

Pure, but for random numbers.
"""

import random
import secrets

TICK_SECONDS = 0.25
SILENT_TICKS = 8
"""2 s."""
JITTER_SECONDS = 0.3
"""Claims are spread over this time, so that one gateway reads that of another first."""
CLAIM_SECONDS = 5.0
"""A claim that was not read back in this time is given up."""
WAIT_SECONDS = 30.0
"""How long a gateway that has left the lead to others does not claim it again."""


class Election:
    """One gateway's view. Times are those of the event loop, in seconds."""

    def __init__(self) -> None:
        self._silent_ticks = 0
        self._term = ""  # of the claim that is due, or sent and not read back
        self._claimed_at = 0.0
        self._is_ended = False
        self._waits_until = 0.0

    def begin(self) -> None:
        """Begin to listen, after a time in which nothing could be read."""
        self._silent_ticks = 0
        self._term = ""

    def end(self) -> None:
        """Claim no more."""
        self._is_ended = True

    def wait(self, now: float) -> None:
        """Leave the next claims to others."""
        self._waits_until = now + WAIT_SECONDS

    def on_leader(self) -> None:
        """Record that something of a leader was read."""
        self._silent_ticks = 0

    def on_claim(self, term: str) -> bool:
        """Record that a claim was read; return whether it is the one of this gateway."""
        self._silent_ticks = 0
        is_own = bool(term) and term == self._term and not self._is_ended
        if is_own:
            self._term = ""
        return is_own

    def on_tick(self, leader: str, now: float) -> float | None:
        """Count a tick.

        Args:
            leader: the name of the leader; ``""`` if no gateway leads.

        Returns:
            After how many seconds ``claim`` should be called; ``None`` if no claim is due.
        """
        self._silent_ticks += 1
        if now < self._waits_until or (self._term and now - self._claimed_at < CLAIM_SECONDS):
            return None
        if not self._is_due(leader):
            return None
        self._term, self._claimed_at = secrets.token_hex(4), now
        return random.uniform(0, JITTER_SECONDS if leader else JITTER_SECONDS / 3)

    def claim(self, leader: str) -> str | None:
        """Return the term to claim, unless a leader was heard meanwhile."""
        if not self._is_due(leader):
            self._term = ""
        return self._term or None

    def _is_due(self, leader: str) -> bool:
        return not self._is_ended and (not leader or self._silent_ticks > SILENT_TICKS)
