"""Large requests for state: their share of time, and their responses in the making."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from celery_gateway.http.fair_share import FairShare, TurnQueue, while_connected
from celery_gateway.http.json_response import JSONBuilder
from celery_gateway.http.query_params import client_of, quota_of
from celery_gateway.stream.limits import Limits


class Work(NamedTuple):
    """What a large request works with: its share of time, and its response in the making."""

    share: FairShare
    builder: JSONBuilder


class StateWork:
    """The work of large requests, which take turns.

    Args:
        limits: those of all clients.
        slow_seconds: how long a client may make no progress in reading a large response, in seconds.
    """

    def __init__(self, limits: Limits, slow_seconds: float) -> None:
        self._limits = limits
        self._slow_seconds = slow_seconds
        self._turns = TurnQueue()

    def builder(self, request: Request) -> JSONBuilder:
        """Return the builder of a response."""
        return JSONBuilder(self._limits, client_of(request), self._slow_seconds)

    @asynccontextmanager
    async def begin(self, request: Request) -> AsyncIterator[Work]:
        """Run the block in turns, as long as the client is connected."""
        builder = self.builder(request)
        try:
            async with (
                while_connected(request.receive),
                FairShare(self._turns, client_of(request), quota_of(request)) as share,
            ):
                yield Work(share, builder)
        except BaseException:
            builder.release()
            raise


def until_disconnect(
    endpoint: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that ends quietly when its client disconnects."""

    async def respond(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientDisconnect:
            return Response()  # it has no receiver

    return respond
