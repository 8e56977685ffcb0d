"""A worker's process: one life of one pid under one node name.

Tasks and workers both refer to it: a worker's events tell whether the process lives, and a task's attempt
belongs to the process that works on it. Pure.
"""

from collections.abc import Hashable
from typing import NamedTuple


class ProcessKey(NamedTuple):
    """What names a process. ``life`` counts the lives that went by this hostname and pid, from 0."""

    cluster: str | None
    hostname: str
    pid: int | None
    life: int


class Process:
    """One life of a worker's process. Times are those of the arrival here, on the clock of ``now``.

    Attributes:
        key: names it; ``hostname`` and ``pid`` are also by themselves.
        held: the tasks that it holds; True if it has started one, False if it has only received it.
        starts: how many tasks it was seen to start.
        processed: how many tasks it has started, as its youngest worker event says.
        clock, stamp: the logical clock and the timestamp of its youngest worker event.
        trusted_at: when that arrived: until then it was this life.
        since: when it was first seen.
        heard_at: when its youngest event arrived.
        stopping_at: when its ``worker-offline`` arrived; ``None`` while it has not said that it stops.
        gone_at: when it became known that it is gone; ``None`` while that is not known.
        is_replaced: another process of its hostname has come up since.
        is_suspect: its last heartbeat had counters below those before: the next one decides.
    """

    __slots__ = (
        "key", "hostname", "pid", "held", "starts", "processed", "clock", "stamp", "trusted_at",
        "since", "heard_at", "stopping_at", "gone_at", "is_replaced", "is_suspect",
    )  # fmt: skip

    def __init__(self, key: ProcessKey, now: float) -> None:
        self.key = key
        self.hostname = key.hostname
        self.pid = key.pid
        self.held: dict[Hashable, bool] = {}
        self.starts = 0
        self.processed: int | None = None
        self.clock: int | None = None
        self.stamp: float | None = None
        self.trusted_at = now
        self.since = now
        self.heard_at = now
        self.stopping_at: float | None = None
        self.gone_at: float | None = None
        self.is_replaced = False
        self.is_suspect = False

    @property
    def is_running(self) -> bool:
        """True if it runs a task."""
        return any(self.held.values())
