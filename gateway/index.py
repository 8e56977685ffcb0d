"""Which subscribers an event concerns, found rather than asked one by one.

A filter on a root, parent or task id is looked up in a dict by the event's value: ten thousand subscribers
with ten thousand ids cost an event three look-ups. Filters that depend on few-valued fields only (type, name,
hostname, state, queue, cluster) are asked once for each combination of values, and the answer is remembered.
What is left (globs on ids) is asked each time.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from gateway.event import FILTER_FIELDS, Keys

MAX_MEMO = 10_000
"""Combinations of values that are remembered; then the memory starts anew."""

MAX_MEMO_KEY_CHARS = 1_000

_ID_FIELDS = tuple(FILTER_FIELDS.index(field) for field in ("root_id", "parent_id", "uuid"))


class Matcher(Protocol):
    """What the index has to know of a filter."""

    @property
    def fields(self) -> frozenset[int]:
        """The fields it depends on, by their place in ``Keys``."""

    @property
    def lookups(self) -> frozenset[tuple[int, str]] | None:
        """Pairs of field and value such that whatever matches has one of them; ``None``: there are none."""

    def matches(self, keys: Keys) -> bool:
        """Tell whether an event with these keys is wanted."""


_T = TypeVar("_T")


class Index(Generic[_T]):
    """Things that each have a filter, found by the keys of an event."""

    def __init__(self) -> None:
        self._by_id: dict[tuple[int, str], dict[_T, Matcher]] = {}
        self._memoised: dict[_T, Matcher] = {}
        self._asked: dict[_T, Matcher] = {}
        self._memo: dict[Keys, tuple[_T, ...]] = {}
        self._memo_fields: Counter[int] = Counter()  # how many of the memoised depend on each field

    def add(self, filter: Matcher, item: _T) -> None:
        """Let events that match the filter find the item, which is in the index once at most."""
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
        if self._asked:
            found += tuple([item for item, filter in self._asked.items() if filter.matches(keys)])
        return found

    def _places(self, filter: Matcher) -> list[dict[_T, Matcher]]:
        if filter.lookups is not None:
            return [self._by_id.setdefault(pair, {}) for pair in filter.lookups]
        return [self._asked if filter.fields.intersection(_ID_FIELDS) else self._memoised]

    def _remember(self, memo_key: Keys, keys: Keys) -> tuple[_T, ...]:
        found = tuple([item for item, filter in self._memoised.items() if filter.matches(keys)])
        if sum(len(value) for value in memo_key if value) <= MAX_MEMO_KEY_CHARS:
            if len(self._memo) >= MAX_MEMO:
                self._memo.clear()
            self._memo[memo_key] = found
        return found
