"""The failures that a scope shows, by signature. Pure."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from celery_gateway.events.matcher import Matcher
from celery_gateway.state.activity_report import name_keys
from celery_gateway.state.failure_groups import FailureGroup, FailureGroups, NameFailures

GROUPED_BY: Final = frozenset({"exception", "traceback"})
"""Without these fields failures cannot be shown: the groups would tell them."""
MAX_SHOWN_NAMES: Final = 20
_NODE_FIELDS: Final = frozenset({"worker", "hostname"})


class FailureQuery(NamedTuple):
    """Which failures are shown.

    Attributes:
        visible: those of names that it passes; ``None``: all.
        hidden: fields that are not shown.
        since: groups with a failure from then on, epoch seconds.
    """

    visible: Matcher | None
    hidden: frozenset[str]
    since: float


def read_failures(failures: FailureGroups, query: FailureQuery) -> Iterator[dict[str, Any] | None]:
    """Yield each group as it is shown, ``None`` for one that is not; in any order.

    A group has only the names that are shown: its counts, times and example are those of these names.
    """
    if not query.hidden.isdisjoint(GROUPED_BY):
        return
    for group in tuple(failures.newest()):
        yield _shown(group, query)


def _shown(group: FailureGroup, query: FailureQuery) -> dict[str, Any] | None:
    if group.last < query.since:
        return None
    names: dict[str, int] = {}
    shown: list[NameFailures] = []
    for (name, cluster), each in group.names.items():
        if query.visible is None or query.visible.matches(name_keys(name, cluster)):
            names[name or ""] = names.get(name or "", 0) + each.count
            shown.append(each)
    if query.visible is None and group.others is not None:
        shown.append(group.others)
    if not shown:
        return None
    newest = max(shown, key=lambda each: each.last)
    if newest.last < query.since:
        return None
    return {
        "signature": group.key,
        "exception": group.exception,
        "message": newest.message,
        "frame": group.frame,
        "count": sum(each.count for each in shown),
        "names": dict(sorted(names.items(), key=lambda each: -each[1])[:MAX_SHOWN_NAMES]),
        "first": round(min(each.first for each in shown), 3),
        "last": round(newest.last, 3),
        "uuid": newest.uuid,
        "worker": newest.worker if query.hidden.isdisjoint(_NODE_FIELDS) else None,
        **({} if newest.cluster is None else {"cluster": newest.cluster}),
    }
