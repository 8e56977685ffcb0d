"""What a replica tells the gateway that it is a part of."""

from typing import Protocol

from celery_gateway.log.batch import Batch, Reached


class Restart(Exception):
    """The tables of this gateway do not follow from the log: begin again with empty ones.

    Attributes:
        reached: how far the sources were processed, if the log itself has it no more.
    """

    def __init__(self, reason: str, reached: dict[str, Reached] | None = None) -> None:
        super().__init__(reason)
        self.reached = reached or {}


class Follower(Protocol):
    """What a replica tells: the calls are made in the order of the log. None may block or raise."""

    def on_begin(self, position: int, terms: list[tuple[str, int]]) -> None:
        """Begin after an entry; the terms are those that are known."""

    def on_term(self, term: str) -> None:
        """Begin a term: the next entries are of it."""

    def on_batch(self, batch: Batch, *, is_own: bool) -> None:
        """Process entries that are in the log now; ``is_own``: this gateway has written them."""

    def on_warm(self) -> None:
        """Everything that was in the log at the start has been read."""

    def on_lead(self) -> None:
        """This gateway leads: read the sources, and write."""

    def on_follow(self) -> None:
        """This gateway does not lead any more."""

    def on_connection(self, reason: str) -> None:
        """The log cannot be reached, for this reason; ``""``: it can again."""
