r"""Filter events by the values of their fields.

A filter is a set of clauses, one per field. An event passes if every clause passes. A clause passes if the
field's value matches one of the wanted patterns (or there are none) and none of the excluded ones. Values are
compared whole and case-sensitively, as ``event.keys`` returns them. An event without the field matches no
pattern: it fails a clause with wanted patterns and passes one that only excludes.

In a pattern, ``*`` matches any text, ``?`` matches one character, and a leading ``!`` excludes. A query
parameter holds one or more patterns separated by commas. A backslash before ``\``, ``,``, ``*``, ``?`` or
``!`` takes that character literally; any other backslash is a literal backslash.

Filters are immutable, hashable, and equal if they ask for the same, so that subscribers can share one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from itertools import pairwise

from gateway.errors import BadRequest
from gateway.event import FILTER_FIELDS, Keys

MAX_PATTERNS = 1_000
"""Maximum number of patterns in a filter; it bounds the cost per event."""
MAX_GLOBS = 100
"""Maximum number of patterns with wildcards, which are compiled and then tried one by one."""
MAX_PATTERN_CHARS = 1_000
"""Maximum length of a pattern in characters; an escaped character counts as one."""

_ID_FIELDS = frozenset(FILTER_FIELDS.index(field) for field in ("root_id", "parent_id", "uuid"))
_SPECIAL = re.compile(r"[\\,*?!]")
_ESCAPED = re.compile(r"\\([\\,*?!])")
_ESCAPED_OR_COMMA = re.compile(r"\\[\\,*?!]|,")
_ESCAPED_OR_BRACKET = re.compile(r"\\([\\,*?!])|\[")


def escape(text: str) -> str:
    r"""Return the pattern that matches exactly this text, in a query parameter and in JSON.

    An empty text has no pattern: the result is empty, which ``parse`` and ``build`` refuse.

    >>> print(escape("!eu,us*"))
    \!eu\,us\*
    """
    return _SPECIAL.sub(r"\\\g<0>", text)


def is_glob(pattern: str) -> bool:
    """Return whether a pattern has wildcards that are not escaped."""
    if "\\" in pattern:
        pattern = _ESCAPED.sub("", pattern)
    return "*" in pattern or "?" in pattern


class _Patterns:
    """Patterns of one field: a set of exact values, and globs that are tried one by one."""

    __slots__ = ("_exact", "_globs")

    def __init__(self, exact: frozenset[str], globs: Iterable[str]) -> None:
        self._exact = exact
        # The expressions of ``translate`` run in linear time per star.
        self._globs = tuple([re.compile(translate(glob)).match for glob in sorted(globs)])

    def match(self, value: str) -> bool:
        return value in self._exact or any(glob(value) for glob in self._globs)


@dataclass(frozen=True, slots=True)
class Clause:
    """The condition on one field.

    Args:
        index: the field's position in ``FILTER_FIELDS``.
        wanted: exact values, without escapes.
        unwanted: exact values that are excluded.
        wanted_globs: patterns of ``fnmatch``, where ``[*]`` is a literal star.
        unwanted_globs: such patterns that are excluded.
    """

    index: int
    wanted: frozenset[str]
    unwanted: frozenset[str]
    wanted_globs: frozenset[str] = frozenset()
    unwanted_globs: frozenset[str] = frozenset()
    _is_open: bool = field(init=False, repr=False, compare=False)
    _wanted: _Patterns = field(init=False, repr=False, compare=False)
    _unwanted: _Patterns = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_is_open", not (self.wanted or self.wanted_globs))
        object.__setattr__(self, "_wanted", _Patterns(self.wanted, self.wanted_globs))
        object.__setattr__(self, "_unwanted", _Patterns(self.unwanted, self.unwanted_globs))

    @property
    def is_exact(self) -> bool:
        """True if only the values in ``wanted`` can pass."""
        return bool(self.wanted) and not self.wanted_globs

    @property
    def glob_count(self) -> int:
        """Number of patterns with wildcards."""
        return len(self.wanted_globs) + len(self.unwanted_globs)

    @property
    def pattern_count(self) -> int:
        """Number of patterns."""
        return len(self.wanted) + len(self.unwanted) + self.glob_count

    def passes(self, value: str | None) -> bool:
        """Return whether the clause passes for a value; ``None`` if the event does not have the field."""
        if value is None:
            return self._is_open
        return (self._is_open or self._wanted.match(value)) and not self._unwanted.match(value)


@dataclass(frozen=True, slots=True)
class Filter:
    """An immutable filter; without clauses every event passes."""

    clauses: tuple[Clause, ...] = ()

    @property
    def fields(self) -> frozenset[int]:
        """The fields that the filter reads, by their position in ``FILTER_FIELDS``."""
        return frozenset(clause.index for clause in self.clauses)

    @property
    def lookups(self) -> frozenset[tuple[int, str]] | None:
        """Pairs of id field and exact value, such that every match has one of them.

        ``None`` if no clause allows that.
        """
        for clause in self.clauses:
            if clause.index in _ID_FIELDS and clause.is_exact:
                return frozenset((clause.index, value) for value in clause.wanted)
        return None

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
        return all([clause.passes(keys[clause.index]) for clause in self.clauses])


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A filter that passes what any of several filters passes."""

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
    """Return the filter of query parameters.

    Args:
        parameters: for each field of ``FILTER_FIELDS`` its values, after percent-decoding. Each value holds
            one or more patterns, separated by commas that are not escaped.

    Raises:
        BadRequest: a pattern is empty or too long, or there are too many.
    """
    patterns: dict[str, list[str]] = {}
    for name, values in parameters.items():
        patterns[name] = texts = []
        for value in values:
            parts = _split(value)
            if len(parts) > 1 and ("" in parts or "!" in parts):
                raise BadRequest(
                    f"invalid {name}={value!r}: a comma too many leaves an empty value; remove it, or write"
                    r" '\,' for a comma that is part of a value",
                    code="empty-value",
                    parameter=name,
                )
            texts += parts
    return build(patterns)


def build(patterns: Mapping[str, Sequence[str]]) -> Filter:
    """Return the filter of patterns by field; a comma in a pattern needs no escape.

    Raises:
        BadRequest: a pattern is empty or too long, or there are too many.
    """
    clauses = []
    patterns_left, globs_left = MAX_PATTERNS, MAX_GLOBS
    for index, name in enumerate(FILTER_FIELDS):
        texts = patterns.get(name, ())
        patterns_left -= len(texts)
        globs_left -= sum(map(is_glob, texts))
        if patterns_left < 0 or globs_left < 0:
            raise BadRequest(
                f"too many values in the filter: at most {MAX_PATTERNS} are allowed, {MAX_GLOBS} of them with"
                r" wildcards; write '\*' and '\?' for a star and a question mark that are part of a value",
                code="too-many-values",
                parameter=name,
            )
        for text in texts:
            _check(name, text)
        if texts:
            wanted, wanted_globs = _parted([text for text in texts if not text.startswith("!")])
            unwanted, unwanted_globs = _parted([text[1:] for text in texts if text.startswith("!")])
            clauses.append(Clause(index, wanted, unwanted, wanted_globs, unwanted_globs))
    return Filter(tuple(clauses))


def _split(value: str) -> list[str]:
    """Return the parts of a value between commas that are not escaped, with their escapes."""
    commas = [match.start() for match in _ESCAPED_OR_COMMA.finditer(value) if match[0] == ","]
    return [value[comma + 1 : end] for comma, end in pairwise([-1, *commas, len(value)])]


def _parted(patterns: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the exact values without escapes, and the globs as ``fnmatch`` spells them."""
    exact, globs = set(), set()
    for pattern in patterns:
        if is_glob(pattern):
            globs.add(_ESCAPED_OR_BRACKET.sub(_as_set, pattern))
        else:
            exact.add(_unescaped(pattern))
    return frozenset(exact), frozenset(globs)


def _as_set(match: re.Match[str]) -> str:
    """Return a literal character for ``fnmatch``, which has no escape but sets such as ``[*]``."""
    character: str = match[1] or "["
    return f"[{character}]" if character in "*?[" else character


def _unescaped(pattern: str) -> str:
    return _ESCAPED.sub(r"\1", pattern) if "\\" in pattern else pattern


def _check(name: str, text: str) -> None:
    if not text:
        raise BadRequest(
            f"invalid {name}='': an empty value matches no event; leave the field out to match every event",
            code="empty-value",
            parameter=name,
        )
    if text == "!":
        raise BadRequest(
            rf"invalid {name}='!': the excluded value is empty; write '\!' for the value '!'",
            code="empty-value",
            parameter=name,
        )
    if (length := len(_unescaped(text))) > MAX_PATTERN_CHARS:
        raise BadRequest(
            f"invalid {name}: a value has {length} characters; at most {MAX_PATTERN_CHARS} are allowed",
            code="value-too-long",
            parameter=name,
        )
