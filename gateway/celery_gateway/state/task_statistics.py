"""The counts of the task table."""

from typing import NamedTuple


class TaskTableStatistics(NamedTuple):
    """Counts of the table; the evicted and unnamed ones only grow. ``activity``: the statistics of names."""

    known: int
    known_bytes: int
    waiting_events: int
    evicted_finished: int
    evicted_unfinished: int
    unnamed_events: int
    activity_names: int
    activity_bytes: int
