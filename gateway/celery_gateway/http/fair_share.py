"""Fair shares of time for large requests, and cancellation of requests whose clients have disconnected.

Rules: one request at a time has the turn, for about ``SLICE_SECONDS``. Turns are round-robin among clients
(principals, or IP addresses), and first come, first served among the requests of a client. So a client with
a hundred large requests takes no more time from another client than a client with a single request.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import Final, Self

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from celery_gateway.access.quota import UNLIMITED, Place, Quota
from celery_gateway.errors import OverLimit
from celery_gateway.stream.round_robin import RoundRobin

SLICE_SECONDS: Final = 0.001
"""How long a request has the turn, in seconds; at most one step longer."""
MAX_QUEUED: Final = 200
"""Maximum number of queued requests of a client without a quota. Behind a proxy it may be all users."""


class TurnQueue:
    """Grants one turn at a time to requests, round-robin by client.

    Attributes:
        granted: number of turns so far.
    """

    def __init__(self) -> None:
        self.granted = 0
        self._is_taken = False
        self._queue: RoundRobin[asyncio.Future[None]] = RoundRobin()

    def queued(self, client: str) -> int:
        """Return the number of queued requests of a client."""
        return self._queue.count(client)

    async def acquire(self, client: str) -> None:
        """Wait for a turn."""
        if not self._is_taken:
            self._is_taken = True
            self.granted += 1
            return
        await self._wait(self._enqueue(client))

    async def requeue(self, client: str) -> None:
        """End the turn of a request, and wait for its next one."""
        turn = self._enqueue(client)  # first: or the next client would have two turns
        self.release()
        await self._wait(turn)

    def release(self) -> None:
        """End the turn; the next one starts in the next turn of the event loop."""
        while self._queue:
            turn = self._queue.pop()
            if not turn.done():
                self.granted += 1
                turn.set_result(None)
                return
        self._is_taken = False

    def _enqueue(self, client: str) -> asyncio.Future[None]:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.add(client, turn)
        return turn

    async def _wait(self, turn: asyncio.Future[None]) -> None:
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # granted at the same moment
                self.release()
            else:
                self._queue.discard(turn)
            raise


class StartLimiter:
    """Starts one request in each turn of the event loop, or continues one whose body is complete.

    Parsing the parameters of a request may take some milliseconds, and hundreds of requests may become
    complete at once.
    """

    def __init__(self) -> None:
        self._turns = TurnQueue()

    async def wait(self, client: str) -> None:
        """Wait until a request of a client may start."""
        await self._turns.acquire(client)
        asyncio.get_running_loop().call_soon(self._turns.release)


class FairShare:
    """Holds the turn for a request, and passes it on after ``SLICE_SECONDS``.

    Between two turns the event loop runs everything else that is ready.

    Args:
        client: the address of the client, or the name of its principal.
        quota: that of the principal.

    Raises:
        OverLimit: too many requests of the client are queued (on entry).
    """

    def __init__(self, turns: TurnQueue, client: str, quota: Quota = UNLIMITED) -> None:
        self._turns = turns
        self._client = client
        self._quota = quota
        self._place: Place | None = None
        self._has_turn = False
        self._ends_at = 0.0

    async def __aenter__(self) -> Self:
        if self._quota is UNLIMITED and self._turns.queued(self._client) >= MAX_QUEUED:
            raise OverLimit(
                "lookups",
                f"too many requests: {MAX_QUEUED} of this client are queued, the maximum; "
                "send fewer at the same time",
            )
        self._place = self._quota.reserve("lookups")
        try:
            await self._turns.acquire(self._client)
        except BaseException:
            self._place.release()
            raise
        self._begin()
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._place is not None:
            self._place.release()
        if self._has_turn:
            self._turns.release()

    @property
    def is_over(self) -> bool:
        """Whether the turn is over, so that ``pause`` is due."""
        return perf_counter() >= self._ends_at

    async def checkpoint(self) -> None:
        """Wait for the next turn if this one is over. Any state may have changed on return."""
        if perf_counter() >= self._ends_at:
            await self.pause()

    async def pause(self) -> None:
        """Wait for the next turn."""
        await asyncio.sleep(0)  # with the turn, or the next would start before the loop has run the rest
        self._has_turn = False
        await self._turns.requeue(self._client)
        self._begin()

    def _begin(self) -> None:
        self._has_turn = True
        self._ends_at = perf_counter() + SLICE_SECONDS


@asynccontextmanager
async def while_connected(receive: Receive) -> AsyncIterator[None]:
    """Run the block as long as the client of a request is connected.

    Args:
        receive: that of the request. The body is read and dropped.

    Raises:
        ClientDisconnect: the client has disconnected, and the block was cancelled.
    """
    watch: asyncio.Task[None] | None = None
    limit = asyncio.timeout(None)
    try:
        async with limit:
            watch = asyncio.create_task(_watch(receive, limit))
            yield
    except TimeoutError:
        if limit.expired():
            raise ClientDisconnect from None
        raise
    finally:
        if watch is not None:
            watch.cancel()


async def _watch(receive: Receive, limit: asyncio.Timeout) -> None:
    with suppress(Exception):  # a server's error here is reported by its connection, too
        while (await receive())["type"] != "http.disconnect":
            pass
        limit.reschedule(asyncio.get_running_loop().time())
