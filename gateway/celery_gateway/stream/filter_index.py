"""Find the subscribers of an event without evaluating every filter.

Filters on exact root, parent or task ids are found in a dict by the event's ids: with 10,000 subscribers and
10,000 ids, an event costs three lookups. Filters that read only fields with few distinct values (type, name,
hostname, state, queue, cluster) are evaluated once per combination of values, and the result is cached. The
other filters (wildcards or exclusions on ids) are evaluated for every event.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from gateway.event import FILTER_FIELDS, Keys

MAX_MEMO = 10_000
"""Maximum number of cached combinations; when it is reached, the cache is cleared."""
MAX_MEMO_KEY_CHARS = 1_000
"""Maximum length in characters of a cached combination; longer ones are evaluated every time."""

_ID_FIELDS = tuple(FILTER_FIELDS.index(field) for field in ("root_id", "parent_id", "uuid"))


class Matcher(Protocol):
    """The interface of a filter that the index uses."""

    @property
    def fields(self) -> frozenset[int]:
        """The fields that the filter reads, by their position in ``Keys``."""

    @property
    def lookups(self) -> frozenset[tuple[int, str]] | None:
        """Pairs of id field and exact value, such that every match has one of them; ``None`` if unknown."""

    def matches(self, keys: Keys) -> bool:
        """Return whether an event with these keys passes."""


_T = TypeVar("_T")


class Index(Generic[_T]):
    """Items with a filter each, found by the keys of an event."""

    def __init__(self) -> None:
        self._by_id: dict[tuple[int, str], dict[_T, Matcher]] = {}
        self._memoised: dict[_T, Matcher] = {}
        self._evaluated: dict[_T, Matcher] = {}
        self._memo: dict[Keys, tuple[_T, ...]] = {}
        self._memo_fields: Counter[int] = Counter()  # how many memoised filters read each field

    def add(self, filter: Matcher, item: _T) -> None:
        """Add an item with its filter. An item can be in the index only once."""
        for items in self._places(filter):
            items[item] = filter
        if item in self._memoised:
            self._memo_fields.update(filter.fields)
            self._memo.clear()

    def remove(self, filter: Matcher, item: _T) -> None:
        """Undo ``add`` with the same arguments."""
        if item in self._memoised:
            self._memo_fields.subtract(filter.fields)
            self._memo_fields = +self._memo_fields
            self._memo.clear()
        for items in self._places(filter):
            del items[item]
        for pair in filter.lookups or ():
            if not self._by_id[pair]:
                del self._by_id[pair]

    def find(self, keys: Keys) -> Iterable[_T]:
        """Return each item whose filter matches, once."""
        memo_key = tuple([keys[field] for field in self._memo_fields])
        found = self._memo.get(memo_key)
        if found is None:
            found = self._remember(memo_key, keys)
        if self._by_id:
            for field in _ID_FIELDS:
                value = keys[field]
                if value is not None and (items := self._by_id.get((field, value))):
                    found += tuple([i for i, f in items.items() if f.matches(keys) and i not in found])
        if self._evaluated:
            found += tuple([item for item, filter in self._evaluated.items() if filter.matches(keys)])
        return found

    def _places(self, filter: Matcher) -> list[dict[_T, Matcher]]:
        if filter.lookups is not None:
            return [self._by_id.setdefault(pair, {}) for pair in filter.lookups]
        return [self._evaluated if filter.fields.intersection(_ID_FIELDS) else self._memoised]

    def _remember(self, memo_key: Keys, keys: Keys) -> tuple[_T, ...]:
        found = tuple([item for item, filter in self._memoised.items() if filter.matches(keys)])
        if sum(len(value) for value in memo_key if value) <= MAX_MEMO_KEY_CHARS:
            if len(self._memo) >= MAX_MEMO:
                self._memo.clear()
            self._memo[memo_key] = found
        return found
