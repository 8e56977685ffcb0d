"""How a stream begins in a shared log: what has to be awaited before ``Hub.subscribe``.

Rules:

- Another gateway may be ahead. An id that this one does not know may be of entries that it has not read yet:
  it is unknown only once everything was read that is in the log now. If that is not possible soon, another
  gateway may do better, so the request is refused.
- Where a stream resumes, the entries are read from the log first, so that ``gateway-open`` has the truth
  about them. If the log cannot be read now, the stream begins, and waits itself.
- A time before the history is looked up in the log.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from celery_gateway.errors import Evicted
from celery_gateway.log.engine import LogError
from celery_gateway.stream.history import Entry, History
from celery_gateway.stream.older import OlderEntries
from celery_gateway.stream.terms import split

LOOKUP_SECONDS = 10.0
"""Maximum time to look something up in the log; then it counts as an error."""

log = logging.getLogger(__name__)


class Beginnings:
    """Waits for ids and for the log.

    Args:
        history: that of the hub.

    Attributes:
        catch_up: returns once everything was read that is in the log now, or raises ``LogError``.
    """

    def __init__(self, history: History) -> None:
        self.catch_up: Callable[[], Awaitable[None]] | None = None
        self._history = history

    def is_at_once(self, last_event_id: str | None, since: float | None) -> bool:
        """Return whether nothing has to be awaited."""
        if last_event_id is None:
            return since is None
        position = self._history.position_of(last_event_id)
        return position is not None and not self._is_in_log(position)

    async def reach(self, id: str) -> int | None:
        """Return the position of an id; wait for one that may be in the log, but was not read yet.

        Returns:
            ``None`` if it is not one of this log.

        Raises:
            LogError: this gateway cannot know that now.
        """
        position = self._history.position_of(id)
        if position is None and self.catch_up is not None and split(id) is not None:
            await self.catch_up()
            position = self._history.position_of(id)
        return position

    async def position(
        self,
        older: OlderEntries,
        last_event_id: str | None,
        since: float | None,
        position_since: int,
        client: str,
    ) -> int | None:
        """Wait until a stream can begin.

        Args:
            last_event_id, since: see ``Hub.subscribe``.
            position_since: where ``since`` begins in the history.
            client: who asks.

        Returns:
            Where ``since`` begins; ``None`` if the stream does not begin there, or it cannot be looked up.

        Raises:
            LogError: see ``reach``.
        """
        position = None if last_event_id is None else await self.reach(last_event_id)
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                if position is not None:
                    if self._is_in_log(position):
                        await older.load(position, client)
                    if position >= older.first_position:
                        return None
                evicted = self._history.evicted
                if since is None or not evicted or position_since > evicted:
                    return None if since is None else position_since
                found = await (older.position_since(since) if since else older.find_first())
                return min(found, position_since)
        except (LogError, TimeoutError) as error:
            log.warning("log: where a stream begins could not be looked up: %s", error or "it takes too long")
        return None

    async def entry(self, id: str, client: str) -> Entry | None:
        """Return the entry with an id; see ``Hub.find_entry``."""
        history, older = self._history, self._history.older
        position = history.position_of(id) if older is None else await self.reach(id)
        if not position:
            return None
        if older is None or not self._is_in_log(position - 1):
            return history.entry(position)
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                await older.load(position - 1, client)
        except TimeoutError:
            raise LogError("reading the log takes too long") from None
        if older.next_position(position - 1) >= position:
            raise Evicted(f"the entry at position {position} is not in the log any more")
        entries = older.entries_after(position - 1, 1)
        if not entries:
            raise LogError("too much is read from the log at the same time")
        return entries[0]

    def _is_in_log(self, position: int) -> bool:
        return position < self._history.evicted
