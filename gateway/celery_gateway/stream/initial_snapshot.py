"""The state that a stream begins with, as a subscription reads it. ``snapshot`` makes these."""

from typing import NamedTuple, Protocol

from celery_gateway.events.matcher import Matcher

NO_RESUME = b"~"
"""Suffix of an id that cannot be resumed from: after a cut within its initial snapshot a client needs another
one."""


class SnapshotPage(NamedTuple):
    """A part of an initial snapshot.

    ``chunk``: its bytes, framed. ``position``: with the last page, where the stream continues; else ``None``.
    """

    chunk: bytes
    position: int | None


class InitialSnapshot(Protocol):
    """The state that a stream begins with, read a page at a time."""

    @property
    def read_count(self) -> int:
        """How often ``read`` was called."""

    def read(self) -> SnapshotPage | None:
        """Return the next page, or ``None`` if there is none yet.

        Raises:
            OverLimit: it needs more memory than the client may have.
        """

    def refilter(self, filter: Matcher) -> None:
        """Use another filter from now on. A last page that was returned already stays valid."""

    def close(self) -> None:
        """Release what it uses. May be called again."""
