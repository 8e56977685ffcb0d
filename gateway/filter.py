"""A subscriber's filter: which events it gets.

A filter is a set of clauses, one a field; an event passes if every clause does. A clause passes if the
field's value is one of those asked for (or none was asked for) and is none of the excluded ones. Values are
compared whole and case-sensitively; ``*`` stands for any text and ``?`` for one character. An event without
the field passes no value, and no exclusion stops it.

Filters are immutable, hashable and equal when they ask for the same, so that subscribers can share one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate

from gateway.errors import BadRequest
from gateway.event import FILTER_FIELDS, Keys

MAX_PATTERNS = 1_000
"""How many values a filter may have in all; more would make every event costly."""
MAX_GLOBS = 100
"""How many of them may have wildcards: those are tried in turn, and cost to compile."""
MAX_PATTERN_CHARS = 1_000


_ID_FIELDS = frozenset(FILTER_FIELDS.index(field) for field in ("root_id", "parent_id", "uuid"))


def is_glob(text: str) -> bool:
    """Tell whether a value has wildcards."""
    return "*" in text or "?" in text


class Patterns:
    """Some values of one field, exact ones looked up in a set and globs tried in turn."""

    __slots__ = ("texts", "_exact", "_globs")

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = frozenset(texts)
        globs = sorted(filter(is_glob, self.texts))
        self._exact = self.texts.difference(globs)
        # fnmatch also knows [sets], which we do not; its expressions run in linear time a star.
        self._globs = tuple(re.compile(translate(glob.replace("[", "[[]"))).match for glob in globs)

    @property
    def has_globs(self) -> bool:
        return bool(self._globs)

    def match(self, value: str) -> bool:
        return value in self._exact or any(glob(value) for glob in self._globs)


@dataclass(frozen=True, slots=True)
class Clause:
    """What one field must be. ``index`` is the field's place in ``FILTER_FIELDS``."""

    index: int
    wanted: frozenset[str]
    unwanted: frozenset[str]
    _wanted: Patterns = field(init=False, repr=False, compare=False)
    _unwanted: Patterns = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_wanted", Patterns(self.wanted))
        object.__setattr__(self, "_unwanted", Patterns(self.unwanted))

    @property
    def is_exact(self) -> bool:
        """True if only values that are named can pass."""
        return bool(self.wanted) and not self._wanted.has_globs

    def passes(self, value: str | None) -> bool:
        if value is None:
            return not self.wanted
        return (not self.wanted or self._wanted.match(value)) and not self._unwanted.match(value)


@dataclass(frozen=True, slots=True)
class Filter:
    """An immutable filter; without clauses everything passes."""

    clauses: tuple[Clause, ...] = ()

    @property
    def fields(self) -> frozenset[int]:
        """The fields it depends on, by their place in ``FILTER_FIELDS``."""
        return frozenset(clause.index for clause in self.clauses)

    @property
    def lookups(self) -> frozenset[tuple[int, str]] | None:
        """Pairs of id field and value, one of which every match has; ``None`` if no clause gives such."""
        for clause in self.clauses:
            if clause.index in _ID_FIELDS and clause.is_exact:
                return frozenset((clause.index, value) for value in clause.wanted)
        return None

    def matches(self, keys: Keys) -> bool:
        """Tell whether an event with these keys (``event.keys``) passes."""
        return all([clause.passes(keys[clause.index]) for clause in self.clauses])


@dataclass(frozen=True, slots=True)
class AnyOf:
    """What passes any of some filters; itself a filter."""

    filters: frozenset[Filter]

    @property
    def fields(self) -> frozenset[int]:
        return frozenset().union(*(filter.fields for filter in self.filters))

    @property
    def lookups(self) -> frozenset[tuple[int, str]] | None:
        pairs: set[tuple[int, str]] = set()
        for filter in self.filters:
            if (lookups := filter.lookups) is None:
                return None
            pairs |= lookups
        return frozenset(pairs)

    def matches(self, keys: Keys) -> bool:
        return any([filter.matches(keys) for filter in self.filters])


def parse(parameters: Mapping[str, Iterable[str]]) -> Filter:
    """Return the filter that query parameters ask for.

    Args:
        parameters: by field of ``FILTER_FIELDS`` the values given for it: each may hold several patterns
            between commas, and one that begins with ``!`` excludes.

    Raises:
        BadRequest: an empty, overlong or needless pattern, or too many of them.
    """
    patterns: dict[str, list[str]] = {}
    for name, values in parameters.items():
        patterns[name] = texts = []
        for value in values:
            texts += value.split(",")
            if "," in value and ("" in texts or "!" in texts):
                raise BadRequest(
                    f"{name}={value!r} has a comma too many: there is an empty value beside it",
                    code="empty-value",
                    parameter=name,
                )
    return build(patterns)


def build(patterns: Mapping[str, Sequence[str]]) -> Filter:
    """Return the filter of some fields' patterns, each whole: a comma in it is a comma.

    Raises:
        BadRequest: an empty or overlong pattern, or too many of them.
    """
    clauses = []
    patterns_left, globs_left = MAX_PATTERNS, MAX_GLOBS
    for index, name in enumerate(FILTER_FIELDS):
        texts = patterns.get(name, ())
        patterns_left -= len(texts)
        globs_left -= sum(map(is_glob, texts))
        if patterns_left < 0 or globs_left < 0:
            raise BadRequest(
                f"too many values to filter by: at most {MAX_PATTERNS}, of which {MAX_GLOBS} with wildcards",
                code="too-many-values",
                parameter=name,
            )
        for text in texts:
            _check(name, text)
        if texts:
            wanted = frozenset(text for text in texts if not text.startswith("!"))
            unwanted = frozenset(text[1:] for text in texts if text.startswith("!"))
            clauses.append(Clause(index, wanted, unwanted))
    return Filter(tuple(clauses))


def _check(name: str, text: str) -> None:
    if not text.removeprefix("!"):
        raise BadRequest(
            f"{name}={text!r}: an empty value matches nothing; leave the parameter out to get everything",
            code="empty-value",
            parameter=name,
        )
    if len(text) > MAX_PATTERN_CHARS:
        raise BadRequest(
            f"{name}: a value of {len(text)} characters; at most {MAX_PATTERN_CHARS} are taken",
            code="value-too-long",
            parameter=name,
        )
