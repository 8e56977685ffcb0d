"""An event as one coloured line for people."""

from datetime import UTC, datetime
from typing import Any

import click

_COLOURS = {
    "task-succeeded": "green",
    "task-failed": "red",
    "task-retried": "yellow",
    "task-revoked": "magenta",
    "task-lost": "red",
    "task-rejected": "magenta",
    "task-started": "cyan",
}
_COMMON = frozenset({"id", "time", "type", "name", "state", "uuid", "root_id", "parent_id"}) | {
    "hostname",
    "timestamp",
    "utcoffset",
    "pid",
    "clock",
    "queue",
    "attempt",
}
_MAX_DETAIL_CHARS = 160
_UNPRINTABLE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}


def line(event: dict[str, Any]) -> str | None:
    """Return one line: time, type, name, short uuid, worker, and what matters of the rest.

    ``None`` for what people need not see (the opening of the stream, and keep-alives). Characters that
    would steer the terminal are shown as escapes.
    """
    kind = _printable(event["type"])
    if kind in ("gateway-open", "gateway-bookmark"):
        return None
    if kind == "gateway-status":
        away = [source for source in event["sources"] if not source["consuming"]]
        return "\n".join(map(_source_line, away)) or None
    if kind == "gateway-snapshot":
        return "\n".join(map(_task_line, event["tasks"])) or None
    if kind.startswith("gateway-"):
        details = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("type", "id"))
        return click.style(f"-- {kind} {_printable(details)}", fg="yellow", bold=True)
    parts = [
        click.style(_local_time(event["time"]), dim=True),
        click.style(kind.ljust(16), fg=_COLOURS.get(kind)),
        click.style(_printable(event.get("name") or ("-" if "uuid" in event else "")), bold=True),
        click.style(_printable(event.get("uuid") or "")[:8], dim=True),
        _printable(event.get("hostname") or ""),
        _detail(event),
    ]
    return "  ".join(part for part in parts if part)


def _source_line(source: dict[str, Any]) -> str:
    """Return one line for a broker that the gateway does not hear."""
    of = f" {source['cluster']}" if source["cluster"] else ""
    text = f"-- the gateway does not hear the broker{of}: {source['reason']}"
    return click.style(_printable(text), fg="yellow", bold=True)


def _task_line(task: dict[str, Any]) -> str:
    """Return one line for a task as it stands."""
    parts = [
        click.style(_local_time(datetime.fromtimestamp(task["timestamp"], UTC).isoformat()), dim=True),
        click.style(f"is {_printable(task.get('state'))}".ljust(16)),
        click.style(_printable(task.get("name") or "-"), bold=True),
        click.style(_printable(task["uuid"])[:8], dim=True),
        _printable(task.get("worker") or ""),
    ]
    return "  ".join(part for part in parts if part)


def _detail(event: dict[str, Any]) -> str:
    kind = event["type"]
    if kind == "task-succeeded":
        runtime = event.get("runtime")
        seconds = f"{runtime:.3f}s  " if isinstance(runtime, float | int) else ""
        text = f"{seconds}{event.get('result')}"
    elif kind in ("task-failed", "task-retried"):
        text = str(event.get("exception"))
    elif kind in ("task-sent", "task-received"):
        text = f"{event.get('args') or ''} {event.get('kwargs') or ''}"
    elif kind == "task-lost":
        text = str(event.get("reason"))
    elif kind.startswith("worker-"):
        text = f"active={event.get('active')} processed={event.get('processed')}"
    else:
        text = " ".join(f"{key}={value}" for key, value in event.items() if key not in _COMMON)
    text = _printable(text)
    return text if len(text) <= _MAX_DETAIL_CHARS else f"{text[: _MAX_DETAIL_CHARS - 1]}…"


def _printable(value: object) -> str:
    return str(value)[:1000].translate(_UNPRINTABLE)


def _local_time(rfc3339: str) -> str:
    local = datetime.fromisoformat(rfc3339).astimezone()
    return f"{local:%H:%M:%S}.{local.microsecond // 1000:03}"
