"""An event as one coloured line on a terminal."""

from datetime import UTC, datetime
from typing import Any

import click

from celery_gateway.cli.terminal import printable, text_of

_COLOURS = {
    "task-succeeded": "green",
    "task-failed": "red",
    "task-retried": "yellow",
    "task-revoked": "magenta",
    "task-lost": "red",
    "task-rejected": "magenta",
    "task-started": "cyan",
}
_COMMON_FIELDS = frozenset({"id", "time", "type", "name", "state", "uuid", "root_id", "parent_id"}) | {
    "hostname",
    "timestamp",
    "utcoffset",
    "pid",
    "clock",
    "queue",
    "attempt",
    "truncated",
}
_MAX_DETAIL_CHARS = 160


def event_line(message: dict[str, Any]) -> str | None:
    """Return a message of a stream as text: the time, type, name, short id, worker, and important fields.

    Any JSON object has a line, whatever the types of its fields: the events of an application have fields of
    its own choice. Characters that would control the terminal are shown as escapes.

    Returns:
        A line without its end. A snapshot, or the status of several brokers, has several lines. ``None`` for
        what people need not see: the opening of the stream, and keep-alives.
    """
    event_type = printable(message.get("type"))
    if event_type in ("gateway-open", "gateway-bookmark"):
        return None
    if event_type == "gateway-status":
        away = [source for source in _objects(message.get("sources")) if not source.get("consuming")]
        return "\n".join(map(_source_line, away)) or None
    if event_type == "gateway-snapshot":
        return "\n".join(map(_task_line, _objects(message.get("tasks")))) or None
    if event_type.startswith("gateway-"):
        fields = _fields(message, frozenset({"type", "id"}))
        return click.style(f"-- {event_type} {printable(fields)}", fg="yellow", bold=True)
    parts = [
        click.style(_local_time(message.get("time")), dim=True),
        click.style(event_type.ljust(16), fg=_COLOURS.get(event_type)),
        click.style(printable(message.get("name") or ("-" if "uuid" in message else "")), bold=True),
        click.style(printable(message.get("uuid") or "")[:8], dim=True),
        printable(message.get("hostname") or ""),
        _shortened(_detail(event_type, message)),
        _truncated(message),
    ]
    return "  ".join(part for part in parts if part)


def _objects(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _source_line(source: dict[str, Any]) -> str:
    """Return the line of a broker that the gateway is not connected to."""
    cluster = source.get("cluster")
    name = f" {text_of(cluster)}" if cluster else ""
    text = f"-- the gateway is not connected to the broker{name}: {text_of(source.get('reason'))}"
    return click.style(printable(text), fg="yellow", bold=True)


def _task_line(task: dict[str, Any]) -> str:
    """Return the line of a task record of a snapshot."""
    failed = task.get("exception") if task.get("state") != "SUCCESS" else None
    parts = [
        click.style(_local_time(task.get("timestamp")), dim=True),
        click.style(f"is {printable(task.get('state'))}".ljust(16)),
        click.style(printable(task.get("name") or "-"), bold=True),
        click.style(printable(task.get("uuid"))[:8], dim=True),
        printable(task.get("worker") or ""),
        _shortened(failed) if failed else "",
    ]
    return "  ".join(part for part in parts if part)


def _detail(event_type: str, event: dict[str, Any]) -> str:
    if event_type == "task-succeeded":
        return f"{_seconds(event.get('runtime'))}{text_of(event.get('result'))}"
    if event_type in ("task-failed", "task-retried"):
        return text_of(event.get("exception"))
    if event_type in ("task-sent", "task-received"):
        return f"{text_of(event.get('args') or '')} {text_of(event.get('kwargs') or '')}"
    if event_type == "task-lost":
        return text_of(event.get("reason"))
    if event_type.startswith("worker-"):
        return f"active={text_of(event.get('active'))} processed={text_of(event.get('processed'))}"
    return _fields(event, _COMMON_FIELDS)


def _fields(event: dict[str, Any], hidden: frozenset[str]) -> str:
    return " ".join(f"{key}={text_of(value)}" for key, value in event.items() if key not in hidden)


def _seconds(runtime: object) -> str:
    try:
        return f"{runtime:.3f}s  " if isinstance(runtime, float | int) else ""
    except OverflowError:  # an integer that no float can hold
        return f"{text_of(runtime)}s  "


def _truncated(event: dict[str, Any]) -> str:
    """Return which fields of an event the gateway has truncated (``--max-event-bytes``)."""
    fields = event.get("truncated")
    if not isinstance(fields, list) or not fields:
        return ""
    names = ", ".join(map(text_of, fields))
    return click.style(
        f"(truncated: {_shortened(names)}; full event: GET /events/{printable(event.get('id'))})", dim=True
    )


def _shortened(value: object) -> str:
    text = printable(value)
    return text if len(text) <= _MAX_DETAIL_CHARS else f"{text[: _MAX_DETAIL_CHARS - 1]}…"


def _local_time(time: object) -> str:
    """Return the time of day in this machine's zone, with milliseconds; other values as short text.

    Args:
        time: RFC 3339, or seconds since the epoch.
    """
    try:
        if isinstance(time, int | float):
            local = datetime.fromtimestamp(time, UTC).astimezone()
        else:
            local = datetime.fromisoformat(time).astimezone()  # type: ignore[arg-type]
        return f"{local:%H:%M:%S}.{local.microsecond // 1000:03}"
    except (TypeError, ValueError, OverflowError, OSError):  # a zone may leave the years 1 to 9999
        return printable(time)[:26]
