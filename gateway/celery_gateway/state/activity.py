"""The activity of all tasks: counts now and by time, for each name.

- Times are those of arrival, in epoch seconds: senders' clocks do not decide.
- What is counted are the transitions of attempts, as the table decides them: an event that comes twice, or
  an attempt that is delivered twice to the same process, counts once.
- With scopes a task counts under the name of its origin: a later event cannot move it to the name of others.
- At most ``MAX_NAMES`` names have counts of their own. The others are counted together. A name without an
  event for ``MAX_IDLE_SECONDS`` makes room for another one, so that names which were used once do not leave
  out those that are in use.

Pure.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from celery_gateway.events.event import Event
from celery_gateway.state.attempt import Attempt
from celery_gateway.state.failure_groups import FailureGroups, NameKey
from celery_gateway.state.failure_signature import is_wrapper, signature
from celery_gateway.state.name_activity import (
    KINDS,
    MAX_TEXT_CHARS,
    LastFailure,
    NameActivity,
)
from celery_gateway.state.quantile_sketch import MAX_SECONDS
from celery_gateway.state.shared_text import MAX_NAME_CHARS
from celery_gateway.state.task_record import Record

MAX_NAMES: Final = 1_000
MAX_IDLE_SECONDS: Final = 3600.0
ROOM_SECONDS: Final = 60.0
"""How often room for a new name is looked for at most."""
MAX_SLOT_BYTES: Final = 25_000_000
"""The maximum size of durations that are kept. Above it the oldest ones are dropped."""
_ENDS: Final = ("SUCCESS", "FAILURE", "RETRY", "REVOKED", "REJECTED")
RECEIVED, STARTED, SUCCEEDED, FAILED = range(4)
_OUTCOMES: Final = {
    f"task-{kind}": (number, 1 << number, None if number < SUCCEEDED else _ENDS[number - SUCCEEDED])
    for number, kind in enumerate(KINDS)
}
"""By type of event: the kind, its bit in ``Attempt.counted``, and the state of the attempt at such an end."""
RUNTIME, WAIT = 0, 1
_outcome_of: Final = _OUTCOMES.get


class Activity:
    """The activity of the tasks in a table.

    Args:
        by_origin: tasks count under the name of their origin, otherwise under the one that they show.

    Attributes:
        since: when counting began, epoch seconds: at the start, or with a shared log at its first task event;
            ``None`` before.
        version: counts the changes.
        other: the names beyond the limit, together.
        failures: the failures by signature.
    """

    def __init__(self, *, by_origin: bool = False) -> None:
        self.since: float | None = None
        self.version = 0
        self.other = NameActivity(None, None)
        self.failures = FailureGroups()
        self._by_origin = by_origin
        self._names: dict[NameKey, NameActivity] = {}
        self._arrived = 0.0  # when an event arrived, to 10 s
        self._room_at = float("-inf")  # when room was looked for last
        self._names_bytes = self.other.size_bytes
        self._slots_bytes = 0

    def __len__(self) -> int:
        return len(self._names)

    @property
    def size_bytes(self) -> int:
        """Its size, by estimate."""
        return self._names_bytes + self._slots_bytes + self.failures.size_bytes

    def names(self) -> Iterator[NameActivity]:
        """Iterate over the names with counts of their own. They must not change meanwhile."""
        return iter(self._names.values())

    def counts(self, by: str) -> Mapping[str, int] | None:
        """Return how many tasks are in the table by a field; ``""`` is a missing value.

        Args:
            by: ``state`` or ``name``; others are not counted here.

        Returns:
            ``None`` if the tasks have to be counted one by one.
        """
        if by == "name" and not self._by_origin and not self.other.states:
            return _sums((name.name, count) for name in self.names() for count in name.states.values())
        if by == "state":
            return _sums(count for name in (*self.names(), self.other) for count in name.states.items())
        return None

    def on_event(
        self, record: Record, attempt: Attempt, event_type: str, event: Event, arrived: float
    ) -> None:
        """Count an event that was applied to its task.

        Args:
            attempt: the one that it belongs to.
            arrived: epoch seconds.
        """
        name, task = record.activity, record.task
        if name is None:
            name = self._move(record)
        if arrived >= name.closes or arrived < name.opened:
            name = self._advance(record, name, arrived)
        state, counted = task.state, record.counted_state
        if state is not counted:
            record.counted_state = state
            states = name.states
            if left := states[counted] - 1:
                states[counted] = left
            else:
                del states[counted]
            states[state] = states.get(state, 0) + 1
        name.version = self.version = self.version + 1
        outcome = _outcome_of(event_type)
        if outcome is None:
            return
        kind, bit, end = outcome
        if attempt.counted & bit:
            return
        if end is not None:
            if attempt.state != end:
                return
            if kind <= FAILED:
                if (seconds := task.runtime) is not None and record.current is attempt:
                    name.durations.add(RUNTIME, seconds)
                if kind == FAILED:
                    self._on_failure(name, record, attempt, event, arrived)
        elif kind == STARTED:
            if (started := attempt.started) is None:
                return
            due = attempt.received if attempt.sent is None else attempt.sent
            if attempt.eta is not None and (eta := eta_seconds(attempt.eta)) is not None:
                due = eta if due is None or eta > due else due
            if due is not None and started - due <= MAX_SECONDS:
                name.durations.add(WAIT, started - due if started > due else 0.0)
        elif attempt.received is None:
            return
        attempt.counted |= bit
        name.counts[kind] += 1

    def on_names(self, record: Record) -> None:
        """Count a task under its name, after that may have changed, unless it is not counted yet."""
        name = record.activity
        if name is not None and name.name is not (
            record.origin.name if self._by_origin else record.task.name
        ):
            self._move(record)

    def update(self, record: Record) -> None:
        """Count a task where it is now, after a change that is no event of it."""
        name = self._move(record)
        name.version = self.version = self.version + 1

    def remove(self, record: Record) -> None:
        """Count a task no longer: it was evicted."""
        name = record.activity
        if name is not None:
            name = name.heir or name
            name.take(record.counted_state)
            name.version = self.version = self.version + 1
            record.activity = None

    def _move(self, record: Record) -> NameActivity:
        """Count a task in its state and under its name, which may be new or have changed; return that."""
        before, state = record.activity, record.task.state
        name = self._find(self._key(record))
        if before is not None:
            before = before.heir or before
            before.take(record.counted_state)
            if before is not name:
                before.version = self.version = self.version + 1
        name.put(state)
        record.activity, record.counted_state = name, state
        return name

    def _find(self, key: NameKey) -> NameActivity:
        name = self._names.get(key)
        if name is not None:
            return name
        if _is_long(key[0]) or not self._has_room():
            return self.other
        name = self._names[key] = NameActivity(*key)
        name.last_at = self._arrived
        self._names_bytes += name.size_bytes
        return name

    def _has_room(self) -> bool:
        """Return whether there is room for another name; make some if a name was not active for long."""
        if len(self._names) < MAX_NAMES:
            return True
        if self._arrived - self._room_at < ROOM_SECONDS:
            return False
        self._room_at = self._arrived
        key, idle = min(self._names.items(), key=lambda item: item[1].last_at)
        if self._arrived - idle.last_at < MAX_IDLE_SECONDS:
            return False
        del self._names[key]
        self._names_bytes -= idle.size_bytes
        self._slots_bytes -= idle.durations.size_bytes
        idle.heir, idle.closes = self.other, 0.0
        for state, count in idle.states.items():
            self.other.put(state, count)
        self.version = self.other.version = self.version + 1
        return True

    def begin(self, time: float) -> None:
        """Set when counting began, unless it has begun before."""
        if self.since is None:
            self.since = time

    def _advance(self, record: Record, name: NameActivity, arrived: float) -> NameActivity:
        """Begin to count in the 10 s of a time; return what counts the task from now on."""
        if name.heir is not None:
            name = self._move(record)
        self.begin(arrived)
        self._arrived = name.last_at = arrived
        before = name.durations.size_bytes
        name.advance(arrived)
        self._slots_bytes += name.durations.size_bytes - before
        while self._slots_bytes > MAX_SLOT_BYTES:
            before = name.durations.size_bytes
            if not name.durations.drop_oldest():
                break
            self._slots_bytes += name.durations.size_bytes - before
        return name

    def _on_failure(
        self, name: NameActivity, record: Record, attempt: Attempt, event: Event, arrived: float
    ) -> None:
        task = record.task
        exception, traceback = event.get("exception"), event.get("traceback")
        exception = exception[:MAX_TEXT_CHARS] if type(exception) is str else None
        found = signature(exception, traceback if type(traceback) is str else None)
        if exception is not None and is_wrapper(exception):
            exception = f"{found.exception}: {found.message}"[:MAX_TEXT_CHARS]
        name.last_failure = LastFailure(task.uuid[:MAX_TEXT_CHARS], arrived, exception)
        worker = task.worker if attempt.process is None else attempt.process.hostname
        wanted, cluster = self._key(record)  # also without counts of its own
        key = None if _is_long(wanted) else wanted, cluster
        self.failures.add(found, key, task.uuid, worker, arrived)

    def _key(self, record: Record) -> NameKey:
        """Return the name that a task counts under if there is room, and its cluster."""
        task = record.task
        name = record.origin.name if self._by_origin else task.name
        return name, task.cluster if type(task.cluster) is str else None


def _is_long(name: str | None) -> bool:
    return name is not None and len(name) > MAX_NAME_CHARS


def eta_seconds(eta: str) -> float | None:
    """Return the epoch seconds of an ``eta`` (ISO 8601; UTC without a zone); ``None`` if it is malformed."""
    try:
        time = datetime.fromisoformat(eta)
        return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _sums(counts: Iterable[tuple[str | None, int]]) -> dict[str, int]:
    """Return the sum of the counts of each value."""
    sums: dict[str, int] = {}
    for value, count in counts:
        sums[value or ""] = sums.get(value or "", 0) + count
    return sums
