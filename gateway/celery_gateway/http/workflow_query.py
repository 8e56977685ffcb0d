"""The parameters of ``GET /workflows``, and the checks of their values."""

import time
from typing import Final, NamedTuple

from starlette.datastructures import QueryParams

from celery_gateway.events.event import FILTER_FIELDS
from celery_gateway.events.filter import Filter
from celery_gateway.events.filter_parser import parse
from celery_gateway.http.page_tokens import PageTokens
from celery_gateway.http.query_params import only
from celery_gateway.http.query_values import choice, choices, moment, split_comparisons, text_to_search
from celery_gateway.http.state_query import COMMON_PARAMETERS, check, known_fields, list_digest, page_limit
from celery_gateway.state.criteria import Comparison
from celery_gateway.state.task_order import Rank
from celery_gateway.state.workflow_counts import WORKFLOW_STATES

COMPARED_COUNTS: Final = ("total", "ready", "failed")
"""The fields of a workflow that can be compared with a number."""
WORKFLOW_FIELDS: Final = (
    *("root_id", "name", "state", "total", "ready", "failed", "counts", "progress", "begun", "ended"),
    "cluster",
)
WORKFLOW_ORDERS: Final = ("newest", "oldest")
_FILTERS: Final = tuple(field for field in FILTER_FIELDS if field != "state")
_STATES: Final = (*WORKFLOW_STATES, *[f"!{state}" for state in WORKFLOW_STATES])
_PARAMETERS: Final = (
    *(*_FILTERS, "state", "q", "since", "before", "sort", "limit", "cursor"),
    *COMMON_PARAMETERS,
)


class WorkflowListQuery(NamedTuple):
    """A checked request for a page of workflows.

    Attributes:
        filter: of the root task.
        states: those of the workflows; ``None``: any.
        text: to search in the root task; ``""``: any.
        since, before: when they began, in epoch seconds; ``None``: any time.
        comparisons: conditions on their counts.
        is_oldest_first: the order.
        after: the place of the last one on the page before; ``None`` for the first page.
        fields: ``None`` for all.
        digest: see ``PageTokens``.
    """

    filter: Filter
    states: frozenset[str] | None
    text: str
    since: float | None
    before: float | None
    comparisons: tuple[Comparison, ...]
    is_oldest_first: bool
    limit: int
    after: Rank | None
    fields: frozenset[str] | None
    digest: bytes


def workflow_list_query(parameters: QueryParams, tokens: PageTokens) -> WorkflowListQuery:
    """Return a checked request.

    Raises:
        BadRequest: an unknown parameter or a bad value.
    """
    plain, comparisons = split_comparisons(parameters, COMPARED_COUNTS)
    check(plain, _PARAMETERS, COMPARED_COUNTS)
    sort = choice(plain, "sort", WORKFLOW_ORDERS)
    digest = list_digest("workflows", parameters, sort)
    token = only(plain, "cursor")
    now = time.time()
    return WorkflowListQuery(
        filter=parse({field: plain.getlist(field) for field in _FILTERS}),
        states=_states(plain),
        text=text_to_search(plain),
        since=moment(plain, "since", now),
        before=moment(plain, "before", now),
        comparisons=comparisons,
        is_oldest_first=sort == "oldest",
        limit=page_limit(plain),
        after=None if token is None else tokens.rank(token, digest),
        fields=known_fields(plain, WORKFLOW_FIELDS),
        digest=digest,
    )


def _states(parameters: QueryParams) -> frozenset[str] | None:
    """Return the states that pass, as a filter of these patterns would."""
    if "state" not in parameters:
        return None
    values = choices(parameters, "state", _STATES)
    wanted = frozenset([value for value in values if not value.startswith("!")])
    unwanted = frozenset([value[1:] for value in values if value.startswith("!")])
    return (wanted or frozenset(WORKFLOW_STATES)) - unwanted
