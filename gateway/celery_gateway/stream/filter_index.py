"""Find the subscribers of an event without evaluating every filter. Pure.

Rules:

- A filter has one or more alternatives. Equal alternatives of several items are one entry, evaluated once.
- A table finds candidate entries by their anchors: exact values in a dict, and the literal text that a
  pattern begins with in another dict, once for each length of such texts. It evaluates the candidates, and
  the entries without an anchor.
- Alternatives that read an id are in one table, which is searched for every event: with 10,000 subscribers
  and 10,000 ids, an event costs three lookups.
- The other alternatives read fields with few distinct values (type, name, hostname, state, queue, cluster).
  There is a table for each set of fields that they read. Its results are cached by the values of these
  fields.
- A cached result is updated when it is used: removed entries are dropped from it, and only entries that were
  added since are evaluated. So the cache stays useful while subscribers are added and removed, and a
  subscriber that reads more fields does not affect the results of others.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import blake2b
from itertools import chain
from operator import itemgetter
from sys import getsizeof
from typing import Any, Generic, NamedTuple, TypeVar

from celery_gateway.events.event import ID_POSITIONS, Keys
from celery_gateway.events.matcher import MAX_VALUE_CHARS, Alternative, Anchor, Matcher

MAX_CACHE_BYTES = 16 << 20
"""Maximum size of the cached results. Beyond it, results that were not used lately are dropped."""
MAX_KEY_CHARS = 250
RESULT_BYTES = 250
"""Size of a cached result without its key and its entries."""
MAX_PREFIX_CHARS = 64
"""Maximum length of a literal prefix in a table; a lookup costs 0.1 µs for each length in use."""
MAX_NEW_ENTRIES = 100
"""A result is computed again if more entries than this were added since (more if many have no anchor)."""
MIN_REMOVALS = 1_000
"""After so many removals, and as many as there are entries, cached results that were not used lately are
dropped: they refer to removed entries."""

_T = TypeVar("_T")


class _Entry(Generic[_T]):
    """An alternative and the items that have it.

    Attributes:
        number: entries are numbered in the order in which they are added.
        items: empty once the entry was removed; then it matches nothing.
    """

    __slots__ = ("number", "items", "matches")

    def __init__(self, number: int, matches: Callable[[Keys], bool]) -> None:
        self.number = number
        self.items: dict[_T, None] = {}
        self.matches = matches


_Entries = dict[_Entry[_T], None]


class _Table(Generic[_T]):
    """Entries, found by the keys of an event."""

    def __init__(self) -> None:
        self.entries: _Entries[_T] = {}  # in the order of their numbers
        self._by_value: dict[int, dict[str, _Entries[_T]]] = {}
        self._by_prefix: dict[int, dict[str, _Entries[_T]]] = {}
        self._prefix_counts: dict[int, Counter[int]] = {}  # by field and length
        self._prefix_chars: list[tuple[int, list[int]]] = []  # the lengths in use by field, ascending
        self.others: _Entries[_T] = {}  # without an anchor

    def add(self, entry: _Entry[_T], anchor: Anchor | None) -> None:
        self.entries[entry] = None
        if anchor is None:
            self.others[entry] = None
            return
        field = anchor.field
        if anchor.values:
            by_value = self._by_value.setdefault(field, {})
            for value in anchor.values:
                by_value.setdefault(value, {})[entry] = None
        if anchor.prefixes:
            by_prefix = self._by_prefix.setdefault(field, {})
            counts = self._prefix_counts.setdefault(field, Counter())
            for prefix in _cut_prefixes(anchor):
                if prefix not in by_prefix:
                    by_prefix[prefix] = {}
                    counts[len(prefix)] += 1
                    if counts[len(prefix)] == 1:
                        self._sort_prefix_chars()
                by_prefix[prefix][entry] = None

    def remove(self, entry: _Entry[_T], anchor: Anchor | None) -> None:
        del self.entries[entry]
        if anchor is None:
            del self.others[entry]
            return
        field = anchor.field
        if anchor.values:
            by_value = self._by_value[field]
            for value in anchor.values:
                _discard(by_value, value, entry)
            if not by_value:
                del self._by_value[field]
        if anchor.prefixes:
            by_prefix, counts = self._by_prefix[field], self._prefix_counts[field]
            for prefix in _cut_prefixes(anchor):
                if _discard(by_prefix, prefix, entry):
                    counts[len(prefix)] -= 1
                    if not counts[len(prefix)]:
                        del counts[len(prefix)]
                        self._sort_prefix_chars()
            if not by_prefix:
                del self._by_prefix[field], self._prefix_counts[field]

    def find(self, keys: Keys) -> list[_Entry[_T]]:
        """Return the entries that match, each once."""
        buckets: list[_Entries[_T]] = []
        for field, by_value in self._by_value.items():
            value = keys[field]
            if value is not None and (entries := by_value.get(value)) is not None:
                buckets.append(entries)
        for field, lengths in self._prefix_chars:
            value = keys[field]
            if value is not None:
                by_prefix = self._by_prefix[field]
                chars = len(value)
                for length in lengths:
                    if length > chars:
                        break
                    if (entries := by_prefix.get(value[:length])) is not None:
                        buckets.append(entries)
        if self.others:
            buckets.append(self.others)
        if not buckets:
            return []
        # An entry can be in several buckets: of a value and a prefix, or of two prefixes.
        candidates = buckets[0] if len(buckets) == 1 else dict.fromkeys(chain.from_iterable(buckets))
        return [entry for entry in candidates if entry.matches(keys)]

    def _sort_prefix_chars(self) -> None:
        self._prefix_chars = [
            (field, sorted(counts)) for field, counts in self._prefix_counts.items() if counts
        ]


class _Result(NamedTuple, Generic[_T]):
    """The entries that match, as of a version of the cache, and the number of the next entry to be added."""

    entries: tuple[_Entry[_T], ...]
    version: int
    next_number: int


class _Cache(Generic[_T]):
    """A table of entries that read the same fields, and its results by the values of these fields."""

    def __init__(self, fields: frozenset[int]) -> None:
        self.table: _Table[_T] = _Table()
        self.key: Callable[[tuple[Any, ...]], Any] = itemgetter(*sorted(fields)) if fields else _no_fields
        self.version = 0  # increases when an entry is added or removed
        self.young: dict[Any, _Result[_T]] = {}
        self.old: dict[Any, _Result[_T]] = {}  # a result that is used becomes young again


class FilterIndex(Generic[_T]):
    """Items with a filter each, found by the keys of an event."""

    def __init__(self) -> None:
        self._entries: dict[Alternative, _Entry[_T]] = {}
        self._next_number = 0
        self._by_id: _Table[_T] = _Table()
        self._caches: dict[frozenset[int], _Cache[_T]] = {}
        self._young_bytes = 0
        self._removal_count = 0
        self._multiple_count = 0  # number of items with several alternatives

    def add(self, filter: Matcher, item: _T) -> None:
        """Add an item with its filter. An item can be in the index only once."""
        count = 0
        for alternative in filter.alternatives:
            count += 1
            entry = self._entries.get(alternative)
            if entry is None:
                entry = self._entries[alternative] = _Entry(self._next_number, alternative.matches)
                self._next_number += 1
                self._insert(alternative, entry)
            entry.items[item] = None
        self._multiple_count += count > 1

    def remove(self, filter: Matcher, item: _T) -> None:
        """Undo ``add`` with the same arguments."""
        count = 0
        for alternative in filter.alternatives:
            count += 1
            entry = self._entries[alternative]
            del entry.items[item]
            if not entry.items:
                del self._entries[alternative]
                self._drop(alternative, entry)
        self._multiple_count -= count > 1

    def find(self, keys: Keys) -> Iterable[_T]:
        """Return each item whose filter matches, once. Iterate before the next change of the index."""
        found: list[_Entry[_T]] = []
        for cache in self._caches.values():
            result = cache.young.get(cache.key(keys))
            if result is None or result.version != cache.version:
                result = self._compute(cache, keys)
            found += result.entries
        if self._by_id.entries:
            found += self._by_id.find(keys)
        if len(found) == 1:
            return found[0].items
        items = chain.from_iterable([entry.items for entry in found])
        return dict.fromkeys(items) if self._multiple_count else items

    def _insert(self, alternative: Alternative, entry: _Entry[_T]) -> None:
        fields = alternative.fields
        if not fields.isdisjoint(ID_POSITIONS):
            self._by_id.add(entry, alternative.anchor)
            return
        cache = self._caches.get(fields)
        if cache is None:
            cache = self._caches[fields] = _Cache(fields)
        cache.table.add(entry, alternative.anchor)
        cache.version += 1

    def _drop(self, alternative: Alternative, entry: _Entry[_T]) -> None:
        entry.matches = _never  # cached results may refer to the entry, but not to its filter
        fields = alternative.fields
        if not fields.isdisjoint(ID_POSITIONS):
            self._by_id.remove(entry, alternative.anchor)
            return
        cache = self._caches[fields]
        cache.table.remove(entry, alternative.anchor)
        cache.version += 1
        if not cache.table.entries:
            del self._caches[fields]
        self._removal_count += 1
        if self._removal_count >= max(MIN_REMOVALS, len(self._entries)):
            self._age()

    def _compute(self, cache: _Cache[_T], keys: Keys) -> _Result[_T]:
        """Return the result for an event without a cached one, or with one that is not up to date."""
        keys = tuple([value and value[:MAX_VALUE_CHARS] for value in keys])
        key = cache.key(tuple([value and _short(value) for value in keys]))
        result = cache.young.get(key)
        if result is not None and result.version == cache.version:
            return result  # long values have a shorter key
        result = result or cache.old.get(key)
        if result is None or (entries := _updated(cache, result, keys)) is None:
            entries = tuple(cache.table.find(keys))
        result = cache.young[key] = _Result(entries, cache.version, self._next_number)
        # A result that replaces another one is counted too, so this is an upper bound.
        self._young_bytes += RESULT_BYTES + _size_bytes(key) + 8 * len(entries)
        if self._young_bytes > MAX_CACHE_BYTES // 2:
            self._age()
        return result

    def _age(self) -> None:
        """Drop the old results, and make the young results old."""
        for cache in self._caches.values():
            cache.old, cache.young = cache.young, {}
        self._young_bytes = self._removal_count = 0


def _updated(cache: _Cache[_T], result: _Result[_T], keys: Keys) -> tuple[_Entry[_T], ...] | None:
    """Return the updated entries of a result; ``None`` if a new search costs less."""
    limit = MAX_NEW_ENTRIES + len(cache.table.others) // 2  # a new search evaluates all of these
    entries = [entry for entry in result.entries if entry.items]
    for new, entry in enumerate(reversed(cache.table.entries)):
        if entry.number < result.next_number:
            break
        if new == limit:
            return None
        if entry.matches(keys):
            entries.append(entry)
    return tuple(entries)


def _cut_prefixes(anchor: Anchor) -> set[str]:
    return {prefix[:MAX_PREFIX_CHARS] for prefix in anchor.prefixes}


def _discard(buckets: dict[str, _Entries[_T]], text: str, entry: _Entry[_T]) -> bool:
    """Remove an entry from its bucket; return whether the bucket was removed, too."""
    entries = buckets[text]
    del entries[entry]
    if not entries:
        del buckets[text]
    return not entries


def _short(value: str) -> str | bytes:
    """Return a value as a part of a cache key: a digest if it is long."""
    if len(value) <= MAX_KEY_CHARS:
        return value
    return blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _size_bytes(key: Any) -> int:
    return sum(map(getsizeof, key)) if type(key) is tuple else getsizeof(key)


def _no_fields(keys: tuple[Any, ...]) -> Any:
    return ()


def _never(keys: Keys) -> bool:
    return False
