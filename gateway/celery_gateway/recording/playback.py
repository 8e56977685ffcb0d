"""The events of a recording in their order, each with the time at which it is due.

- The pace is that of the events' ``time``, as far as it goes forward: an event with an older time is due at
  once. Events from before the recording began, by more than ``LATE_SECONDS``, do not set the pace.
- Times (``timestamp``, ``eta``, ``expires``) are moved by one amount, so their distances stay, at any speed.
  The first event is moved to the start of the playback; if the playback is faster than the recording, the
  last event is moved to the end of the playback. So no event is in the future.
- From the second pass on, tasks have other ids: else their events would be those of tasks that have ended.
- The names of the brokers are removed, as the gateway has added them.
- A line that is not an event is skipped, and counted.
"""

import math
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from celery_gateway.events.event import LATE_SECONDS, Event, decode_object, is_number
from celery_gateway.recording.own_fields import for_gateway, is_of_gateway
from celery_gateway.recording.recording_file import RecordingReader

MIN_PASS_SECONDS: Final = 1.0
"""The shortest time between the beginnings of two passes."""
_ID_FIELDS: Final = ("uuid", "root_id", "parent_id")
_NAMESPACE: Final = uuid.UUID("5d2c7c0e-0c1f-4f0c-9a62-3a7c1d6c9b1e")


class Step(NamedTuple):
    """One event, or a gap.

    Attributes:
        due: seconds after the start of the playback.
        event: as ``own_fields.for_gateway`` returns it; ``None`` for events that were lost in the recording.
    """

    due: float
    event: Event | None


class Playback:
    """Plays a recording.

    Args:
        path: of the recording.
        speed: how many times faster than it was recorded; infinite for no pauses.
        keeps_times: whether times are not moved.
        is_looped: whether it begins again at its end, without end.
        cluster: only events of this broker, if the recording is of several; ``None`` for all events.

    Attributes:
        events: how many events were yielded.
        skipped: how many lines were skipped.
        problem: why the file ends too early; ``None`` if it does not, or until its end was read.

    Raises:
        RecordingError: the file cannot be read, is not a recording, or has a newer format.
    """

    def __init__(
        self,
        path: Path,
        *,
        speed: float = 1.0,
        keeps_times: bool = False,
        is_looped: bool = False,
        cluster: str | None = None,
    ) -> None:
        self.events = self.skipped = 0
        self.problem: str | None = None
        self._reader = RecordingReader(path)
        self.header = self._reader.header
        self._speed = speed
        self._keeps_times = keeps_times
        self._is_looped = is_looped
        self._cluster = cluster
        # Of a recording that did not begin in the past, older events were late, or their clocks are wrong.
        is_live = self.header.since is None
        self._earliest = self.header.recorded_at_seconds - LATE_SECONDS if is_live else -math.inf
        self._ahead_seconds = 0.0  # how far the recording's times would run ahead of a faster playback

    def steps(self, started_at: float) -> Iterator[Step]:
        """Yield the steps. Blocks while it reads.

        Args:
            started_at: when the playback starts, in epoch seconds.

        Raises:
            RecordingError: the file cannot be read any more.
        """
        if self._speed > 1 and not self._keeps_times:
            duration = self._duration_seconds()
            self._ahead_seconds = duration - duration / self._speed
        due = 0.0
        for number in count():
            last = due
            for step in self._pass(number, due, started_at):
                last = step.due
                yield step
            self.problem = self._reader.problem
            if not self._is_looped:
                return
            due = max(last, due + MIN_PASS_SECONDS)

    def _pass(self, number: int, begin: float, started_at: float) -> Iterator[Step]:
        clock = _Clock(self._earliest)
        for line in self._reader.lines():
            event = None if line is None else _decoded(line)
            if event is None:
                self.skipped += 1
                continue
            due = begin + clock.elapsed(event.get("time")) / self._speed
            cluster = event.pop("cluster", None) if self.header.clusters else None
            is_wanted = None in (cluster, self._cluster) or cluster == self._cluster
            if event["type"] == "gateway-gap":
                if is_wanted:
                    yield Step(due, None)
            elif is_wanted and not is_of_gateway(event):
                self.events += 1
                for_gateway(event)
                if not self._keeps_times and clock.first is not None:
                    _move(event, started_at + begin - clock.first - self._ahead_seconds)
                if number:
                    _rename(event, number)
                yield Step(due, event)

    def _duration_seconds(self) -> float:
        """Return the time from the first to the last event of the recording."""
        clock = _Clock(self._earliest)
        decode = msgspec.json.Decoder(_Timed).decode
        elapsed = 0.0
        for line in self._reader.lines():
            try:
                elapsed = clock.elapsed(decode(line or b"").time)
            except (ValueError, RecursionError):
                continue
        return elapsed


class _Timed(msgspec.Struct):
    time: Any = None


class _Clock:
    """The time of a recording.

    Args:
        earliest: older times are ignored; epoch seconds.

    Attributes:
        first: the first time; ``None`` before it.
    """

    def __init__(self, earliest: float) -> None:
        self.first: float | None = None
        self._earliest = earliest
        self._elapsed = 0.0

    def elapsed(self, time: object) -> float:
        """Return the seconds from the first time to this or the latest one before it.

        Args:
            time: RFC 3339, as events have it; others count as no time.
        """
        seconds = _epoch_seconds(time)
        if seconds is not None and seconds >= self._earliest:
            if self.first is None:
                self.first = seconds
            self._elapsed = max(self._elapsed, seconds - self.first)
        return self._elapsed


def _epoch_seconds(time: object) -> float | None:
    if type(time) is not str:
        return None
    try:
        moment = datetime.fromisoformat(time)
        return moment.timestamp() if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _decoded(line: bytes) -> Event | None:
    """Return the object with a type in a line; ``None`` if there is none."""
    try:
        event = decode_object(line)
    except (ValueError, RecursionError):
        return None
    return event if type(event.get("type")) is str else None


def _move(event: Event, seconds: float) -> None:
    """Move the times of an event."""
    timestamp = event.get("timestamp")
    if is_number(timestamp):
        event["timestamp"] = timestamp + seconds
    for name in ("eta", "expires"):
        if type(value := event.get(name)) is str:
            try:
                event[name] = (datetime.fromisoformat(value) + timedelta(seconds=seconds)).isoformat()
            except (ValueError, OverflowError):
                continue


def _rename(event: Event, number: int) -> None:
    """Replace the ids of tasks by those of a later pass."""
    for name in _ID_FIELDS:
        if type(value := event.get(name)) is str:
            event[name] = str(uuid.uuid5(_NAMESPACE, f"{number}:{value}"))


def parse_speed(text: str) -> float:
    """Return a speed: a number above 0, or infinity for ``max``.

    Raises:
        ValueError: it is neither.

    >>> parse_speed("10"), parse_speed("max")
    (10.0, inf)
    """
    if text == "max":
        return math.inf
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < math.inf:
        raise ValueError("a speed is a number above 0, such as 10 or 0.5, or max")
    return speed
