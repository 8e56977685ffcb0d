"""The parameters of ``/statistics`` and ``/failures``.

Rules: an unknown parameter or a bad value is an error, never ignored.
"""

from typing import Final, NamedTuple

from starlette.datastructures import QueryParams

from celery_gateway.events.filter import Filter
from celery_gateway.events.filter_parser import parse
from celery_gateway.http.query_params import ACCESS_TOKEN, check_parameters, only
from celery_gateway.http.query_values import choice, moment
from celery_gateway.http.report_query import window_seconds
from celery_gateway.http.state_query import FORMATS, known_fields, page_limit
from celery_gateway.state.activity_report import ITEM_FIELDS

_FILTERS: Final = ("name", "cluster")
_STATISTICS_PARAMETERS: Final = (*_FILTERS, "window", "fields", "format", ACCESS_TOKEN)
_FAILURES_PARAMETERS: Final = (*_FILTERS, "since", "limit", "format", ACCESS_TOKEN)


class StatisticsQuery(NamedTuple):
    """A checked request for statistics; ``fields`` is ``None`` for all."""

    filter: Filter
    window_seconds: float
    fields: frozenset[str] | None


class FailuresQuery(NamedTuple):
    """A checked request for failures; ``since``: epoch seconds, 0 for all."""

    filter: Filter
    since: float
    limit: int


def statistics_query(parameters: QueryParams) -> StatisticsQuery:
    """Return a request for statistics.

    Raises:
        BadRequest: an unknown parameter or a bad value. Also raised by the other functions.
    """
    check_parameters(parameters, _STATISTICS_PARAMETERS)
    choice(parameters, "format", FORMATS)
    return StatisticsQuery(
        _filter(parameters), window_seconds(only(parameters, "window")), known_fields(parameters, ITEM_FIELDS)
    )


def failures_query(parameters: QueryParams, now: float) -> FailuresQuery:
    """Return a request for failures.

    Args:
        now: epoch seconds, which an age counts back from.
    """
    check_parameters(parameters, _FAILURES_PARAMETERS)
    choice(parameters, "format", FORMATS)
    return FailuresQuery(_filter(parameters), moment(parameters, "since", now) or 0.0, page_limit(parameters))


def _filter(parameters: QueryParams) -> Filter:
    return parse({field: parameters.getlist(field) for field in _FILTERS})
