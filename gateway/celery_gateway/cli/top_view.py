"""The overview as a page of text for a terminal. Pure: the same values and the same time give the same page.

Texts of events are escaped (``printable``), and are never read as markup.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from celery_gateway.cli.terminal import printable
from celery_gateway.cli.top_numbers import (
    ASCII_BARS,
    BARS,
    NOTHING,
    bars,
    count,
    duration,
    number,
    rate,
    share,
)
from celery_gateway.cli.top_overview import Health, Overview, Row, Sort

MIN_WIDTH: Final = 60
_MAX_SIDE_ROWS: Final = 8
"""Workers, and queues, that are shown beside many names."""
_BARS_WIDTH: Final = 12
_FIXED_LINES: Final = 5
"""The status line, the totals, a line that the caller adds, and empty lines."""
_STYLES: Final = {"ok": "bold green", "waiting": "bold yellow", "bad": "bold red"}
_SIGNS: Final = {"ok": "●", "waiting": "◐", "bad": "✗"}
_NOT_SHOWN: Final = "the token does not show them"


@dataclass(frozen=True)
class Page:
    """What a page depends on beside the values.

    Attributes:
        width: columns of the terminal.
        height: its lines; ``None`` for a page of any length.
        is_ascii: the terminal shows ASCII only.
        window: the age of the oldest event that is counted, as given by the user.
    """

    width: int
    height: int | None
    sort: Sort
    window: str
    is_ascii: bool = False


def render(overview: Overview, page: Page, now: float) -> RenderableType:
    """Return a page.

    Args:
        now: epoch seconds of this machine.
    """
    rows = overview.rows(page.sort, now)
    workers = sorted((overview.workers or {}).values(), key=_worker_order)
    queues = sorted(overview.queues or [], key=_queue_order)
    names_fit, workers_fit, queues_fit = fitting(page.height, len(rows), len(workers), len(queues))
    parts: list[RenderableType] = [_status(overview.health(now), page), _summary(overview, workers, now)]
    if "statistics" in overview.refused:
        parts.append(_note("tasks: the token does not show statistics (it needs the permission state)"))
    elif not overview.has_statistics:
        parts.append(_note("tasks: waiting for the statistics"))
    elif not rows:
        counted = overview.counted_seconds(now)
        window = page.window if counted is None else f"{duration(counted)} (not counted before)"
        parts.append(_note(f"tasks: none runs, waits or has ended in the last {window}"))
    else:
        parts += [
            Text(),
            _tasks(rows[:names_fit], overview, page, now),
            *_more(len(rows), names_fit, "names"),
        ]
    parts += _section("workers", overview, workers, workers_fit, _workers(workers[:workers_fit], now))
    time = overview.gateway_time(now)
    parts += _section("queues", overview, queues, queues_fit, _queues(queues[:queues_fit], time))
    return Group(*parts)


def fitting(height: int | None, names: int, workers: int, queues: int) -> tuple[int, int, int]:
    """Return how many names, workers and queues a page shows; at least one of each.

    >>> fitting(None, 500, 30, 9), fitting(40, 500, 30, 3), fitting(10, 500, 30, 9)
    ((500, 30, 9), (18, 8, 3), (1, 1, 1))
    """
    if height is None:
        return names, workers, queues
    # A header and a line "… and more" for each of the three; an empty line before two of them.
    free = height - _FIXED_LINES - 6
    side_workers, side_queues = min(workers, _MAX_SIDE_ROWS), min(queues, _MAX_SIDE_ROWS)
    while side_workers + side_queues > max(2, free // 2):
        if side_workers >= side_queues:
            side_workers -= 1
        else:
            side_queues -= 1
    return max(1, free - side_workers - side_queues), max(1, side_workers), max(1, side_queues)


def _status(health: Health, page: Page) -> Text:
    sign = "*" if page.is_ascii else _SIGNS[health.level]
    style = _STYLES[health.level]
    return Text(f"{sign} {printable(health.text)}", style=style, no_wrap=True, overflow="ellipsis")


def _summary(overview: Overview, workers: Sequence[dict[str, Any]], now: float) -> Text:
    parts = []
    total = overview.total(now)
    if total is not None:
        parts += [f"{rate(total.per_minute)} attempts/min", f"{total.running:,} running"]
        parts += [f"{total.waiting:,} waiting", f"{share(total.failed, total.finished)} failed"]
    counted = overview.counted_seconds(now)
    if counted is not None:
        parts.append(f"counted for {duration(counted)}")
    if overview.workers is not None:
        alive = sum(worker.get("alive") is True for worker in workers)
        parts.append(f"{alive:,} of {len(workers):,} workers alive")
    return Text(" · ".join(parts), no_wrap=True, overflow="ellipsis")


def _tasks(rows: Sequence[Row], overview: Overview, page: Page, now: float) -> Table:
    wide, wider, widest = (page.width >= each for each in (100, 118, 140))
    table = _table()
    table.add_column("task", ratio=3)
    for title, width, is_shown in (
        ("running", 7, True),
        ("waiting", 7, True),
        ("/min", 6, True),
        (f"last {page.window}", _BARS_WIDTH, wide),
        ("failed", 7, True),
        ("run p50", 8, wider),
        ("run p95", 8, True),
        ("wait p50", 8, wider),
        ("wait p95", 8, True),
    ):
        if is_shown:
            table.add_column(title, width=width, justify="left" if title.startswith("last") else "right")
    if widest:
        table.add_column("last failure", ratio=2)
    time = overview.gateway_time(now)
    for row in rows:
        cells = [_text(f"{row.cluster} {row.name}" if row.cluster else row.name, "bold")]
        cells += [Text(f"{row.running:,}"), Text(f"{row.waiting:,}"), Text(rate(row.per_minute))]
        if wide:
            cells.append(Text(bars(row.history, _BARS_WIDTH, ASCII_BARS if page.is_ascii else BARS), "cyan"))
        cells.append(Text(share(row.failed, row.finished), "red" if row.failed else ""))
        cells += _durations(row.runtime, wider) + _durations(row.wait, wider)
        if widest:
            cells.append(_failure(row, time))
        table.add_row(*cells)
    return table


def _durations(values: tuple[float | None, float | None], shows_both: bool) -> list[Text]:
    return [Text(duration(value)) for value in (values if shows_both else values[1:])]


def _failure(row: Row, now: float) -> Text:
    if row.last_failure is None:
        return Text(NOTHING, "dim")
    exception, time = row.last_failure
    return _text(f"{duration(now - time)} ago: {exception}", "red")


def _workers(workers: Sequence[dict[str, Any]], now: float) -> Table:
    table = _table()
    table.add_column("worker", ratio=3)
    table.add_column("status", width=19)
    for title, width in (("active", 6), ("processed", 9), ("load", 4)):
        table.add_column(title, width=width, justify="right")
    table.add_column("", ratio=2)
    for worker in workers:
        status, is_alive = printable(worker.get("status")), worker.get("alive") is True
        since = number(worker.get("since"))
        if not is_alive and since is not None:
            status += f" for {duration(now - since)}"
        load = worker.get("loadavg")
        load_1 = number(load[0]) if isinstance(load, list) and load else None
        active, processed = number(worker.get("active")), number(worker.get("processed"))
        is_mute = worker.get("sends_task_events") is False
        cluster = f"{worker['cluster']} " if worker.get("cluster") else ""
        table.add_row(
            _text(f"{cluster}{printable(worker.get('hostname'))}"),
            _text(status, "green" if is_alive else "red"),
            Text(NOTHING if active is None else f"{active:,.0f}"),
            Text(NOTHING if processed is None else f"{processed:,.0f}"),
            Text(NOTHING if load_1 is None else f"{load_1:.1f}"),
            _text("no task events: use -E" if is_mute else "", "yellow"),
        )
    return table


def _queues(queues: Sequence[dict[str, Any]], now: float) -> Table:
    titles = {"depth": "ready", "unacknowledged": "taken", "consumers": "consumers", "oldest": "oldest"}
    # Only the numbers that some broker reports.
    keys = [
        key for key in titles if key == "depth" or any(number(each.get(key)) is not None for each in queues)
    ]
    table = _table()
    table.add_column("queue", ratio=3)
    for key in keys:
        table.add_column(titles[key], width=9, justify="right")
    table.add_column("", ratio=3)
    for queue in queues:
        values = {key: number(queue.get(key)) for key in keys}
        oldest = values.get("oldest")
        shown = {key: NOTHING if value is None else f"{value:,.0f}" for key, value in values.items()}
        if oldest is not None:
            shown["oldest"] = duration(now - oldest)
        warning = ""
        if queue.get("error"):
            warning = printable(queue["error"])
        elif values.get("consumers") == 0 and count(queue.get("depth")):
            warning = "no consumer"
        cluster = f"{queue['cluster']} " if queue.get("cluster") else ""
        table.add_row(
            _text(f"{cluster}{printable(queue.get('name'))}"),
            *map(Text, shown.values()),
            _text(warning, "yellow"),
        )
    return table


def _section(
    name: str, overview: Overview, items: Sequence[object], fit: int, table: Table
) -> list[RenderableType]:
    if name in overview.refused:
        return [Text(), _note(f"{name}: {_NOT_SHOWN} (it needs the permission workers)")]
    if getattr(overview, name) is None:
        return []
    if not items:
        return [Text(), _note(f"{name}: none")]
    return [Text(), table, *_more(len(items), fit, name)]


def _more(total: int, shown: int, what: str) -> list[Text]:
    return [Text(f"… and {total - shown:,} more {what}", "dim")] if total > shown else []


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True, header_style="dim")


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style, no_wrap=True, overflow="ellipsis")


def _note(text: str) -> Text:
    return Text(text, "yellow")


def _worker_order(worker: dict[str, Any]) -> tuple[bool, str, str]:
    """Return the key of the order of workers: those that are not alive first, since they matter."""
    is_alive = worker.get("alive") is True
    return is_alive, printable(worker.get("cluster")), printable(worker.get("hostname"))


def _queue_order(queue: dict[str, Any]) -> tuple[int, str, str]:
    return -count(queue.get("depth")), printable(queue.get("cluster")), printable(queue.get("name"))
