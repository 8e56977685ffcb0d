"""Remote control, as Celery calls it: the little that a gateway says to the workers of one broker."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from gateway.event import Event

Named = Iterable[tuple[str, str]]
"""The names of tasks: (uuid, name)."""


class Remote:
    """Talks to the workers of one broker.

    Args:
        urls: the broker's, as Celery takes them; the next one is tried where one fails.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls

    async def run(self, know: Callable[[Named], None]) -> None:
        """Talk until cancelled; ``know`` is given the names of tasks, in the event loop."""
        await asyncio.Event().wait()

    def saw(self, event: Event) -> None:
        """Take note of a ``worker-…`` event."""

    def warm(self) -> None:
        """Ask for the names of what is under way: the gateway has begun to listen."""
