"""The position of the last flush, and what waits for a later one. Pure."""

from collections.abc import Callable


class Flushed:
    """Up to where live subscriptions have got everything.

    Attributes:
        position: of the last flush; each flush sets it, and calls what ``due`` returns.
        waiting: functions to call, each with a position, in the order of the calls of ``after``.
    """

    __slots__ = ("position", "waiting")

    def __init__(self, position: int = 0) -> None:
        self.position = position
        self.waiting: dict[Callable[[], None], int] = {}

    def after(self, position: int, call: Callable[[], None]) -> None:
        """Let the next flush that reaches a position call a function, once."""
        self.waiting[call] = position

    def discard(self, call: Callable[[], None]) -> None:
        """Do not call a function, if it was to be called."""
        self.waiting.pop(call, None)

    def due(self) -> list[Callable[[], None]]:
        """Remove and return the functions whose position was flushed."""
        due = [call for call, goal in self.waiting.items() if goal <= self.position]
        for call in due:
            del self.waiting[call]
        return due
