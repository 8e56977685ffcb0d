"""The protocols of filters: matching events, and the values by which an index finds a filter. Pure."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from celery_gateway.events.event import Keys

MAX_VALUE_CHARS = 4_096
"""How many characters of a value are compared."""


class Anchor(NamedTuple):
    """Values and prefixes of a field. Every event that an alternative passes has one of them in the field.

    Attributes:
        field: a position in ``Keys``.
        values: exact values.
        prefixes: beginnings of values; none is empty.
    """

    field: int
    values: frozenset[str]
    prefixes: frozenset[str]


class _Matching(Protocol):
    @property
    def lookups(self) -> frozenset[tuple[int, str]] | None:
        """Pairs of id field and exact value, such that every match has one of them; ``None`` if unknown."""

    def matches(self, keys: Keys) -> bool:
        """Return whether an event with these keys passes."""

    def __hash__(self) -> int: ...


class Alternative(_Matching, Protocol):
    """A filter without alternatives. Hashable."""

    @property
    def fields(self) -> frozenset[int]:
        """The fields that it reads, by their position in ``Keys``."""

    @property
    def anchor(self) -> Anchor | None:
        """The values or prefixes that every match has in a field; ``None`` if unknown."""


class Matcher(_Matching, Protocol):
    """A filter: an event passes if it passes any alternative."""

    @property
    def alternatives(self) -> Iterable[Alternative]:
        """The alternatives, each once."""

    @property
    def cost(self) -> int:
        """The cost to evaluate and hold it; 1 or more."""
