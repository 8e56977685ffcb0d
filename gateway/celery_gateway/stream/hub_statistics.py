"""The counts of the hub, for metrics. Pure."""

from typing import NamedTuple


class HubStatistics(NamedTuple):
    """Counts of the hub. ``events`` and ``evicted`` only grow."""

    events: int
    evicted: int
    history_bytes: int
    subscriptions: int
    cohorts: int
