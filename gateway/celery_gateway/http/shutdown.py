"""The shutdown of the server around a mounted gateway: how it is detected, and how open requests end.

Rules: ASGI has no message for the start of a shutdown: a server sends ``lifespan.shutdown`` when all
responses have ended, and a stream does not end by itself. So the start is detected from the server:

- uvicorn (also as gunicorn's worker): its ``shutdown`` is wrapped, and waits for the drain first;
- hypercorn: it sets an event before it waits for its connections;
- any other: the server's handlers of SIGINT and SIGTERM are called after the drain has started.

The first two are found as the coroutine that runs in this event loop and awaits the start of the application.
Both servers wait until clients have read the buffers of their connections, so connections that are still open
at the deadline are aborted. Our own server (``http.server``) ends its streams itself; only its other requests
are ended here.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, NamedTuple

import uvicorn
from starlette.types import Scope

from celery_gateway.http.headers import RESPONDING_KEY

MOUNTED_DRAIN_SECONDS = 2.5
"""Maximum time for open requests to end, in seconds; then they are aborted."""
RESPOND_SECONDS = 0.5
"""Requests whose response has not started get a 503 this long before."""
POLL_SECONDS = 0.05
BEFORE_SECONDS = 0.5
"""Connections are aborted this long before hypercorn's own timeout (3 s by default), when it logs errors."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)

_MARK = "celery_gateway"
"""A key in the ``state`` of requests to a gateway."""


class Requests:
    """The open requests.

    Attributes:
        cutters: functions of servers that abort the connection of a request, if it is theirs.
    """

    def __init__(self) -> None:
        self._open: dict[asyncio.Timeout, Scope] = {}
        self.cutters: list[Callable[[Scope], bool]] = []

    @contextmanager
    def tracked(self, scope: Scope, limit: asyncio.Timeout) -> Iterator[None]:
        """Count a request within the block.

        Args:
            limit: is rescheduled when the request has to end.
        """
        if isinstance(state := scope.get("state"), dict):
            state[_MARK] = True
        self._open[limit] = scope
        try:
            yield
        finally:
            del self._open[limit]

    def cut(self, scope: Scope) -> bool:
        """Abort the connection of a request; return whether a server has done so."""
        return any([cutter(scope) for cutter in self.cutters])

    async def end(self, seconds: float = MOUNTED_DRAIN_SECONDS) -> None:
        """Wait until all requests have ended, at most ``seconds``; then abort the others.

        Those without a response end ``RESPOND_SECONDS`` before, with a 503 (``asgi``).
        """
        await self._wait(seconds - RESPOND_SECONDS)
        self._expire(lambda scope: scope["type"] == "http" and not scope.get(RESPONDING_KEY, True))
        await self._wait(min(seconds, RESPOND_SECONDS))
        for scope in tuple(self._open.values()):
            self.cut(scope)
        self._expire(lambda _: True)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._open:  # noqa: ASYNC110
                    await asyncio.sleep(POLL_SECONDS)

    def _expire(self, is_meant: Callable[[Scope], bool]) -> None:
        now = asyncio.get_running_loop().time()
        for limit, scope in tuple(self._open.items()):
            if is_meant(scope):
                with suppress(RuntimeError):  # it has expired, and the request is about to end
                    limit.reschedule(now)


class _Drained(NamedTuple):
    """A gateway to drain; ``begin`` ends its streams."""

    begin: Callable[[], None]
    requests: Requests


@contextmanager
def drained_on_shutdown(begin: Callable[[], None], requests: Requests) -> Iterator[None]:
    """Within the block, call ``begin`` when the server starts to shut down, and let all requests end."""
    gateway = _Drained(begin, requests)
    servers, hypercorns = _find_servers()
    undo: list[Callable[[], object]]
    undo = [_Drain.of(server).add(gateway) for server in servers]
    undo += [asyncio.create_task(_drain_after(frame, gateway)).cancel for frame in hypercorns]
    if not servers and not hypercorns:
        undo = _drain_at_signals(gateway)
    try:
        yield
    finally:
        for call in undo:
            call()


def _find_servers() -> tuple[set[uvicorn.Server], list[FrameType]]:
    """Return the servers of this event loop: those of uvicorn, and the frames of those of hypercorn."""
    frames = tuple(_awaiting())
    callers = [frame.f_locals.get("self") for frame in frames]
    servers = {caller for caller in callers if isinstance(caller, uvicorn.Server)}
    return servers, list(filter(_is_hypercorn, frames))


def _awaiting() -> Iterator[FrameType]:
    """Yield the frames of all coroutines that wait in this loop, the outermost of each task first."""
    for task in asyncio.all_tasks():
        coroutine: Any = task.get_coro()
        while coroutine is not None:
            frame = getattr(coroutine, "cr_frame", None)
            if frame is not None:
                yield frame
            coroutine = getattr(coroutine, "cr_await", None)


def _is_own(server: uvicorn.Server) -> bool:
    return getattr(server, "ends_streams", False) is True


class _Drain:
    """Replaces ``shutdown`` of one server of uvicorn, for all gateways that it serves."""

    def __init__(self, server: uvicorn.Server) -> None:
        self._server = server
        self._shut_down = server.shutdown
        self._gateways: list[_Drained] = []

    @classmethod
    def of(cls, server: uvicorn.Server) -> "_Drain":
        """Return the drain of a server; make it if there is none."""
        present: Any = server.shutdown
        if isinstance(present, cls):
            return present
        vars(server)["shutdown"] = drain = cls(server)
        return drain

    def add(self, gateway: _Drained) -> Callable[[], object]:
        """Drain a gateway, too; return a function that undoes it."""
        self._gateways.append(gateway)
        gateway.requests.cutters.append(self._cut)

        def undo() -> None:
            self._gateways.remove(gateway)
            gateway.requests.cutters.remove(self._cut)

        return undo

    async def __call__(self, *args: Any, **options: Any) -> None:
        if _is_own(self._server):
            await self._end_requests(*args, **options)
            return
        # Responses that have ended may still be in buffers at the deadline, and uvicorn waits for them.
        deadline = asyncio.get_running_loop().call_later(MOUNTED_DRAIN_SECONDS, self._abort, _is_marked)
        try:
            for gateway in self._gateways:
                gateway.begin()
            await asyncio.gather(*(gateway.requests.end() for gateway in self._gateways))
            await self._shut_down(*args, **options)
        finally:
            deadline.cancel()

    async def _end_requests(self, *args: Any, **options: Any) -> None:
        """Shut down, and end requests before the server cancels them and logs tracebacks."""
        ending = [asyncio.create_task(gateway.requests.end()) for gateway in self._gateways]
        try:
            await self._shut_down(*args, **options)
        finally:
            for task in ending:
                task.cancel()
            for gateway in self._gateways:  # a second signal ends the drain
                await gateway.requests.end(0)
            await asyncio.sleep(POLL_SECONDS)

    def _cut(self, scope: Scope) -> bool:
        state = scope.get("state")  # middleware may have copied the scope, but not this
        return state is not None and self._abort(lambda own: own is state)

    def _abort(self, is_meant: Callable[[Any], bool]) -> bool:
        """Abort the connections whose last request had such a state; return whether there were any."""
        connections = self._server.server_state.connections
        meant = [each for each in connections if any(map(is_meant, _states(each)))]
        for connection in meant:
            # Not close, as uvicorn does: it waits until the client has read the buffer.
            connection.transport.abort()
        return bool(meant)


def _states(connection: Any) -> Iterator[Any]:
    """Yield the states in the scopes of the last two requests of a connection of uvicorn.

    Our own connections may receive a request while an earlier one is being responded to.
    """
    for request in (getattr(connection, "cycle", connection), getattr(connection, "responding_cycle", None)):
        scope = getattr(request, "scope", None) or {}
        yield scope.get("state")


def _is_marked(state: Any) -> bool:
    return bool(state) and _MARK in state


def _is_hypercorn(frame: FrameType) -> bool:
    module: str = frame.f_globals.get("__name__", "")
    return module.startswith("hypercorn.") and frame.f_code.co_name == "worker_serve"


async def _drain_after(frame: FrameType, gateway: _Drained) -> None:
    """Drain when hypercorn sets its event."""
    # It exists once the application has started; no event reports that.
    while (context := frame.f_locals.get("context")) is None:  # noqa: ASYNC110
        await asyncio.sleep(POLL_SECONDS)
    await context.terminated.wait()
    gateway.begin()
    seconds = max(MOUNTED_DRAIN_SECONDS, frame.f_locals["config"].graceful_timeout - BEFORE_SECONDS)
    await asyncio.gather(gateway.requests.end(), asyncio.sleep(seconds))
    # hypercorn waits for the clients even after its own timeout.
    for task in tuple(frame.f_locals["server_tasks"]):
        writer = task.get_coro().cr_frame.f_locals.get("writer")
        if writer is not None:  # HTTP/3 has none
            writer.transport.abort()


def _drain_at_signals(gateway: _Drained) -> list[Callable[[], object]]:
    """Drain before the server's signal handlers run; return functions that undo it."""
    undo: list[Callable[[], object]] = []
    if threading.current_thread() is threading.main_thread():
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()

        def drain() -> None:
            gateway.begin()
            tasks.add(loop.create_task(gateway.requests.end()))

        for number in SIGNALS:
            before = signal.getsignal(number)
            # The default handler of Python ends the process, or the main task, without a drain.
            if callable(before) and before is not signal.default_int_handler:
                handler = _Handler(before, partial(loop.call_soon_threadsafe, drain))
                signal.signal(number, handler)
                signal.siginterrupt(number, False)  # as event loops set it
                undo.append(partial(handler.undo, number))
    return undo


class _Handler:
    """A signal handler that runs before another one."""

    def __init__(
        self, before: Callable[[int, FrameType | None], Any], on_signal: Callable[[], object]
    ) -> None:
        self._before = before
        self._on_signal = on_signal
        # Other libraries find the server as the object that the handler is a method of.
        self.__self__ = getattr(before, "__self__", None)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._on_signal()
        self._before(number, frame)

    def undo(self, number: int) -> None:
        """Restore the previous handler unless another one was installed since."""
        current: object = signal.getsignal(number)
        if current is self:
            signal.signal(number, self._before)
