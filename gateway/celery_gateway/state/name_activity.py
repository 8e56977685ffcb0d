"""The activity of the tasks of one name: how many are where now, and what has happened by time. Pure."""

from typing import Final, NamedTuple

from celery_gateway.events.event_types import LOST
from celery_gateway.state import time_buckets
from celery_gateway.state.duration_history import OPEN_BYTES, SLOT_SECONDS, DurationHistory
from celery_gateway.state.text_size import text_bytes
from celery_gateway.state.time_buckets import BUCKET_SECONDS, TimeBuckets
from celery_gateway.state.transitions import READY_STATES, WAITING_STATES

KINDS: Final = ("received", "started", "succeeded", "failed", "retried", "revoked", "rejected")
"""What is counted of attempts, in the order of all counts."""
RUNNING, WAITING, LOST_NOW, ENDED = range(4)
_PLACE_OF_STATE: Final[dict[str | None, int]] = {
    **dict.fromkeys(WAITING_STATES, WAITING),
    **dict.fromkeys(READY_STATES, ENDED),
    LOST: LOST_NOW,
}
"""Where the tasks of a state are counted now; those of other states, such as STARTED, are running."""
MAX_TEXT_CHARS: Final = 1_000
MAX_BACK_SECONDS: Final = 60.0
"""If the clock goes back by more, what was counted in the future is dropped."""
NAME_BYTES: Final = time_buckets.size_bytes(len(KINDS)) + OPEN_BYTES + 1_000


class LastFailure(NamedTuple):
    """The last failure of a name; ``time``: when it arrived, epoch seconds."""

    uuid: str
    time: float
    exception: str | None


class NameActivity:
    """The activity of the tasks of one name.

    Attributes:
        name: ``None`` for tasks without a known name, and for all names beyond the limit together.
        cluster: the name of their broker, if it has one.
        states: how many tasks are in each state now; no zeros.
        counts: since ``opened``, by kind.
        opened, closes: the 10 s that are counted in ``counts``, epoch seconds; ``closes`` is 0 with an heir.
        slot: when the current slot of ``durations`` began.
        version: the version of all activity at the last change.
        last_at: when an event arrived, to 10 s.
        heir: what counts its tasks, after it had to make room.
    """

    __slots__ = (
        "name", "cluster", "states", "counts", "opened", "closes", "slot", "buckets", "durations", "version",
        "last_at", "last_failure", "heir",
    )  # fmt: skip

    def __init__(self, name: str | None, cluster: str | None) -> None:
        self.name = name
        self.cluster = cluster
        self.states: dict[str | None, int] = {}
        self.counts = [0] * len(KINDS)
        self.opened = self.closes = 0.0
        self.slot = 0
        self.buckets = TimeBuckets(len(KINDS))
        self.durations = DurationHistory()
        self.version = 0
        self.last_at = 0.0
        self.last_failure: LastFailure | None = None
        self.heir: NameActivity | None = None

    @property
    def size_bytes(self) -> int:
        """Its size without the slots of ``durations`` that are over, by estimate."""
        return NAME_BYTES + text_bytes(self.name)

    @property
    def now(self) -> list[int]:
        """How many tasks are running, waiting, lost, and ended: by place."""
        places = [0, 0, 0, 0]
        for state, count in self.states.items():
            places[_PLACE_OF_STATE.get(state, RUNNING)] += count
        return places

    def put(self, state: str | None, count: int = 1) -> None:
        """Count tasks that are in a state."""
        self.states[state] = self.states.get(state, 0) + count

    def take(self, state: str | None) -> None:
        """Count a task no longer that was in a state."""
        if left := self.states[state] - 1:
            self.states[state] = left
        else:
            del self.states[state]

    def advance(self, arrived: float) -> None:
        """Begin to count in the 10 s of a time, which the current ones do not contain."""
        begin = int(arrived) // BUCKET_SECONDS[0] * BUCKET_SECONDS[0]
        if arrived < self.opened:
            if self.opened - arrived <= MAX_BACK_SECONDS:
                return
            self.buckets, self.durations = TimeBuckets(len(KINDS)), DurationHistory()
            self.counts = [0] * len(KINDS)
            self.slot = begin // SLOT_SECONDS[0] * SLOT_SECONDS[0]
        elif any(self.counts):
            self.buckets.add(int(self.opened), self.counts)
            self.counts = [0] * len(KINDS)
        slot = begin // SLOT_SECONDS[0] * SLOT_SECONDS[0]
        if slot != self.slot:
            self.durations.close(self.slot, slot)
            self.slot = slot
        self.opened, self.closes = float(begin), float(begin + BUCKET_SECONDS[0])
