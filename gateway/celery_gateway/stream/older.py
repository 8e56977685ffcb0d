"""The interface to entries that are older than the memory of a gateway. ``log_entries`` implements it.

Pure.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from celery_gateway.stream.history import Entry


class Waiter(Protocol):
    """One that waits until there is something to read."""

    @property
    def client(self) -> str:
        """The address of its client, or the name of its principal: waiting clients take turns."""

    def on_ready(self) -> None:
        """Read again: what it has waited for may be there. Must not raise."""


class OlderEntries(Protocol):
    """Entries that the history has evicted, or never had, and that are still in a log."""

    @property
    def first_position(self) -> int:
        """Entries up to this position are gone, as far as it is known."""

    def next_position(self, position: int) -> int:
        """Return where a reader goes on after a position: there, or later if the entries between are gone."""

    def entries_after(self, position: int, limit: int) -> "Sequence[Entry] | None":
        """Return at most ``limit`` entries after a position, at least one.

        Returns:
            ``None`` if they are not in memory now: call ``request``, and later ``next_position`` again.
        """

    def request(self, position: int, waiter: Waiter) -> None:
        """Read the entries after a position from the log, and call the waiter once. Errors are retried.

        A waiter waits for one position at a time.
        """

    def discard(self, waiter: Waiter) -> None:
        """Forget a waiter, if it waits."""

    async def load(self, position: int, client: str = "") -> None:
        """Return once the entries after a position are in memory, or are known to be gone.

        Raises:
            LogError: the log cannot be read now.
        """

    async def find_first(self) -> int:
        """Return ``first_position`` as it is now.

        Raises:
            LogError: the log cannot be read now.
        """

    async def position_since(self, at: float) -> int:
        """Return the position before the first entry that was written at a time or later (epoch seconds).

        Returns:
            ``first_position`` if all were written later; a position that the history has if none was.

        Raises:
            LogError: the log cannot be read now.
        """
