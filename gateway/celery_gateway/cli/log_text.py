"""The output of ``celery-gateway log info``: lines for people, and a JSON document."""

from collections.abc import Sequence
from typing import Any

from celery_gateway.check.log_report import LogReport, duration_text, size_text
from celery_gateway.log.engine import Place

RawStreams = Sequence[tuple[str, str]]
"""The raw streams that exist: the URL of the broker without password, and the name."""


def lines(place: Place, report: LogReport | None, raw: RawStreams) -> list[str]:
    """Return the lines for people."""
    found = [_line("log", f"{place.name} at {place.address} ({place.kind})")]
    if report is None:
        found.append(_line("entries", "there is no log: a gateway with --log creates it"))
    else:
        found += _report_lines(report)
    return found + [_line("raw", f"{name} at {url}") for url, name in raw]


def document(place: Place, report: LogReport | None, raw: RawStreams) -> dict[str, Any]:
    """Return the JSON document."""
    at = {"kind": place.kind, "address": place.address, "name": place.name}
    streams = [{"url": url, "name": name} for url, name in raw]
    if report is None:
        return {"log": at, "exists": False, "raw": streams}
    is_empty = not report.entries
    return {
        "log": at,
        "exists": True,
        "entries": report.entries,
        "first": None if is_empty else report.first,
        "last": None if is_empty else report.last,
        "bytes": report.bytes,
        "first_age_seconds": None if is_empty else round(report.first_seconds, 1),
        "last_age_seconds": round(report.last_seconds, 1) if report.term else None,
        "term": report.term or None,
        "leader": report.leader or None,
        "gateways": [
            {
                "name": each.name,
                "position": each.position,
                "lag": each.lag,
                "seen_age_seconds": round(each.seconds, 1),
            }
            for each in report.readers
        ],
        "raw": streams,
    }


def _report_lines(report: LogReport) -> list[str]:
    found = []
    if report.entries:
        found += [
            _line("entries", f"{report.entries:,}: positions {report.first} to {report.last}"),
            _line("size", f"{size_text(report.bytes)} of entries"),
            _line("reaches", f"{duration_text(report.first_seconds)} back"),
        ]
    else:
        found.append(_line("entries", "none"))
    if report.leader:
        found.append(_line("leader", f"{report.leader} (term {report.term})"))
    elif report.term:
        last = duration_text(report.last_seconds)
        found.append(_line("leader", f"none: no gateway runs, or none can write; the last wrote {last} ago"))
    else:
        found.append(_line("leader", "none has written yet"))
    for each in report.readers:
        lag = f"{each.lag:,} behind" if each.lag else "up to date"
        found.append(
            _line("reader", f"{each.name}: at {each.position}, {lag}, {duration_text(each.seconds)} ago")
        )
    return found


def _line(name: str, text: str) -> str:
    return f"{name:9}{text}"
