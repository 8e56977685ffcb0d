"""Terms: which id each position has.

Rules:

- An id is ``<term>-<position>``. A log that lies in memory has one term. In a shared log each leader begins
  another one (``log.order``).
- A term has the positions from its first entry to the last one before the next term. The position before the
  first entry of the oldest known term has that term, too.
- An id is valid if its position is one of its term. A position may be ahead of what was read: then it counts
  as one of the newest term.

Pure.
"""

from bisect import bisect_right
from collections.abc import Sequence

from celery_gateway.log.order import MAX_TERMS


class Terms:
    """The known terms of a log.

    Args:
        terms: each with the position of its first entry, the oldest first; at least one.

    Attributes:
        known: the terms, as they were set.
        newest: the newest term.
        newest_from: from here on, every position is one of the newest term.
    """

    __slots__ = ("known", "newest", "newest_from", "_names", "_firsts")

    def __init__(self, terms: Sequence[tuple[str, int]]) -> None:
        self.set(terms)

    def set(self, terms: Sequence[tuple[str, int]]) -> None:
        """Replace all terms, for example when older ones have become known."""
        self.known = tuple(terms)
        self._names = [name for name, _ in terms]
        self._firsts = [first for _, first in terms]
        self.newest = self._names[-1]
        self.newest_from = self._firsts[-1] - (len(self._firsts) == 1)

    def begin(self, term: str, first: int) -> None:
        """Add a term, whose first entry will have the position ``first``."""
        terms = [each for each in self.known if each[1] < first]
        self.set([*terms, (term, first)][-MAX_TERMS:])

    @property
    def known_after(self) -> int:
        """The position from which on all positions have a known term."""
        return self._firsts[0] - 1

    def term_of(self, position: int) -> str | None:
        """Return the term of a position; ``None`` if it is older than the known terms."""
        if position >= self.newest_from:
            return self.newest
        if position < self.known_after:
            return None
        return self._names[max(0, bisect_right(self._firsts, position) - 1)]

    def id_of(self, position: int) -> bytes:
        """Return the id of a position; one that is not valid if it is older than the known terms."""
        return b"%b-%d" % ((self.term_of(position) or self._names[0]).encode(), position)

    def position_of(self, id: str) -> int | None:
        """Return the position of a valid id, possibly ahead of what was read; ``None`` for other texts."""
        found = split(id)
        if found is None:
            return None
        term, position = found
        return position if self.term_of(position) == term else None


def split(id: str) -> tuple[str, int] | None:
    """Return the term and the position in an id; ``None`` if the text has another form."""
    term, _, digits = id.partition("-")
    if not term or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        return None
    return term, int(digits)
