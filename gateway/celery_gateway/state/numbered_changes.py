"""Changes of keyed things, numbered: each reader continues after the number that it has read last.

Rules: a newer change of a key replaces the older one, so a reader that comes late finds each key once, and
the memory is bounded by the number of keys. Pure.
"""

from bisect import bisect_right
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_SPARE = 1_000
"""How many outdated entries are kept, besides one for each key."""


class NumberedChanges(Generic[K, V]):
    """The newest change of each key.

    Attributes:
        number: of the newest change; 0 before the first.
    """

    def __init__(self) -> None:
        self.number = 0
        self._newest: dict[K, tuple[int, V]] = {}
        self._order: list[tuple[int, K]] = []  # by number; some are outdated

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._newest)

    def get(self, key: K) -> V | None:
        """Return the value of a key; ``None`` if it has none."""
        found = self._newest.get(key)
        return None if found is None else found[1]

    def known(self) -> set[K]:
        """Return all keys."""
        return set(self._newest)

    def put(self, key: K, value: V) -> None:
        """Record a change, under the next number."""
        self.number += 1
        self._newest[key] = self.number, value
        self._order.append((self.number, key))
        self._tidy()

    def discard(self, key: K) -> None:
        """Forget a key."""
        if self._newest.pop(key, None) is not None:
            self._tidy()

    def clear(self) -> None:
        """Forget all keys. Numbers go on."""
        self._newest.clear()
        self._order.clear()

    def after(self, number: int) -> Iterator[tuple[int, K, V]]:
        """Yield the changes after a number, the oldest first: number, key and value.

        Nothing may change meanwhile.
        """
        order = self._order
        for index in range(bisect_right(order, number, key=lambda each: each[0]), len(order)):
            at, key = order[index]
            if self._is_newest(at, key):
                yield at, key, self._newest[key][1]

    def _tidy(self) -> None:
        if len(self._order) > 2 * len(self._newest) + _SPARE:
            self._order = [each for each in self._order if self._is_newest(*each)]

    def _is_newest(self, number: int, key: K) -> bool:
        found = self._newest.get(key)
        return found is not None and found[0] == number
