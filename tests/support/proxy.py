"""A TCP proxy of the tests: a network between the gateway and its broker that can be broken in many ways.

It listens on a free port of 127.0.0.1 and runs an event loop in a thread of its own. Its methods may be
called from any thread, and what they are named for has happened when they return.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable, Coroutine
from contextlib import suppress
from threading import Thread
from typing import Any, Self

from tests.support.rabbitmq import free_port

_CHUNK_BYTES = 1 << 16
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: closing sends RST, not FIN

Writer = asyncio.StreamWriter


class Proxy:
    """Forwards to `target_port` of 127.0.0.1. With `tls` its clients speak TLS, which the target does not."""

    def __init__(self, target_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.port = free_port()
        self.target_port = target_port
        self.connects = 0
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True, name="proxy")
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._answer: bytes | None = None
        self._writers: set[Writer] = set()
        self._carriers: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self.resume()
        return self

    def __exit__(self, *exception: object) -> None:
        self.refuse()
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def url(self, broker_url: str) -> str:
        """The broker's URL by way of this proxy."""
        return broker_url.replace(f":{self.target_port}/", f":{self.port}/")

    def cut(self) -> None:
        """Every connection is reset (RST); new ones are welcome."""
        self._call(self._drop(reset=True))

    def hang_up(self) -> None:
        """Every connection is closed in good order (FIN); new ones are welcome."""
        self._call(self._drop(reset=False))

    def stall(self) -> None:
        """A pulled cable: connections stay and new ones are taken, but not a byte passes either way."""
        self._call_soon(self._flowing.clear)

    def refuse(self) -> None:
        """Nobody listens any more, and every connection is reset."""
        self._call(self._refuse())

    def answer(self, greeting: bytes) -> None:
        """A stranger at the broker's port: every connection is reset, and new ones get this greeting."""
        self._call_soon(lambda: setattr(self, "_answer", greeting))
        self.cut()

    def resume(self) -> None:
        """All is well again; what was on its way through a stalled connection goes on."""
        self._call(self._resume())

    def _call(self, step: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(10)

    def _call_soon(self, step: Callable[[], object]) -> None:
        async def run() -> None:
            step()

        self._call(run())

    async def _resume(self) -> None:
        self._answer = None
        self._flowing.set()
        if self._server is None:
            # reuse_address is asyncio's default: old connections in TIME_WAIT are no hindrance.
            self._server = await asyncio.start_server(
                self._accept,
                "127.0.0.1",
                self.port,
                ssl=self._tls,
                ssl_handshake_timeout=5 if self._tls else None,
            )

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._drop(reset=True)

    async def _drop(self, *, reset: bool) -> None:
        for writer in tuple(self._writers):
            _close(writer, reset=reset)
        carriers = tuple(self._carriers)
        for carrier in carriers:
            carrier.cancel()
        await asyncio.gather(*carriers, return_exceptions=True)

    async def _end(self) -> None:
        await self._drop(reset=True)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        carrier = asyncio.current_task()
        assert carrier is not None
        self._carriers.add(carrier)
        self._writers.add(writer)
        self.connects += 1
        try:
            # A cancelled handler would be reported by asyncio's streams: it is meant here.
            with suppress(asyncio.CancelledError, OSError):
                await self._serve(reader, writer)
        finally:
            self._carriers.discard(carrier)
            self._writers.discard(writer)
            _close(writer, reset=False)

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        if self._answer is not None:
            writer.write(self._answer)
            await reader.read(_CHUNK_BYTES)
            return
        await self._flowing.wait()
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        self._writers.add(to_writer)
        directions = [
            asyncio.create_task(self._carry(reader, to_writer)),
            asyncio.create_task(self._carry(to_reader, writer)),
        ]
        try:
            await asyncio.wait(directions)
        finally:
            for direction in directions:
                direction.cancel()
            self._writers.discard(to_writer)
            _close(to_writer, reset=False)

    async def _carry(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        """One direction, until its end; an end (FIN) waits for the flow like any byte."""
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        await self._flowing.wait()
        _close(writer, reset=False)


def _close(writer: Writer, *, reset: bool) -> None:
    if reset:
        with suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        writer.transport.abort()
    else:
        writer.close()
