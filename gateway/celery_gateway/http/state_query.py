"""The parameters of requests for state: which each endpoint has, and the checks of their values.

Rules: an unknown parameter or a bad value is an error, never ignored. ``query_params`` has the checks that
streams share.
"""

import time
from typing import Final, NamedTuple

from starlette.datastructures import QueryParams

from celery_gateway.events.event import FILTER_FIELDS
from celery_gateway.events.filter import Filter
from celery_gateway.events.filter_parser import parse
from celery_gateway.events.pattern import quoted
from celery_gateway.http.page_tokens import PageTokens, query_digest
from celery_gateway.http.query_params import ACCESS_TOKEN, IGNORED, check_parameters, only, requested_fields
from celery_gateway.http.query_values import choice, choices, flag, moment, split_comparisons, text_to_search
from celery_gateway.http.stream_query import bad_value
from celery_gateway.state.criteria import Comparison, Criteria
from celery_gateway.state.task import VIEW_FIELDS
from celery_gateway.state.task_order import ORDERS, Rank, TaskOrder
from celery_gateway.state.worker import WORKER_FIELDS

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000

WORKER_FILTERS = ("hostname", "cluster")
COMPARED_SECONDS: Final = ("runtime", "queued_seconds")
COMPARED_NUMBERS: Final = (*COMPARED_SECONDS, "attempt", "retries", "progress")
"""The fields of a task that can be compared with a number."""
COUNTED_FIELDS: Final = ("state", "name", "queue", "hostname")
"""The values of ``by``."""
FORMATS: Final = ("json",)
COMMON_PARAMETERS = ("fields", "format", ACCESS_TOKEN)
_ONE_PARAMETERS = ("cluster", *COMMON_PARAMETERS)
_TASK_CRITERIA = ("q", "since", "before", "stale")
_TASK_LIST_PARAMETERS = (*FILTER_FIELDS, *_TASK_CRITERIA, "sort", "limit", "cursor", *COMMON_PARAMETERS)
_TASK_COUNT_PARAMETERS = (*FILTER_FIELDS, *_TASK_CRITERIA, "by", "format", ACCESS_TOKEN)
_WORKER_LIST_PARAMETERS = (*WORKER_FILTERS, *COMMON_PARAMETERS)
_NOT_SELECTING: Final = frozenset({"limit", "cursor", "sort", *COMMON_PARAMETERS}) | IGNORED
"""Parameters that may differ between the pages of a list."""


class TaskQuery(NamedTuple):
    """A checked request for one task or one workflow; ``fields`` is ``None`` for all."""

    cluster: str | None
    fields: frozenset[str] | None


class TaskListQuery(NamedTuple):
    """A checked request for a page of tasks.

    Attributes:
        after: the place of the last task on the page before; ``None`` for the first page.
        fields: ``None`` for all.
        digest: see ``PageTokens``.
    """

    filter: Filter
    criteria: Criteria
    order: TaskOrder
    limit: int
    after: Rank | None
    fields: frozenset[str] | None
    digest: bytes


class TaskCountQuery(NamedTuple):
    """A checked request for numbers of tasks; ``by`` has some of ``COUNTED_FIELDS``."""

    filter: Filter
    criteria: Criteria
    by: tuple[str, ...]


class WorkerListQuery(NamedTuple):
    """A checked request for workers; ``fields`` is ``None`` for all."""

    filter: Filter
    fields: frozenset[str] | None


def event_fields(parameters: QueryParams) -> frozenset[str] | None:
    """Return the requested fields of an event; ``None`` for all.

    Raises:
        BadRequest: an unknown parameter or a bad value. Also raised by the other functions.
    """
    check(parameters, COMMON_PARAMETERS)
    return requested_fields(parameters)


def task_query(parameters: QueryParams) -> TaskQuery:
    check(parameters, _ONE_PARAMETERS)
    return TaskQuery(cluster=only(parameters, "cluster"), fields=known_fields(parameters, VIEW_FIELDS))


def task_list_query(parameters: QueryParams, tokens: PageTokens) -> TaskListQuery:
    plain, comparisons = split_comparisons(parameters, COMPARED_NUMBERS, COMPARED_SECONDS)
    check(plain, _TASK_LIST_PARAMETERS, COMPARED_NUMBERS)
    order = TaskOrder(choice(plain, "sort", ORDERS))
    digest = list_digest("tasks", parameters, order.name)
    token = only(plain, "cursor")
    return TaskListQuery(
        filter=_filter(plain),
        criteria=_criteria(plain, comparisons),
        order=order,
        limit=page_limit(plain),
        after=None if token is None else tokens.rank(token, digest),
        fields=known_fields(plain, VIEW_FIELDS),
        digest=digest,
    )


def task_count_query(parameters: QueryParams) -> TaskCountQuery:
    plain, comparisons = split_comparisons(parameters, COMPARED_NUMBERS, COMPARED_SECONDS)
    check(plain, _TASK_COUNT_PARAMETERS, COMPARED_NUMBERS)
    return TaskCountQuery(_filter(plain), _criteria(plain, comparisons), choices(plain, "by", COUNTED_FIELDS))


def worker_query(parameters: QueryParams) -> TaskQuery:
    check(parameters, _ONE_PARAMETERS)
    return TaskQuery(cluster=only(parameters, "cluster"), fields=known_fields(parameters, WORKER_FIELDS))


def worker_list_query(parameters: QueryParams) -> WorkerListQuery:
    check(parameters, _WORKER_LIST_PARAMETERS)
    return WorkerListQuery(
        filter=parse({field: parameters.getlist(field) for field in WORKER_FILTERS}),
        fields=known_fields(parameters, WORKER_FIELDS),
    )


def list_digest(kind: str, parameters: QueryParams, sort: str) -> bytes:
    """Return the digest that the page tokens of a list have (``PageTokens``)."""
    selecting = [(name, value) for name, value in parameters.multi_items() if name not in _NOT_SELECTING]
    return query_digest(kind, [*selecting, ("sort", sort)])


def check(parameters: QueryParams, allowed: tuple[str, ...], compared: tuple[str, ...] = ()) -> None:
    """Check the names of the parameters, and ``format``.

    Args:
        compared: names that are allowed in comparisons, which are no longer among the parameters.
    """
    check_parameters(parameters, (*allowed, *compared))
    if "format" in allowed:
        choice(parameters, "format", FORMATS)


def _filter(parameters: QueryParams) -> Filter:
    return parse({field: parameters.getlist(field) for field in FILTER_FIELDS})


def _criteria(parameters: QueryParams, comparisons: tuple[Comparison, ...]) -> Criteria:
    now = time.time()
    return Criteria(
        text=text_to_search(parameters),
        since=moment(parameters, "since", now),
        before=moment(parameters, "before", now),
        comparisons=comparisons,
        stale=flag(parameters, "stale"),
    )


def known_fields(parameters: QueryParams, allowed: tuple[str, ...]) -> frozenset[str] | None:
    fields = requested_fields(parameters)
    if unknown := sorted((fields or frozenset()).difference(allowed)):
        message = f"invalid fields={unknown[0]!r}: the allowed fields are {', '.join(allowed)}"
        raise bad_value("fields", message, allowed)
    return fields


def page_limit(parameters: QueryParams) -> int:
    """Return how many items a page has at most.

    Raises:
        BadRequest: it is not a number from 1 to ``MAX_LIMIT``.
    """
    text = only(parameters, "limit")
    if text is None:
        return DEFAULT_LIMIT
    if text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    message = f"invalid limit={quoted(text)}: it must be a number from 1 to {MAX_LIMIT}"
    raise bad_value("limit", message, ("1", str(MAX_LIMIT)))
