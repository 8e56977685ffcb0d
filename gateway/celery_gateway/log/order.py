"""The order of the log: which of its messages count, and the position of each entry.

Every gateway reads the same messages in the same order, and applies the same rules, so that all agree:

- A ``claim`` begins a term. Batches of another term than that of the last claim do not count: a leader that
  was stopped and wakes up cannot change the log.
- Positions follow on each other. A batch that begins at an earlier position was sent twice, one that begins
  later follows a batch that was lost and will be sent again: neither counts.
- A reader that begins in the middle learns the position and the term from the first batch.

An id is ``<term>-<position>``. Pure.
"""

from bisect import bisect_right

from celery_gateway.log.batch import Batch, Held, Reached

MAX_TERMS = 1_000
"""How many terms are remembered; ids of earlier ones are unknown."""


class Forked(Exception):
    """The reader began with batches of a leader that did not lead any more: begin again after them."""


class Order:
    """What one reader knows of the log.

    Attributes:
        position: that of the last entry; ``None`` until it is known.
        term: the term of the last claim, or that of the first batch.
        terms: the terms that are known, each with its first position, the oldest first.
        leader: the name of the gateway that leads; ``""`` if none does.
        at: when the last batch was written, in epoch seconds.
        reached: by cluster; see ``Head``.
        held: the encoded events that wait, by number.
        written_bytes: see ``Head``.
        secret: see ``Head``; ``""`` until it is known.
    """

    def __init__(self) -> None:
        self.position: int | None = None
        self.term = ""
        self.terms: list[tuple[str, int]] = []
        self.leader = ""
        self.at = 0.0
        self.reached: dict[str, Reached] = {}
        self.held: dict[int, bytes] = {}
        self.written_bytes = 0
        self.secret = ""
        self._has_claim = False

    def on_batch(self, batch: Batch) -> bool:
        """Take in a message, and return whether its entries count.

        Raises:
            Forked: see there.
        """
        head = batch.head
        if head.kind == "claim":
            self._on_claim(head.term, head.gateway)
        elif head.kind == "resign" and head.term == self.term:
            self.leader = ""
        if head.kind != "batch":
            return False
        if head.term != self.term:
            if self.term and self._has_claim:
                return False  # of a leader that has been replaced
            if self.position is not None:
                raise Forked("a batch of another term without a claim")
            self.term = head.term
        if self.position is None:
            self._begin(head.first)
        assert self.position is not None
        if head.terms and head.terms[-1][0] == self.term:
            self.terms = head.terms[-MAX_TERMS:]
            self.secret = head.secret or self.secret
        self.leader = head.gateway
        if head.first != self.position + 1 or head.at < self.at:
            return False  # sent twice, or too early; an empty batch that was sent twice has an earlier time
        self.position += len(batch.lines)
        self.at = max(self.at, head.at)
        self.reached |= head.reached
        self.written_bytes = max(self.written_bytes, head.written_bytes)
        self._hold(batch)
        return True

    def begin_empty(self) -> None:
        """Begin at the first entry: everything was read, and there was none."""
        self._begin(1)

    def term_of(self, position: int) -> str | None:
        """Return the term of an entry; ``None`` if it is older than the terms that are known."""
        at = bisect_right(self.terms, position, key=lambda each: each[1]) - 1
        return self.terms[at][0] if at >= 0 else None

    def _on_claim(self, term: str, gateway: str) -> None:
        self.term, self.leader, self._has_claim = term, gateway, True
        if self.position is not None:
            self._add_term()

    def _begin(self, first: int) -> None:
        self.position = first - 1
        self._add_term()

    def _add_term(self) -> None:
        assert self.position is not None
        first = self.position + 1
        if self.terms and self.terms[-1][1] == first:
            self.terms.pop()  # it has no entries
        self.terms.append((self.term, first))
        del self.terms[:-MAX_TERMS]

    def _hold(self, batch: Batch) -> None:
        for number, json in batch.held:
            self.held[number] = json
        for line in batch.lines:
            if line.held:
                self.held.pop(line.held, None)


def held_of(order: Order) -> list[Held]:
    """Return the events that wait, in the order of their arrival."""
    return [Held(number, json) for number, json in sorted(order.held.items())]
