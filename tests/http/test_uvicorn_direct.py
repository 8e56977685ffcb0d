"""Connections that write streams directly, in the test's process, so that it can read their buffers."""

import asyncio
import json
import logging
from typing import Any

import pytest

from celery_gateway.broker.source import Sink
from celery_gateway.http.uvicorn_direct import connection as connections
from tests.support.served_gateway import QuietSource, ServedGateway, until, websocket_request

HIGH_WATER_BYTES = 64 << 10
CLOSE_FRAME = bytes([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8])  # masked with zeros, 1000


class CrashingSource(QuietSource):
    """A source that raises an unexpected error."""

    async def run(self, sink: Sink) -> None:
        raise ZeroDivisionError("a bug")


async def fill(gateway: ServedGateway, connection: Any) -> int:
    """Append events until the transport's buffer has some bytes, but less than its limit."""
    for number in range(100_000):
        if 0 < (held := connection.transport.get_write_buffer_size()) < HIGH_WATER_BYTES:
            return int(held)
        gateway.hub.append({"type": "test", "n": number, "text": "x" * 10_000})
        gateway.hub.flush()
        if number % 50 == 0:
            await asyncio.sleep(0)
    raise AssertionError("the buffer did not fill")


@pytest.mark.parametrize("then", ["slow", "drain", "end", "more"])
async def test_a_close_of_a_client_while_its_buffer_drains_ends_only_its_stream(
    then: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CLOSE_SECONDS", 1.0)
    caplog.set_level(logging.WARNING)
    async with ServedGateway().opened() as gateway:
        client, connection = await gateway.connect(websocket_request())
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /events?type=none HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"gateway-open" in await reader.readuntil(b"gateway-status")
        await fill(gateway, connection)
        subscription = connection._subscription
        await asyncio.get_running_loop().sock_sendall(client, CLOSE_FRAME)
        await until(lambda: subscription.is_ended)
        if then == "slow":
            await asyncio.sleep(0)
        elif then == "drain":
            gateway.hub.close()
        elif then == "end":
            subscription.end("ready")
        else:
            gateway.hub.append({"type": "test", "n": -1})
            gateway.hub.flush()
        if then != "drain":
            for _ in range(3):  # the others are kept alive
                async with asyncio.timeout(30):
                    await reader.readuntil(b"gateway-bookmark")
        await until(lambda: connection not in gateway.server.server_state.connections)
        assert gateway.hub.statistics().subscriptions == (0 if then == "drain" else 1)
        writer.close()
        client.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("request_text", ["/events", "/events?format=ndjson", "/ws"])
async def test_a_drained_connection_is_not_aborted(
    request_text: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio's own transports, as in this event loop, cannot be aborted after that."""
    monkeypatch.setattr(connections, "CLOSE_SECONDS", 1.0)
    async with ServedGateway().opened() as gateway:
        loop = asyncio.get_running_loop()
        is_websocket = request_text == "/ws"
        client, connection = await gateway.connect(
            websocket_request() if is_websocket else f"GET {request_text} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        await fill(gateway, connection)
        if is_websocket:
            await loop.sock_sendall(client, CLOSE_FRAME)
        else:
            gateway.hub.close()
        while await loop.sock_recv(client, 1 << 20):
            pass
        await until(lambda: connection not in gateway.server.server_state.connections)
        await asyncio.sleep(1.1 * connections.CLOSE_SECONDS)
        client.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_an_error_in_a_keepalive_does_not_affect_other_streams(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with ServedGateway().opened() as gateway:
        client, connection = await gateway.connect("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /events?type=none HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"gateway-status")

        def fails() -> bytes:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(connection._subscription.cohort, "keepalive", fails)
        await until(lambda: connection not in gateway.server.server_state.connections)
        for _ in range(3):
            async with asyncio.timeout(30):
                await reader.readuntil(b"gateway-bookmark")
        writer.close()
        client.close()
    assert "a stream failed and was closed" in caplog.text


async def test_a_crashed_source_appears_in_health_checks_and_streams(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ServedGateway(CrashingSource()).opened() as gateway:
        for path in ("/healthz", "/readyz"):
            status, body = await get(gateway.port, path)
            assert status == 503
            assert "ZeroDivisionError" in body["reason"]
            assert "a bug" not in body["reason"], "it could have a name of the broker's"
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /events?format=ndjson HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"gateway-status")
        assert b'"consuming":false' in await reader.readuntil(b"}]")
        writer.close()
    assert "restart the gateway" in caplog.text


async def get(port: int, path: str) -> tuple[int, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(body)
