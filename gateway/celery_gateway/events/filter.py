r"""A filter: which events pass, by the values of their fields.

A filter is a set of clauses, one per field. An event passes if every clause passes. A clause passes if the
value of the field matches one of the wanted patterns (or there are none) and none of the excluded ones.
Values are compared whole and case-sensitively, as ``event.keys`` returns them. An event without the field
matches no pattern: it fails a clause with wanted patterns and passes one that only excludes.

A value that is longer than 4,096 characters is compared as if it were its first 4,096 characters. So ``a*``
matches it by its beginning, ``*b`` does not match it by its end, and no exact value is equal to it, since
patterns are shorter.

Filters are immutable, hashable, and equal if they select the same, so that subscribers can share one. They
are made by ``filter_parser``.
"""

from dataclasses import dataclass, field, replace

from celery_gateway.events.event import FILTER_FIELDS, ID_POSITIONS, ORIGIN_FIELDS, SCOPE_POSITIONS, Keys
from celery_gateway.events.matcher import MAX_VALUE_CHARS, Anchor, Matcher
from celery_gateway.events.pattern import Glob

UNINDEXED_COST_FACTOR = 10
"""How many times as much a filter costs if the index has to evaluate it for each event: the index can neither
find it by a value nor remember its result."""

_ANCHOR_FIELDS = ("uuid", "parent_id", "root_id", "name", "hostname", "queue", "type", "state", "cluster")
"""The fields from that with the most different values to that with the fewest."""
_ANCHOR_RANKS = {
    index: _ANCHOR_FIELDS.index(field) for index, field in enumerate((*FILTER_FIELDS, *ORIGIN_FIELDS))
}

_LOOKUP_RANKS = {
    FILTER_FIELDS.index("uuid"): 0,
    SCOPE_POSITIONS["root_id"]: 1,
    FILTER_FIELDS.index("root_id"): 2,
    SCOPE_POSITIONS["parent_id"]: 3,
    FILTER_FIELDS.index("parent_id"): 4,
}
"""Which ids are looked up first: one task, then what a scope contains: others must not change the time."""


class _Patterns:
    """Patterns of one field: a set of exact values, and globs that are tried one by one."""

    __slots__ = ("_exact", "_globs")

    def __init__(self, exact: frozenset[str], globs: frozenset[Glob]) -> None:
        self._exact = exact
        ordered = sorted(globs, key=lambda glob: glob.cost) if globs else ()
        self._globs = tuple([glob.match for glob in ordered])

    def match(self, value: str) -> bool:
        if value in self._exact:
            return True
        for matches in self._globs:  # noqa: SIM110 (any() with a generator takes twice as long)
            if matches(value):
                return True
        return False


_NO_PATTERNS = _Patterns(frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class Clause:
    """The condition on one field.

    Args:
        index: the field's position in ``Keys``.
        wanted: exact values, without escapes.
        unwanted: exact values that are excluded.
        wanted_globs: patterns with wildcards.
        unwanted_globs: such patterns that are excluded.
        requires_value: the clause fails without a value, also if it only excludes.

    Attributes:
        cost: see ``Filter.cost``.
    """

    index: int
    wanted: frozenset[str] = frozenset()
    unwanted: frozenset[str] = frozenset()
    wanted_globs: frozenset[Glob] = frozenset()
    unwanted_globs: frozenset[Glob] = frozenset()
    requires_value: bool = False
    cost: int = field(init=False, repr=False, compare=False)
    _is_open: bool = field(init=False, repr=False, compare=False)
    _wanted: _Patterns = field(init=False, repr=False, compare=False)
    _unwanted: _Patterns = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        cost, patterns = 0, []
        for exact, globs in ((self.wanted, self.wanted_globs), (self.unwanted, self.unwanted_globs)):
            if exact or globs:
                cost += len(exact) + sum([len(value) // 64 for value in exact])
                cost += sum([glob.cost for glob in globs]) if globs else 0
                patterns.append(_Patterns(exact, globs))
            else:
                patterns.append(_NO_PATTERNS)
        set_attribute = object.__setattr__
        set_attribute(self, "cost", cost)
        set_attribute(self, "_is_open", patterns[0] is _NO_PATTERNS)
        set_attribute(self, "_wanted", patterns[0])
        set_attribute(self, "_unwanted", patterns[1])

    @property
    def is_exact(self) -> bool:
        """True if only the values in ``wanted`` can pass."""
        return bool(self.wanted) and not self.wanted_globs

    @property
    def has_anchor(self) -> bool:
        """True if every value that passes is a known value or begins with a known prefix."""
        return not self._is_open and (
            not self.wanted_globs or all([glob.prefix for glob in self.wanted_globs])
        )

    @property
    def anchor(self) -> Anchor | None:
        """The values, and the prefixes of values, that can pass; ``None`` if there are others."""
        if not self.has_anchor:
            return None
        return Anchor(self.index, self.wanted, frozenset([glob.prefix for glob in self.wanted_globs]))

    @property
    def pattern_count(self) -> int:
        """Number of patterns."""
        return len(self.wanted) + len(self.unwanted) + len(self.wanted_globs) + len(self.unwanted_globs)

    def passes(self, value: str | None) -> bool:
        """Return whether the clause passes for a value; ``None`` if the event does not have the field."""
        if value is None:
            return self._is_open and not self.requires_value
        if len(value) > MAX_VALUE_CHARS:
            value = value[:MAX_VALUE_CHARS]
        return (self._is_open or self._wanted.match(value)) and not self._unwanted.match(value)


@dataclass(frozen=True, slots=True)
class Filter:
    """An immutable filter; without clauses every event passes.

    Attributes:
        cost: the cost to evaluate and hold it; 1 without clauses. A unit is about 1 µs for an event with the
            worst values, or 500 bytes. An exact value costs 1, and 1 more for each 64 characters; a pattern
            such as ``shop.*`` costs 2, and 1 more for each 64 characters; any other pattern with wildcards
            costs 10, 1 more for each 4 wildcards, and 1 more for each 16 characters. A filter costs ten times
            as much if the index has to evaluate it for each event.
    """

    clauses: tuple[Clause, ...] = ()
    cost: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        cost = max(1, sum([clause.cost for clause in self.clauses]))
        has_ids = any([clause.index in ID_POSITIONS for clause in self.clauses])
        is_unindexed = has_ids and not any([clause.has_anchor for clause in self.clauses])
        object.__setattr__(self, "cost", cost * UNINDEXED_COST_FACTOR if is_unindexed else cost)

    @property
    def fields(self) -> frozenset[int]:
        """The fields that the filter reads, by their position in ``Keys``."""
        return frozenset(clause.index for clause in self.clauses)

    @property
    def alternatives(self) -> "tuple[Filter, ...]":
        """The filter itself: it has no alternatives."""
        return (self,)

    @property
    def anchor(self) -> Anchor | None:
        """The values or prefixes that every match has in one of the fields; ``None`` if no field has any."""
        clauses = [clause for clause in self.clauses if clause.has_anchor]
        if not clauses:
            return None
        return min(clauses, key=lambda clause: (not clause.is_exact, _ANCHOR_RANKS[clause.index])).anchor

    @property
    def lookups(self) -> frozenset[tuple[int, str]] | None:
        """Pairs of id field and exact value, such that every match has one of them.

        ``None`` if no clause allows that.
        """
        clauses = [clause for clause in self.clauses if clause.index in ID_POSITIONS and clause.is_exact]
        if not clauses:
            return None
        clause = min(clauses, key=lambda clause: _LOOKUP_RANKS[clause.index])
        return frozenset((clause.index, value) for value in clause.wanted)

    def only(self, field: str) -> str | None:
        """Return the one exact value, without escapes, that the filter wants of a field.

        Returns:
            ``None`` if it wants no value of the field, several, or a wildcard, or excludes any.

        Raises:
            ValueError: the field is not in ``FILTER_FIELDS``.
        """
        index = FILTER_FIELDS.index(field)
        for clause in self.clauses:
            if clause.index == index and clause.wanted and clause.pattern_count == 1:
                return next(iter(clause.wanted))
        return None

    def matches(self, keys: Keys) -> bool:
        """Return whether an event with these keys (``event.keys``) passes."""
        for clause in self.clauses:  # noqa: SIM110 (all() with a generator takes twice as long)
            if not clause.passes(keys[clause.index]):
                return False
        return True


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A filter that passes what any of several filters passes.

    Attributes:
        cost: the sum of the costs of the filters, at least 1.
    """

    alternatives: frozenset[Filter]
    cost: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cost", max(1, sum([filter.cost for filter in self.alternatives])))

    @property
    def lookups(self) -> frozenset[tuple[int, str]] | None:
        pairs: set[tuple[int, str]] = set()
        for filter in self.alternatives:
            if (lookups := filter.lookups) is None:
                return None
            pairs |= lookups
        return frozenset(pairs)

    def matches(self, keys: Keys) -> bool:
        for filter in self.alternatives:  # noqa: SIM110 (any() with a generator takes twice as long)
            if filter.matches(keys):
                return True
        return False


def for_scope(filter: "Filter | AnyOf") -> AnyOf:
    """Return the filter of a scope: it reads ``ORIGIN_FIELDS`` from the table, and fails without a value."""
    return AnyOf(
        frozenset(
            Filter(
                tuple(
                    replace(clause, index=SCOPE_POSITIONS[FILTER_FIELDS[clause.index]], requires_value=True)
                    for clause in alternative.clauses
                )
            )
            for alternative in filter.alternatives
        )
    )


def both(filter: Matcher, scope: AnyOf) -> Filter | AnyOf:
    """Return the filter that passes what both pass: each pair of their alternatives is one of its own.

    The caller bounds the number of pairs.
    """
    pairs = frozenset(
        Filter(wanted.clauses + allowed.clauses)
        for wanted in filter.alternatives
        for allowed in scope.alternatives
        if isinstance(wanted, Filter)
    )
    return next(iter(pairs)) if len(pairs) == 1 else AnyOf(pairs)
