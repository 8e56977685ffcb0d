"""Limits on connections, in the test's process, with short deadlines."""

import asyncio
import gc
import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from celery_gateway.http import guard, input_turns
from celery_gateway.http.guard import ServerLimits
from celery_gateway.http.input_turns import InputScheduler
from celery_gateway.http.uvicorn_direct.http_connection import DirectHTTP
from celery_gateway.http.uvicorn_direct.websocket_connection import DirectWebSocket
from celery_gateway.stream.limits import Limits
from tests.support.attacks import GET, WEBSOCKET, frame
from tests.support.served_gateway import ServedGateway, until

SLOW_SECONDS = 0.4
EVENT = {"type": "test", "hostname": "", "timestamp": 0.0}


@asynccontextmanager
async def opened(
    limits: Limits | None = None, *, max_connections: int = 1_000, slow_seconds: float = SLOW_SECONDS
) -> AsyncIterator[ServedGateway]:
    gateway = ServedGateway()
    gateway.send_buffer_bytes = 16 << 10
    gateway.server_limits = ServerLimits(limits or gateway.pipeline.limits, max_connections, slow_seconds)
    async with gateway.opened():
        yield gateway


async def connect(gateway: ServedGateway, request: bytes, *, buffer_bytes: int = 0) -> socket.socket:
    client = socket.socket()
    if buffer_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", gateway.port))
    await loop.sock_sendall(client, request)
    return client


async def answer(client: socket.socket) -> bytes:
    """Return everything until the connection ends."""
    data = b""
    with suppress(ConnectionResetError):
        async with asyncio.timeout(30):
            while part := await asyncio.get_running_loop().sock_recv(client, 1 << 16):
                data += part
    client.close()
    return data


@pytest.mark.parametrize(
    ("request_bytes", "begins"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"GET", b"", id="part-of-a-line"),
        pytest.param(GET, b"", id="part-of-a-head"),
        pytest.param(GET + b"\r\n" + GET, b"HTTP/1.1 200", id="part-of-the-second"),
        pytest.param(GET + b"Content-Length: 9\r\n\r\n", b"HTTP/1.1 200", id="part-of-a-body"),
        pytest.param(WEBSOCKET[:-2], b"", id="part-of-a-handshake"),
        pytest.param(
            b"POST /nothing HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"HTTP/1.1 404",
            id="part-of-trailers",
        ),
    ],
)
async def test_an_incomplete_request_times_out(
    request_bytes: bytes, begins: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "REQUEST_SECONDS", 0.2)
    async with opened() as gateway:
        client = await connect(gateway, request_bytes)
        assert (await answer(client)).startswith(begins)
        await until(lambda: not gateway.server.server_state.connections)
        assert gateway.pipeline.limits.refused["slow-request"] == bool(request_bytes)
        assert gateway.pipeline.limits.memory.used == 0


async def test_complete_requests_and_streams_do_not_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "REQUEST_SECONDS", 0.1)
    async with opened() as gateway:
        idle = await connect(gateway, GET + b"\r\n")
        streams = [
            await connect(gateway, b"GET /events?type=nothing HTTP/1.1\r\nHost: a\r\n\r\n"),
            await connect(gateway, WEBSOCKET),
        ]
        await asyncio.sleep(0.4)
        assert len(gateway.server.server_state.connections) == 3
        assert not gateway.pipeline.limits.refused
        for client in (idle, *streams):
            client.close()


@pytest.mark.parametrize("keeps_alive", [True, False])
async def test_an_unread_response_times_out(keeps_alive: bool) -> None:
    async with opened() as gateway:
        gateway.hub.append({**EVENT, "text": "x" * (8 << 20)})
        id = gateway.hub.id
        ending = b"" if keeps_alive else b"Connection: close\r\n"
        client = await connect(
            gateway, b"GET /events/%b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (id, ending), buffer_bytes=4096
        )
        await until(lambda: gateway.pipeline.limits.memory.used > 1 << 20)
        await until(lambda: not gateway.server.server_state.connections)
        assert gateway.pipeline.limits.refused["slow-response"] == 1
        await until(lambda: gateway.pipeline.limits.memory.used == 0)
        client.close()


@pytest.mark.timing
async def test_a_response_that_is_read_slowly_continues() -> None:
    async with opened() as gateway:
        gateway.hub.append({**EVENT, "text": "x" * (1 << 20)})
        request = b"GET /events/%b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % gateway.hub.id
        client = await connect(gateway, request, buffer_bytes=4096)
        received = 0
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + 3 * SLOW_SECONDS
        while loop.time() < ends_at:
            received += len(await loop.sock_recv(client, 8 << 10))
            await asyncio.sleep(0.01)
        received += len(await answer(client))
        assert received > 1 << 20
        assert not gateway.pipeline.limits.refused


async def test_a_keep_alive_connection_with_an_unread_response_times_out() -> None:
    """The rest fits into the buffer, so the application has ended, and the keep-alive timeout closes."""
    async with opened() as gateway:
        gateway.hub.append({**EVENT, "text": "x" * 90_000})
        request = b"GET /events/%b HTTP/1.1\r\nHost: a\r\n\r\n" % gateway.hub.id
        client = await connect(gateway, request, buffer_bytes=4096)
        await until(lambda: gateway.server.server_state.total_requests == 1)
        (connection,) = gateway.server.server_state.connections
        assert 0 < connection.transport.get_write_buffer_size() < 64 << 10
        connection.timeout_keep_alive_handler()
        await until(lambda: not gateway.server.server_state.connections)
        assert gateway.pipeline.limits.refused["slow-response"] == 1
        client.close()


async def test_line_ends_between_requests_do_not_reset_the_keep_alive_timeout() -> None:
    async with opened() as gateway:
        gateway.config.timeout_keep_alive = 1
        client = await connect(gateway, GET + b"\r\n")
        received = b""
        while not received.endswith(b"}"):
            received += await _first(client)
        loop = asyncio.get_running_loop()
        began = loop.time()
        while gateway.server.server_state.connections and loop.time() - began < 5:
            with suppress(OSError):
                await loop.sock_sendall(client, b"\r\n")
            await asyncio.sleep(0.1)
        assert not gateway.server.server_state.connections
        client.close()


async def test_each_pipelined_request_has_its_own_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "REQUEST_SECONDS", 1.5)
    async with opened() as gateway:
        client = await connect(gateway, GET[:20])
        loop = asyncio.get_running_loop()
        request = GET + b"\r\n"
        for _ in range(8):  # a read never ends where a request does
            await asyncio.sleep(0.25)
            await loop.sock_sendall(client, request[20:] + request[:20])
        received = b""
        async with asyncio.timeout(30):
            while received.count(b"HTTP/1.1 200") < 8:
                received += await _first(client)
        assert not gateway.pipeline.limits.refused
        client.close()


async def test_the_deadline_does_not_run_while_the_gateway_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pipelined request waits for the response to the one before, which may take long."""
    monkeypatch.setattr(guard, "REQUEST_SECONDS", 0.3)
    async with opened(slow_seconds=30) as gateway:
        gateway.hub.append({**EVENT, "text": "x" * (2 << 20)})
        first = b"GET /events/%b HTTP/1.1\r\nHost: a\r\n\r\n" % gateway.hub.id
        client = await connect(gateway, first + GET, buffer_bytes=4096)
        loop = asyncio.get_running_loop()
        received, ends_at = 0, loop.time() + 0.8
        while loop.time() < ends_at:
            received += len(await loop.sock_recv(client, 16 << 10))
            await asyncio.sleep(0.01)
        assert not gateway.pipeline.limits.refused
        await loop.sock_sendall(client, b"Connection: close\r\n\r\n")
        rest = await answer(client)
        assert received + len(rest) > 2 << 20 and b"HTTP/1.1 200" in rest[-300:]


async def test_a_websocket_request_behind_an_unfinished_response_is_rejected() -> None:
    async with opened() as gateway:
        gateway.hub.append({**EVENT, "text": "x" * (1 << 20)})
        first = b"GET /events/%b HTTP/1.1\r\nHost: a\r\n\r\n" % gateway.hub.id
        client = await connect(gateway, first + WEBSOCKET, buffer_bytes=4096)
        received = await answer(client)
        assert received.count(b"HTTP/1.1 ") == 1 and len(received) > 1 << 20, (
            "it is answered alone, and whole"
        )


async def test_the_rest_of_a_rejected_request_does_not_reset_the_connection() -> None:
    async with opened() as gateway:
        client = await connect(gateway, b"GET /%b" % (b"x" * 70_000))
        loop = asyncio.get_running_loop()
        for _ in range(5):
            await asyncio.sleep(0.02)
            await loop.sock_sendall(client, b"x" * 10_000)
        assert (await answer(client)).startswith(b"HTTP/1.1 414")


async def test_bodies_of_queued_requests_are_charged() -> None:
    async with opened() as gateway:
        gateway.hub.append({**EVENT, "text": "x" * (4 << 20)})
        first = b"GET /events/%b HTTP/1.1\r\nHost: a\r\n\r\n" % gateway.hub.id
        client = await connect(gateway, first, buffer_bytes=4096)
        await until(lambda: gateway.pipeline.limits.memory.used > 1 << 20)
        await asyncio.sleep(0.05)
        before = gateway.pipeline.limits.memory.used
        post = b"POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n" + b"x" * 50_000
        await asyncio.get_running_loop().sock_sendall(client, post)
        await until(lambda: gateway.pipeline.limits.memory.used >= before + 50_000)
        client.close()
        await until(lambda: gateway.pipeline.limits.memory.used == 0)


async def test_an_unexpected_error_does_not_end_the_turns_of_others(caplog: pytest.LogCaptureFixture) -> None:
    turns = InputScheduler()
    begun: list[int] = []

    def fail() -> float:
        raise ZeroDivisionError("a bug")

    turns.add("a", lambda: input_turns.TURN_SECONDS)
    turns.add("a", fail)
    turns.add("a", lambda: begun.append(1) or 0.0)
    await until(lambda: bool(begun))
    turns.add("a", fail)
    turns.add("a", lambda: begun.append(2) or 0.0)
    assert begun == [1, 2] and "ZeroDivisionError" in caplog.text


async def test_incomplete_requests_share_the_memory_of_their_client() -> None:
    """Incomplete requests are charged; one that exceeds the memory is refused."""
    limits = Limits(memory_bytes=400_000)
    async with opened(limits) as gateway:
        half_sent = [
            await connect(gateway, GET + b"".join(b"x: %b\r\n" % (b"v" * 1_000) for _ in range(60)))
            for _ in range(10)
        ]
        await until(lambda: limits.refused["memory"] == 7)
        assert limits.memory.used <= 200_000, "one address takes at most half"
        answers = await asyncio.gather(*[asyncio.wait_for(_first(client), 1) for client in half_sent[3:]])
        assert all(first.startswith(b"HTTP/1.1 503") and b"Retry-After" in first.title() for first in answers)
        for client in half_sent:
            client.close()
        await until(lambda: limits.memory.used == 0)


async def _first(client: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(client, 1 << 16)


async def test_one_address_cannot_take_all_connections() -> None:
    async with opened(max_connections=20) as gateway:
        clients = [await connect(gateway, b"") for _ in range(20)]
        await until(lambda: gateway.pipeline.limits.refused["connections"] == 2)
        assert len(gateway.server.server_state.connections) == 18
        clients[0].close()
        await until(lambda: len(gateway.server.server_state.connections) == 17)
        clients.append(await connect(gateway, GET + b"Connection: close\r\n\r\n"))
        assert (await answer(clients.pop())).startswith(b"HTTP/1.1 200")
        for client in clients:
            client.close()


async def test_the_memory_of_a_partial_message_is_charged() -> None:
    async with opened() as gateway:
        before = gateway.pipeline.limits.memory.used
        client = await connect(gateway, WEBSOCKET)
        await until(lambda: gateway.hub.statistics().subscriptions == 1)
        idle = gateway.pipeline.limits.memory.used
        assert 0 < idle - before < 50_000
        await asyncio.get_running_loop().sock_sendall(client, frame(b"x" * 200_000)[:-1])
        await until(lambda: gateway.pipeline.limits.memory.used >= idle + 199_000)
        client.close()
        await until(lambda: gateway.pipeline.limits.memory.used == before)


@pytest.mark.parametrize(
    "partial",
    [
        pytest.param(frame(b'{"op":"ping"}')[:-1], id="part-of-a-frame"),
        pytest.param(frame(b"{", is_final=False), id="fragment"),
        pytest.param(frame(b"{", is_final=False) + frame(b"x", 9), id="fragment-and-ping"),
    ],
)
async def test_an_incomplete_message_times_out(partial: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "REQUEST_SECONDS", 0.2)
    async with opened() as gateway:
        client = await connect(gateway, WEBSOCKET)
        idle = await connect(gateway, WEBSOCKET)
        loop = asyncio.get_running_loop()
        for data in (frame(b'{"op":"ping"}'), frame(b"x", 9), partial):
            await loop.sock_sendall(client, data)
            await loop.sock_sendall(idle, frame(b"x", 9))
        received = await answer(client)
        assert b'"reason":"limit"' in received
        assert gateway.pipeline.limits.refused == {"slow-request": 1}
        assert gateway.hub.statistics().subscriptions == 1, "pings alone have no deadline"
        idle.close()


async def test_a_closed_connection_is_freed_without_the_garbage_collector(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Requests and their connection refer to each other; the cycle is broken explicitly."""
    caplog.set_level(logging.CRITICAL, "asyncio")

    def left() -> list[Any]:
        kinds = (RequestResponseCycle, DirectHTTP, DirectWebSocket)
        return [each for each in gc.get_objects() if isinstance(each, kinds)]

    async with opened() as gateway:
        gc.collect()
        gc.disable()
        try:
            for request in (
                (GET + b"\r\n") * 500,
                GET + b"\r\n",
                GET,
                b"GET /events?type=nothing HTTP/1.1\r\nHost: a\r\n\r\n",
                b"GET /events?type=nothing HTTP/1.0\r\n\r\n",
                WEBSOCKET,
                b"POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
                b"GET /ws?x=%b HTTP/1.1\r\n" % (b"v" * 9_000) + WEBSOCKET.partition(b"\r\n")[2],
            ):
                for _ in range(5):
                    client = await connect(gateway, request)
                    await asyncio.sleep(0.01)
                    client.close()
            await until(lambda: not gateway.server.server_state.connections)
            await until(lambda: not left(), 2)
        finally:
            gc.enable()


async def test_input_is_processed_round_robin_by_address() -> None:
    turns = InputScheduler()
    begun: list[str] = []

    def process(name: str) -> float:
        begun.append(name)
        return input_turns.TURN_SECONDS / 4

    for number in range(20):
        turns.add("greedy", lambda number=number: process(f"greedy {number}"))  # type: ignore[misc]
    turns.add("honest", lambda: process("honest"))
    assert len(begun) == 4, "as many as fit into a turn"
    await asyncio.sleep(0)
    assert begun.index("honest") == 5
    for _ in range(10):
        await asyncio.sleep(0)
    assert begun == [
        *(f"greedy {number}" for number in range(5)),
        "honest",
        *(f"greedy {number}" for number in range(5, 20)),
    ]


async def test_messages_sent_before_the_handshake_response_are_not_lost() -> None:
    async with opened() as gateway:
        client = await connect(gateway, WEBSOCKET + frame(b'{"op":"ping"}'))
        received = b""
        async with asyncio.timeout(30):
            while b"gateway-pong" not in received:
                received += await _first(client)
        await asyncio.get_running_loop().sock_sendall(client, frame(b'{"op":"ping"}'))
        async with asyncio.timeout(30):
            while received.count(b"gateway-pong") < 2:
                received += await _first(client)
        client.close()


async def test_what_follows_a_refused_handshake_is_not_parsed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(input_turns, "TURN_SECONDS", 1e-9)  # all input has to wait
    async with opened() as gateway:
        close = frame(b"\x03\xe8", opcode=8)
        requests = [
            handshake + rest
            for handshake in (
                WEBSOCKET.replace(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: short"),
                WEBSOCKET.replace(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 7"),
            )
            for rest in (close, frame(b"a") + close, close + frame(b"a"), close + close)
        ]
        clients = [await connect(gateway, b"") for _ in requests]
        for client, request in zip(clients, requests, strict=True):
            client.send(request)
        for client, request in zip(clients, requests, strict=True):
            assert re.match(rb"HTTP/1.1 4\d\d ", await answer(client)), request
        assert not caplog.records


async def test_health_checks_work_for_an_address_without_memory_left() -> None:
    async with opened() as gateway:
        limits = gateway.pipeline.limits
        half = limits.memory.limit // 2
        assert limits.memory.reserve("127.0.0.1").resize(half)
        client = await connect(gateway, GET + b"Connection: close\r\n\r\n")
        assert (await answer(client)).startswith(b"HTTP/1.1 200")
        client = await connect(gateway, b"GET /events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await answer(client)).startswith(b"HTTP/1.1 503")
        await until(lambda: limits.memory.used == half)
