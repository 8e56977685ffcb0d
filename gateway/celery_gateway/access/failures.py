"""Failed authentications: how long the response to an invalid token waits. Pure; the clock is an argument.

Rules: to check the signature of a token takes up to 0.3 ms. An address may fail ``FAILURES_PER_SECOND`` times
a second, with a burst. Each further failure is answered ``DELAY_SECONDS`` later, so that a client that sends
invalid tokens in a loop takes little time. Nothing is refused: valid clients may have the same address.
"""

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address
from time import monotonic
from typing import Final

FAILURES_PER_SECOND: Final = 100
BURST_SECONDS: Final = 5.0
DELAY_SECONDS: Final = 1.0
MAX_ADDRESSES: Final = 10_000
"""Maximum number of addresses that are remembered. The one that failed least recently is forgotten first."""


class Failures:
    """Counts failed authentications.

    Args:
        clock: the time in seconds, which never goes back.

    Attributes:
        count: how many there were.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.count = 0
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()  # when an address has its burst again

    @property
    def addresses(self) -> int:
        """The number of addresses that are remembered."""
        return len(self._full_at)

    def delay_seconds(self, address: str) -> float:
        """Count a failure of an address; return how long its response has to wait, in seconds."""
        self.count += 1
        now, full_at, key = self._clock(), self._full_at, _network(address)
        while full_at and (len(full_at) >= MAX_ADDRESSES or next(iter(full_at.values())) <= now):
            full_at.popitem(last=False)
        next_full_at = max(now, full_at.get(key, now)) + 1 / FAILURES_PER_SECOND
        if next_full_at > now + BURST_SECONDS:
            return DELAY_SECONDS
        full_at[key] = next_full_at
        full_at.move_to_end(key)
        return 0.0


def _network(address: str) -> str:
    """Return the /64 network of an IPv6 address: one client may have all its addresses."""
    if ":" not in address:
        return address
    try:
        return IPv6Address(address.partition("%")[0]).packed[:8].hex()
    except ValueError:
        return address
