"""A checked request for a stream, and the checks of its values: the same for a query string and for JSON.

Rules: every bad value is an error; it never means a stream of everything. The text of an error has the
parameter, its value and what is allowed.
"""

import re
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from celery_gateway.errors import BadRequest
from celery_gateway.events.filter import Filter
from celery_gateway.events.matcher import Matcher
from celery_gateway.events.pattern import quoted
from celery_gateway.settings import MIN_EVENT_BYTES
from celery_gateway.stream.completion import Target
from celery_gateway.stream.history import Moment

MAX_FIELDS = 100
MAX_FIELDS_CHARS = 10_000
MAX_QUIET_SECONDS = 86_400
VIEWS = ("event", "record")
DEFAULT_WINDOW_SECONDS = 3600.0
_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)")
_SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
_AGE_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


class SnapshotQuery(NamedTuple):
    """Which tasks the initial snapshot has, and whether there is one even if the stream is resumed."""

    filter: Matcher
    is_due_when_resumed: bool


class ReportQuery(NamedTuple):
    """What a stream reports beside events.

    Attributes:
        has_workers: workers that are new or have changed.
        statistics_seconds: from report to report of the statistics; ``None``: it reports none.
        window_seconds: the length of their window.
        max_rate: how many events a second the stream has at most; ``None``: all.
    """

    has_workers: bool = False
    statistics_seconds: float | None = None
    window_seconds: float = DEFAULT_WINDOW_SECONDS
    max_rate: int | None = None


class StreamQuery(NamedTuple):
    """A checked request for a stream.

    Attributes:
        filter: which events it has.
        format: a key of ``framing.FORMATS``.
        last_event_id: where it resumes; ``None`` for a new one.
        since: where it starts, in epoch seconds; 0 for the start of the history, ``None`` for now.
        fields: the fields to keep; ``None`` for all.
        snapshot: its initial snapshot; ``None`` for none.
        until: what ends it; ``None`` if it does not end by itself.
        max_event_bytes: longer events are truncated; 0 for the gateway's own limit.
        view: one of ``VIEWS``: ``record`` if events have the records of their tasks.
        reports: what it has beside events, and its maximum rate.
    """

    filter: Matcher
    format: str
    last_event_id: str | None
    since: float | None
    fields: frozenset[str] | None
    snapshot: SnapshotQuery | None
    until: Target | None
    max_event_bytes: int
    view: str
    reports: ReportQuery


def check_stream(
    *,
    filter: Matcher,
    format: str,
    last_event_id: str | None,
    since: str | None,
    fields: Sequence[str] | None,
    snapshot: SnapshotQuery | None,
    until: str | None,
    quiet_time: str | None,
    max_event_bytes: str | None,
    view: str | None,
    reports: ReportQuery,
) -> StreamQuery:
    """Check the values of a request for a stream.

    Args:
        filter: parsed already, as are ``format``, ``snapshot`` and ``reports``.
        fields: each has one or more names, separated by commas; ``None`` for all fields.

    Raises:
        BadRequest: a value is bad, or two values contradict each other.
    """
    if snapshot is not None and since is not None:
        message = f"invalid since={quoted(since)}: it cannot be combined with snapshot, which starts now"
        raise bad_value("snapshot", message)
    return StreamQuery(
        filter=filter,
        format=format,
        last_event_id=last_event_id or None,
        since=None if since is None else parse_since(since),
        fields=None if fields is None else parse_fields(fields),
        snapshot=snapshot,
        until=_target(until, quiet_time, filter),
        max_event_bytes=0 if max_event_bytes is None else _max_event_bytes(max_event_bytes),
        view=_view(view),
        reports=reports,
    )


def bad_value(parameter: str, message: str, allowed: Sequence[str] = ()) -> BadRequest:
    """Return the error for a bad value of a parameter."""
    return BadRequest(message, code="bad-value", parameter=parameter, allowed=tuple(allowed))


def age_seconds(text: str) -> float | None:
    """Return the seconds of an age such as ``10m``; ``None`` if the text is none."""
    age = _AGE.fullmatch(text)
    return None if age is None else float(age[1]) * _AGE_UNIT_SECONDS[age[2]]


def parse_fields(values: Sequence[str]) -> frozenset[str]:
    """Return the names of fields to keep.

    Args:
        values: each has one or more names, separated by commas.

    Raises:
        BadRequest: a name is empty, or there are too many.
    """
    count = len(values) + sum([value.count(",") for value in values])
    if count > MAX_FIELDS:
        raise BadRequest(
            f"too many fields: {count}; at most {MAX_FIELDS} are allowed",
            code="too-many-values",
            parameter="fields",
        )
    if sum(map(len, values)) > MAX_FIELDS_CHARS:
        raise BadRequest(
            f"fields too long: at most {MAX_FIELDS_CHARS} characters are allowed in all",
            code="value-too-long",
            parameter="fields",
        )
    text = ",".join(values)
    names = text.split(",")
    if not all(names):
        raise BadRequest(
            f"invalid fields={quoted(text)}: it has an empty name; separate names with single commas",
            code="empty-value",
            parameter="fields",
        )
    return frozenset(names)


def parse_since(text: str) -> float:
    """Return the time that a stream starts at, in epoch seconds; 0 for the start of the history.

    Raises:
        BadRequest: the text is neither ``earliest`` nor an age nor a time.
    """
    if text == "earliest":
        return 0.0
    if (age := age_seconds(text)) is not None:
        return time.time() - age
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign in a query means a space
        if moment.tzinfo is not None:
            return Moment(moment.timestamp())
    except (ValueError, OverflowError):
        pass
    raise bad_value(
        "since",
        f"invalid since={quoted(text)}: it must be 'earliest', an age such as 10m, or a time such as "
        "2026-11-21T08:31:00Z",
        ("earliest", "10m", "2026-11-21T08:31:00Z"),
    )


def _max_event_bytes(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 12 and int(text) >= MIN_EVENT_BYTES:
        # Rounded down to 1 or 1.5 times a power of two, so that clients share the work.
        step = 1 << (int(text).bit_length() - 2)
        return max(MIN_EVENT_BYTES, int(text) // step * step)
    message = (
        f"invalid max_event_bytes={quoted(text)}: it must be a number of bytes, {MIN_EVENT_BYTES} or more"
    )
    raise bad_value("max_event_bytes", message)


def _view(text: str | None) -> str:
    if text is None:
        return "event"
    if text not in VIEWS:
        message = f"invalid view={quoted(text)}: the allowed values are 'event' and 'record'"
        raise bad_value("view", message, VIEWS)
    return text


def _target(until: str | None, quiet_time: str | None, filter: Matcher) -> Target | None:
    """Return what ends a stream.

    Args:
        until: the only supported value is ``ready``.
        quiet_time: how long all known tasks of a workflow have to be ready: seconds, or an age such as 1m.
        filter: the stream's: it contains the uuid of the task or the root_id of the workflow.
    """
    if until is None:
        if quiet_time is not None:
            message = f"invalid quiet_time={quoted(quiet_time)}: it requires until=ready"
            raise bad_value("quiet_time", message)
        return None
    if until != "ready":
        message = f"invalid until={quoted(until)}: the only supported value is 'ready'"
        raise bad_value("until", message, ("ready",))
    only = filter.only if isinstance(filter, Filter) else lambda field: None
    fields: tuple[Literal["uuid", "root_id"], ...] = ("uuid", "root_id")
    for field in fields:
        if (value := only(field)) is not None:
            return Target(field, value, only("cluster"), _quiet_seconds(quiet_time))
    raise bad_value(
        "until",
        "invalid until=ready: it requires a filter for one task or one workflow; give one uuid or one "
        "root_id, without wildcards (a backslash before * ? , ! takes it literally)",
    )


def _quiet_seconds(text: str | None) -> float | None:
    if text is None:
        return None
    seconds = -1.0
    if (age := age_seconds(text)) is not None:
        seconds = age
    elif _SECONDS.fullmatch(text):
        seconds = float(text)
    if not 0 <= seconds <= MAX_QUIET_SECONDS:
        message = (
            f"invalid quiet_time={quoted(text)}: it must be seconds, at most {MAX_QUIET_SECONDS}, or an age "
            "such as 1m"
        )
        raise bad_value("quiet_time", message, ("30", "1m"))
    return seconds
