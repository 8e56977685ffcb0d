"""What a stream reports beside events, and its maximum rate: the checks of these values.

The same for a query string and for JSON (``stream_query`` has the other values of a stream).
"""

from typing import Final

from celery_gateway.events.pattern import quoted
from celery_gateway.http.stream_query import DEFAULT_WINDOW_SECONDS, ReportQuery, age_seconds, bad_value
from celery_gateway.state.time_buckets import MAX_WINDOW_SECONDS, MIN_WINDOW_SECONDS

MIN_INTERVAL_SECONDS: Final = 1.0
MAX_INTERVAL_SECONDS: Final = 300.0
MAX_RATE: Final = 100_000
REPORT_PARAMETERS: Final = ("max_rate", "statistics", "window", "workers")


def check_reports(
    *, has_workers: bool, statistics: str | None, window: str | None, max_rate: str | None
) -> ReportQuery:
    """Check the values of a request for reports.

    Raises:
        BadRequest: a value is bad, or ``window`` is given without ``statistics``.
    """
    if statistics is None and window is not None:
        raise bad_value("window", f"invalid window={quoted(window)}: it requires statistics, such as 5s")
    return ReportQuery(
        has_workers=has_workers,
        statistics_seconds=None if statistics is None else _interval_seconds(statistics),
        window_seconds=window_seconds(window),
        max_rate=None if max_rate is None else _rate(max_rate),
    )


def window_seconds(text: str | None) -> float:
    """Return the length of a window of statistics in seconds; without a text the default.

    Raises:
        BadRequest: it is not an age from 1m to 24h.
    """
    if text is None:
        return DEFAULT_WINDOW_SECONDS
    seconds = age_seconds(text)
    if seconds is None or not MIN_WINDOW_SECONDS <= seconds <= MAX_WINDOW_SECONDS:
        message = f"invalid window={quoted(text)}: it must be an age from 1m to 24h, such as 1h"
        raise bad_value("window", message, ("1m", "24h"))
    return seconds


def _interval_seconds(text: str) -> float:
    seconds = age_seconds(text)
    if seconds is None or not MIN_INTERVAL_SECONDS <= seconds <= MAX_INTERVAL_SECONDS:
        message = f"invalid statistics={quoted(text)}: it must be an age from 1s to 5m, such as 5s"
        raise bad_value("statistics", message, ("1s", "5m"))
    return seconds


def _rate(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 12 and 1 <= int(text) <= MAX_RATE:
        return int(text)
    message = f"invalid max_rate={quoted(text)}: it must be a number of events a second, from 1 to {MAX_RATE}"
    raise bad_value("max_rate", message, ("1", str(MAX_RATE)))
