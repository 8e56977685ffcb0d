"""A scope: which events and tasks a token may read, without which fields, and on which endpoints. Pure.

Rules:

- A scope is an object: ``any`` is a list of filters, and what any of them passes is visible; without it all
  is. ``hide`` lists fields that are removed. ``may`` lists the kinds of endpoints; without it ``events`` and
  ``state``.
- The filter is combined with that of each request (``restrict``): both must pass. It compares the name,
  root_id, parent_id, queue and state that the table has joined from the first ``task-sent`` or
  ``task-received`` of a task, never those that an event gives itself.
- It fails closed: without a value no clause passes, also one that only excludes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from celery_gateway.errors import BadRequest, Forbidden
from celery_gateway.events.event import FILTER_FIELDS, SCOPE_POSITIONS
from celery_gateway.events.fields import ALL_FIELDS, NEVER_HIDDEN, Fields
from celery_gateway.events.filter import AnyOf, Filter, both, for_scope
from celery_gateway.events.filter_parser import build_any
from celery_gateway.events.matcher import Matcher
from celery_gateway.tokens import MAX_ALTERNATIVES, MAY

DEFAULT_MAY: Final = frozenset({"events", "state"})
MAX_SHARED_COST: Final = 10
"""Filters of requests up to this cost are combined once for all requests of a scope."""
MAX_PAIRS: Final = 500
"""Maximum number of alternatives of a request's filter, times those of the scope."""
_KEYS: Final = ("any", "hide", "may")
_NODE_FIELDS: Final = frozenset({"hostname", "worker", "client"})
"""All of them are names of nodes: to hide one hides all, and then none can be filtered."""
_EVERYTHING: Final = AnyOf(frozenset((Filter(),)))


@dataclass(frozen=True, slots=True)
class Scope:
    """What a token may read.

    Attributes:
        filter: what is visible.
        hide: the fields that are removed from events, tasks and workers.
        may: the kinds of endpoints, from ``MAY``.
    """

    filter: AnyOf = _EVERYTHING
    hide: frozenset[str] = frozenset()
    may: frozenset[str] = DEFAULT_MAY
    is_restricted: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_restricted", self.filter != _EVERYTHING)

    @classmethod
    def parse(cls, value: object) -> "Scope":
        """Return a scope from its JSON or TOML form.

        Args:
            value: such as ``{"any": [{"name": ["shop.*"]}], "hide": ["args"], "may": ["events"]}``. A field
                of a filter has a string or a list of strings.

        Raises:
            ValueError: it is malformed; the message says what is allowed.
        """
        if not isinstance(value, Mapping):
            raise ValueError(f"invalid scope: it must be an object with {', '.join(_KEYS)}")
        if unknown := sorted(set(map(str, value)).difference(_KEYS)):
            raise ValueError(f"invalid scope: unknown key {unknown[0]!r}; allowed are {', '.join(_KEYS)}")
        hide = _names(value, "hide")
        if not hide.isdisjoint(_NODE_FIELDS):
            hide |= _NODE_FIELDS
        if refused := sorted(hide & NEVER_HIDDEN):
            raise ValueError(
                f"invalid scope: {refused[0]!r} cannot be hidden, since clients need it to identify events "
                "and tasks"
            )
        may = _names(value, "may") if "may" in value else DEFAULT_MAY
        if unknown := sorted(may.difference(MAY)):
            raise ValueError(f"invalid scope: may contains {unknown[0]!r}; allowed are {', '.join(MAY)}")
        return cls(_filter(value["any"]) if "any" in value else _EVERYTHING, hide, may)

    def restrict(self, filter: Matcher) -> Matcher:
        """Return what a request's filter passes within the scope.

        Raises:
            Forbidden: the filter reads a hidden field.
            BadRequest: it has too many alternatives for this scope.
        """
        if not self.is_restricted and not self.hide:
            return filter
        count = 0
        for alternative in filter.alternatives:
            count += 1
            for position in alternative.fields:
                field = FILTER_FIELDS[position]
                if field in self.hide:
                    message = f"the field {field!r} is hidden from this token: it cannot be filtered"
                    raise Forbidden(message, parameter=field)
        if not self.is_restricted:
            return filter
        if count * len(self.filter.alternatives) > MAX_PAIRS:
            raise BadRequest(
                f"too many alternatives: {count}; with this token at most "
                f"{MAX_PAIRS // len(self.filter.alternatives)} are allowed",
                code="too-many-values",
                parameter="any",
            )
        return (
            _shared_both(filter, self.filter) if filter.cost <= MAX_SHARED_COST else both(filter, self.filter)
        )

    def fields(self, wanted: frozenset[str] | None) -> Fields:
        """Return the fields that a response has.

        Args:
            wanted: the requested fields; ``None`` for all.
        """
        return ALL_FIELDS if wanted is None and not self.hide else Fields(wanted, self.hide)

    def may_see_workflow(self, root_id: str) -> bool:
        """Return whether some tasks of a workflow may be visible."""
        return any(
            all(
                clause.index != SCOPE_POSITIONS["root_id"] or clause.passes(root_id)
                for clause in alternative.clauses
            )
            for alternative in self.filter.alternatives
        )

    def has_whole_workflow(self, root_id: str) -> bool:
        """Return whether all tasks of a workflow are visible, whatever their other values."""
        return any(
            all(
                clause.index == SCOPE_POSITIONS["root_id"] and clause.passes(root_id)
                for clause in alternative.clauses
            )
            for alternative in self.filter.alternatives
        )


@lru_cache(maxsize=1_000)
def _shared_both(filter: Matcher, scope: AnyOf) -> Matcher:
    return both(filter, scope)


EVERYTHING: Final = Scope(may=frozenset(MAY))
"""All events, fields and endpoints."""


def _filter(value: object) -> AnyOf:
    if not isinstance(value, list | tuple) or len(value) > MAX_ALTERNATIVES:
        raise ValueError(
            f'invalid scope: "any" must be a list of at most {MAX_ALTERNATIVES} filters such as '
            '{"name": ["shop.*"]}'
        )
    alternatives = []
    for each in value:
        if not isinstance(each, Mapping):
            raise ValueError(f'invalid scope: "any" contains {each!r}; it must contain only filters')
        if unknown := sorted(set(map(str, each)).difference(FILTER_FIELDS)):
            allowed = ", ".join(FILTER_FIELDS)
            raise ValueError(
                f"invalid scope: unknown field {unknown[0]!r} in a filter; allowed are {allowed}"
            )
        alternatives.append({str(name): _patterns(name, values) for name, values in each.items()})
    try:
        filter = build_any(alternatives, "any")
    except BadRequest as error:
        raise ValueError(f"invalid scope: {error}") from None
    return _EVERYTHING if Filter() in filter.alternatives else for_scope(filter)


def _patterns(name: object, values: Any) -> list[str]:
    listed = [values] if isinstance(values, str) else values
    if (
        not isinstance(listed, list | tuple)
        or not listed
        or not all(isinstance(each, str) for each in listed)
    ):
        raise ValueError(f"invalid scope: {name} must be a string or a list of strings, which is not empty")
    return list(listed)


def _names(value: Mapping[Any, Any], key: str) -> frozenset[str]:
    names = value.get(key, ())
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"invalid scope: {key!r} must be a list of names, such as {key} = ['args']")
    return frozenset(names)
