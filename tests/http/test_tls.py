"""HTTPS and WSS: certificates, and connections over TLS with the same limits as without it."""

import asyncio
import functools
import gc
import inspect
import json
import logging
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import uvloop
import websockets.sync.client
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from celery_gateway.errors import GatewayError
from celery_gateway.http import guard
from celery_gateway.http.guard import ServerLimits
from celery_gateway.http.server import secured
from celery_gateway.http.tls import Certificate
from celery_gateway.http.tls_transport import HANDSHAKE_BYTES, TlsTransport
from celery_gateway.http.uvicorn_direct.http_connection import DirectHTTP
from celery_gateway.http.uvicorn_direct.websocket_connection import DirectWebSocket
from celery_gateway.stream.limits import Limits
from tests.support import certificates
from tests.support.attacks import GET, WEBSOCKET, frame
from tests.support.certificates import Files
from tests.support.command import call
from tests.support.gateway_process import GatewayProcess
from tests.support.rabbitmq import wait_for
from tests.support.served_gateway import ServedGateway, until

EVENT = {"type": "test", "hostname": "", "timestamp": 0.0}
SLOW_SECONDS = 0.4
HIGH_WATER_BYTES = 64 << 10


@pytest.fixture(scope="module")
def files(folder: Path) -> Files:
    return certificates.create(folder)


# The certificate


@pytest.mark.unit
def test_a_certificate_and_its_key_may_be_in_one_file(files: Files, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text(files.cert.read_text() + files.key.read_text())
    context = Certificate(str(both)).context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.unit
def test_files_that_cannot_be_used(files: Files, tmp_path: Path) -> None:
    other = certificates.create(tmp_path, "other")
    encrypted = certificates.create(tmp_path, "encrypted", password="hunter2")
    empty, binary = tmp_path / "empty.pem", tmp_path / "binary.pem"
    empty.touch()
    binary.write_bytes(bytes(range(256)))
    broken = tmp_path / "broken.pem"
    broken.write_text(files.cert.read_text().replace("M", "N"))
    cert, key = str(files.cert), str(files.key)
    for arguments, problem in [
        (("/nonexistent/a.pem", key), "cannot read the file of --tls-cert, /nonexistent/a.pem: No such file"),
        ((cert, "/nonexistent/a.key"), "cannot read the file of --tls-key, /nonexistent/a.key: No such file"),
        ((str(tmp_path), key), f"{tmp_path} has no certificate in PEM"),
        ((str(empty), key), f"{empty} has no certificate in PEM"),
        ((str(binary), key), f"{binary} has no certificate in PEM"),
        ((key, cert), f"{key} has no certificate in PEM"),
        ((cert,), f"{cert} has no private key in PEM"),
        (
            (cert, str(other.key)),
            f"the key in {other.key} does not belong to the first certificate in {cert}",
        ),
        ((str(encrypted.cert), str(encrypted.key)), f"the key in {encrypted.key} is encrypted"),
        ((str(broken), key), f"cannot use the certificate in {broken}"),
    ]:
        with pytest.raises(GatewayError, match=re.escape(problem)):
            Certificate(*arguments)


@pytest.mark.unit
def test_a_file_that_may_not_be_read(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: ssl.SSLContext, *args: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", refuse)  # root may read every file
    with pytest.raises(GatewayError, match="cannot read .*: Permission denied"):
        Certificate(str(files.cert), str(files.key))


@pytest.mark.unit
def test_changed_files_are_loaded_and_bad_ones_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    files = certificates.create(tmp_path)
    new, newer = certificates.create(tmp_path, "new"), certificates.create(tmp_path, "newer")
    certificate = Certificate(str(files.cert), str(files.key))
    first = certificate.context
    assert not any(certificate.reload() for _ in range(3)) and certificate.context is first

    os.replace(new.cert, files.cert)  # and the key follows
    assert not certificate.reload(), "it may just be being written"
    os.replace(new.key, files.key)
    assert not certificate.reload()
    assert certificate.reload() and certificate.context is not first
    assert [record.levelname for record in caplog.records] == ["INFO"]

    second = certificate.context
    shutil.copy(newer.cert, files.cert)
    assert not any(certificate.reload() for _ in range(5)) and certificate.context is second
    files.cert.unlink()
    assert not any(certificate.reload() for _ in range(5)) and certificate.context is second
    problems = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(problems) == 2
    assert "does not belong to the first certificate" in problems[0] and "No such file" in problems[1]
    assert all(problem.endswith("the certificate before stays in use") for problem in problems)

    shutil.copy(newer.cert, files.cert)
    shutil.copy(newer.key, files.key)
    assert not certificate.reload() and certificate.reload()


# Connections, in the test's process, under both event loops


def under_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test in the event loop of asyncio, and in uvloop's."""

    @functools.wraps(test)
    def run(*, loop: str, **fixtures: Any) -> None:
        factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(test(**fixtures), 30))

    own = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = own.replace(parameters=[*own.parameters.values(), loop])  # type: ignore[attr-defined]
    del run.__wrapped__  # type: ignore[attr-defined]
    return pytest.mark.parametrize("loop", ["asyncio", "uvloop"])(run)


@asynccontextmanager
async def opened(
    files: Files, limits: Limits | None = None, *, max_connections: int = 1_000
) -> AsyncIterator[ServedGateway]:
    gateway = ServedGateway()
    gateway.send_buffer_bytes = 16 << 10
    gateway.server_limits = ServerLimits(limits or gateway.pipeline.limits, max_connections, SLOW_SECONDS)
    gateway.certificate = Certificate(str(files.cert), str(files.key))
    async with gateway.opened():
        yield gateway


Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(gateway: ServedGateway, files: Files, request: bytes = b"") -> Client:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=files.client())
    writer.write(request)
    return reader, writer


async def plain(gateway: ServedGateway, data: bytes = b"") -> Client:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(data)
    return reader, writer


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Return everything until the connection ends."""
    async with asyncio.timeout(30):
        with suppress(ConnectionResetError):
            return await reader.read()
    return b""


async def read_until(reader: asyncio.StreamReader, text: bytes) -> bytes:
    async with asyncio.timeout(30):
        return await reader.readuntil(text)


class RawClient:
    """A client that reads nothing after its handshake."""

    def __init__(self, files: Files) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = files.client().wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    async def connect(self, gateway: ServedGateway) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, ("127.0.0.1", gateway.port))
        while True:
            try:
                self._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                await loop.sock_sendall(self.socket, self._outgoing.read())
                self._incoming.write(await loop.sock_recv(self.socket, 1 << 16))

    async def send(self, text: bytes) -> None:
        self._tls.write(text)
        await asyncio.get_running_loop().sock_sendall(self.socket, self._outgoing.read())


def client_hello(files: Files) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = files.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@under_both_loops
async def test_streams_carry_events_and_end_in_order(files: Files) -> None:
    async with opened(files) as gateway:
        sse, sse_writer = await connect(gateway, files, b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        ndjson, ndjson_writer = await connect(
            gateway, files, b"GET /events?format=ndjson HTTP/1.0\r\nHost: a\r\n\r\n"
        )
        websocket, websocket_writer = await connect(gateway, files, WEBSOCKET)
        readers = (sse, ndjson, websocket)
        for reader in readers:
            await read_until(reader, b"gateway-status")
        for text in ("x", "y" * 50_000, "z"):  # one is longer than a record
            gateway.hub.append({**EVENT, "text": text})
        gateway.hub.flush()
        for reader in readers:
            await read_until(reader, b'"y' + b"y" * 49_999)
            await read_until(reader, b'"z"')
        websocket_writer.write(frame(b'{"op":"ping"}'))
        await read_until(websocket, b"gateway-pong")
        gateway.pipeline.drain()
        for reader in (sse, ndjson):
            assert b"gateway-close" in await rest(reader)
        await read_until(websocket, b"\x03\xf4drain")
        websocket_writer.write(b"\x88\x82\x00\x00\x00\x00\x03\xe8")
        assert await rest(websocket) == b""
        await until(lambda: not gateway.server.server_state.connections)
        assert gateway.pipeline.limits.memory.used == 0
        for writer in (sse_writer, ndjson_writer, websocket_writer):
            writer.close()


@under_both_loops
async def test_requests_on_one_connection(files: Files) -> None:
    async with opened(files) as gateway:
        reader, writer = await connect(gateway, files, (GET + b"\r\n") * 3)
        for _ in range(3):
            assert b"HTTP/1.1 200" in await read_until(reader, b"}")
        body = b'{"until": "x"}'
        writer.write(b"POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)
        assert b"HTTP/1.1 400" in await read_until(reader, b"\r\n\r\n")
        writer.close()
        await until(lambda: not gateway.server.server_state.connections)


@under_both_loops
async def test_a_slow_reader_costs_at_most_its_buffer_and_is_dropped(files: Files) -> None:
    async with opened(files) as gateway:
        client = RawClient(files)
        await client.connect(gateway)
        await client.send(b"GET /events?type=test HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: gateway.hub.statistics().subscriptions)
        (connection,) = gateway.server.server_state.connections
        subscription = connection._subscription
        for number in range(1_000):
            gateway.hub.append({**EVENT, "n": number, "text": "x" * 10_000})
            gateway.hub.flush()
            await asyncio.sleep(0)
            assert connection.transport.get_write_buffer_size() < 4 * HIGH_WATER_BYTES
            if subscription.is_paused:
                break
        assert subscription.is_paused
        assert connection.transport.get_write_buffer_size() > 0
        await until(lambda: not gateway.server.server_state.connections)
        assert gateway.pipeline.limits.memory.used == 0
        client.socket.close()


@under_both_loops
async def test_a_slow_reader_continues_where_it_was(files: Files) -> None:
    async with opened(files) as gateway:
        reader, writer = await connect(
            gateway, files, b"GET /events?type=test&format=ndjson HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        await read_until(reader, b"gateway-open")
        (connection,) = gateway.server.server_state.connections
        subscription, number = connection._subscription, 0
        while not subscription.is_paused and number < 1_000:
            number += 1
            gateway.hub.append({**EVENT, "n": number, "text": "x" * 100_000})
            gateway.hub.flush()
            await asyncio.sleep(0)
        for _ in range(20):
            number += 1
            gateway.hub.append({**EVENT, "n": number, "text": "x" * 100_000})
        gateway.hub.append({**EVENT, "n": -1})
        gateway.hub.flush()
        received = b""
        async with asyncio.timeout(30):
            while b'"n":-1' not in received:
                received += await reader.read(1 << 20)
        got = [int(each) for each in re.findall(rb'"n":(-?\d+)', received)]
        assert got == [*range(1, number + 1), -1]
        writer.close()


@pytest.mark.parametrize("part", ["nothing", "part", "hello"])
@under_both_loops
async def test_an_incomplete_handshake_times_out(
    part: str, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "REQUEST_SECONDS", 0.2)
    hello = client_hello(files)
    async with opened(files) as gateway:
        reader, writer = await plain(gateway, {"nothing": b"", "part": hello[:100], "hello": hello}[part])
        await until(lambda: gateway.server.server_state.connections)
        assert gateway.pipeline.limits.memory.used > HANDSHAKE_BYTES
        await rest(reader)
        await until(lambda: not gateway.server.server_state.connections)
        assert gateway.pipeline.limits.refused["slow-request"] == (part != "nothing")
        assert gateway.pipeline.limits.memory.used == 0
        writer.close()


@under_both_loops
async def test_a_connection_without_a_request_times_out_after_its_handshake(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "REQUEST_SECONDS", 0.2)
    async with opened(files) as gateway:
        idle, idle_writer = await connect(gateway, files)
        half, half_writer = await connect(gateway, files, GET)
        assert await rest(idle) == b"" and await rest(half) == b""
        assert gateway.pipeline.limits.refused["slow-request"] == 1
        for writer in (idle_writer, half_writer):
            writer.close()


@under_both_loops
async def test_incomplete_handshakes_share_the_memory_and_the_places_of_their_client(files: Files) -> None:
    limits = Limits(memory_bytes=10_000_000)
    hello = client_hello(files)
    async with opened(files, limits, max_connections=300) as gateway:
        clients = [await plain(gateway, hello) for _ in range(250)]
        await until(lambda: limits.refused["memory"] > 100)
        assert limits.memory.used <= 5_000_000, "one address takes at most half"
        for _, writer in clients:
            writer.close()
        await until(lambda: not gateway.server.server_state.connections)
        assert limits.memory.used == 0
        assert gateway.server_limits.connections.used == 0
        reader, writer = await connect(gateway, files, GET + b"\r\n")
        assert b"HTTP/1.1 200" in await read_until(reader, b"}")
        writer.close()


@pytest.mark.parametrize(
    ("data", "begins"),
    [
        (GET + b"\r\n", b"HTTP/1.1 400"),
        (b"\x16\x03\x01\x00\x05hello", b""),
        (b"\x00" * 1_000, b""),
        (b"\x16\x03\x01\x40\x00\x01\x00\xff\xfc" + b"x" * 200_000, b""),
    ],
    ids=["http", "bad-hello", "zeros", "long-hello"],
)
@under_both_loops
async def test_a_client_without_tls_is_closed(data: bytes, begins: bytes, files: Files) -> None:
    async with opened(files) as gateway:
        reader, writer = await plain(gateway, data)
        received = await rest(reader)
        assert begins in received[:12] if begins else b"HTTP" not in received
        if begins:
            assert b'"code": "https-required"' in received and b"nosniff" in received
            assert b"strict-transport-security" not in received
        await until(lambda: not gateway.server.server_state.connections)
        assert gateway.pipeline.limits.memory.used == 0
        writer.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
@under_both_loops
async def test_old_versions_of_tls_are_refused(files: Files) -> None:
    async with opened(files) as gateway:
        context = files.client()
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context)
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.2"
        writer.close()


@under_both_loops
async def test_a_rejection_arrives_though_the_client_still_sends(files: Files) -> None:
    async with opened(files) as gateway:
        gateway.server.config.hsts_seconds = 7  # type: ignore[attr-defined]
        reader, writer = await connect(gateway, files, b"GET /%b" % (b"x" * 70_000))
        for _ in range(5):
            await asyncio.sleep(0.02)
            writer.write(b"x" * 10_000)
        received = await rest(reader)
        assert received.startswith(b"HTTP/1.1 414")
        assert b"strict-transport-security: max-age=7\r\n" in received
        await until(lambda: not gateway.server.server_state.connections)
        writer.close()


@under_both_loops
async def test_broken_records_after_the_handshake_end_the_connection(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(files) as gateway:
        client = RawClient(files)
        await client.connect(gateway)
        await client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: gateway.hub.statistics().subscriptions == 1)
        broken = b"\x17\x03\x03\x00\x20" + b"x" * 32
        await asyncio.get_running_loop().sock_sendall(client.socket, broken)
        await until(lambda: gateway.hub.statistics().subscriptions == 0)
        await until(lambda: not gateway.server.server_state.connections)
        client.socket.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@under_both_loops
async def test_the_end_of_the_clients_text_ends_the_connection(files: Files) -> None:
    """By `close_notify`, without an end of the TCP connection."""
    async with opened(files) as gateway:
        reader, writer = await connect(gateway, files, b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        await read_until(reader, b"gateway-open")
        writer.close()
        await until(lambda: gateway.hub.statistics().subscriptions == 0)
        await until(lambda: not gateway.server.server_state.connections)


@under_both_loops
async def test_a_paused_connection_receives_nothing_more(files: Files) -> None:
    """A client that floods a connection whose response is not read yet holds only what one read brings."""
    async with opened(files) as gateway:
        gateway.hub.append({**EVENT, "text": "x" * (8 << 20)})
        client = RawClient(files)
        await client.connect(gateway)
        await client.send(b"GET /events/%b HTTP/1.1\r\nHost: a\r\n\r\n" % gateway.hub.id)
        await until(lambda: gateway.pipeline.limits.memory.used > 1 << 20)
        (connection,) = gateway.server.server_state.connections
        post = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.send(post + b"x" * 8_000_000)
        assert not connection.transport.is_reading()
        assert len(connection._unread) + len(connection.cycle.body) < 1_000_000
        client.socket.close()


@under_both_loops
async def test_a_closed_connection_is_freed_without_the_garbage_collector(files: Files) -> None:
    def left() -> list[Any]:
        kinds = (RequestResponseCycle, DirectHTTP, DirectWebSocket, TlsTransport)
        return [each for each in gc.get_objects() if isinstance(each, kinds)]

    async with opened(files) as gateway:
        gc.collect()
        gc.disable()
        try:
            for request in (GET + b"\r\n", GET, WEBSOCKET, b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n", b""):
                for _ in range(3):
                    _, writer = await connect(gateway, files, request)
                    await asyncio.sleep(0.01)
                    writer.close()
            _, writer = await plain(gateway, b"xxx")
            await asyncio.sleep(0.01)
            writer.close()
            await until(lambda: not gateway.server.server_state.connections)
            await until(lambda: not left(), 3)
        finally:
            gc.enable()


@under_both_loops
async def test_uvicorns_own_connections_have_tls_as_well(files: Files) -> None:
    """They are used if ours do not work with the installed uvicorn."""
    gateway = ServedGateway()
    certificate = Certificate(str(files.cert), str(files.key))
    http: Any = secured("auto", certificate, gateway.server_limits)
    config = uvicorn.Config(gateway.app, http=http, lifespan="off", log_config=None, port=0)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    await gateway.pipeline.start()
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(verify=files.client()) as client:
        assert (await client.get(f"https://127.0.0.1:{port}/healthz")).status_code == 200
        async with client.stream("GET", f"https://127.0.0.1:{port}/events") as response:
            assert "gateway-open" in await anext(response.aiter_text())
    await gateway.pipeline.stop()
    server.should_exit = True
    await running


@under_both_loops
async def test_handshakes_end_at_a_shutdown(files: Files) -> None:
    async with opened(files) as gateway:
        reader, writer = await plain(gateway)
        await until(lambda: gateway.server.server_state.connections)
        gateway.server.should_exit = True
        assert await rest(reader) == b""
        writer.close()


# The command


@pytest.fixture
def served(files: Files, tmp_path: Path) -> Iterator[GatewayProcess]:
    own = Files(tmp_path / "own.pem", tmp_path / "own.key")
    shutil.copy(files.cert, own.cert)
    shutil.copy(files.key, own.key)
    gateway = GatewayProcess("memory://localhost", tmp_path, options=[*own.options, "--hsts", "60"])
    gateway.launch()
    gateway.url = gateway.url.replace("http:", "https:")
    client = httpx.Client(verify=files.client())

    def is_ready() -> bool:
        with suppress(httpx.TransportError):
            return client.get(f"{gateway.url}/readyz").status_code == 200
        return False

    assert wait_for(is_ready, 20), gateway.tail()
    yield gateway
    client.close()
    gateway.stop()


def test_clients_read_streams_over_tls(served: GatewayProcess, files: Files) -> None:
    assert f"listening on {served.url};" in served.tail()
    address = served.url.partition("//")[2]
    with (
        httpx.Client(verify=files.client()) as client,
        client.stream("GET", f"{served.url}/events") as response,
        websockets.sync.client.connect(f"wss://{address}/ws", ssl=files.client()) as websocket,
    ):
        assert response.headers["strict-transport-security"] == "max-age=60"
        lines = response.iter_lines()
        assert any("gateway-open" in line for line in lines)
        assert json.loads(websocket.recv(10))["type"] == "gateway-open"
        done = subprocess.run(
            ["curl", "-sS", "-i", "--cacert", str(files.cert), f"{served.url}/tasks"],
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.stdout.startswith("HTTP/1.1 200") and "max-age=60" in done.stdout, done.stderr
        insecure = subprocess.run(
            ["curl", "-sS", f"http://{address}/tasks"], capture_output=True, text=True, timeout=20
        )
        assert json.loads(insecure.stdout)["error"]["code"] == "https-required"
        assert served.stop() == 0
        assert any("gateway-close" in line for line in lines)
    assert "ERROR" not in served.tail(100) and "Traceback" not in served.tail(100)


def test_a_new_certificate_is_used_while_streams_stay_open(
    served: GatewayProcess, files: Files, tmp_path: Path
) -> None:
    new = certificates.create(tmp_path, "new")
    address = served.url.partition("//")[2]
    with websockets.sync.client.connect(f"wss://{address}/ws", ssl=files.client()) as websocket:
        assert json.loads(websocket.recv(10))["type"] == "gateway-open"
        os.replace(new.key, tmp_path / "own.key")
        assert wait_for(lambda: "does not belong to the first certificate" in served.tail(), 10)
        assert httpx.get(f"{served.url}/healthz", verify=files.client()).status_code == 200
        shutil.copy(new.cert, tmp_path / "own.pem")
        assert wait_for(lambda: "loaded the new certificate" in served.tail(), 10)
        assert httpx.get(f"{served.url}/healthz", verify=new.client()).status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{served.url}/healthz", verify=files.client())
        websocket.send('{"op":"ping"}')
        while json.loads(websocket.recv(10))["type"] != "gateway-pong":
            pass
    assert served.tail(100).count("does not belong") == 1


def test_a_certificate_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    encrypted = certificates.create(tmp_path, "encrypted", password="hunter2")
    options = ("serve", "--broker", "memory://localhost", "--port", "0")
    done = call(*options, "--tls-cert", str(encrypted.cert), "--tls-key", str(encrypted.key))
    assert done.returncode == 1
    assert "is encrypted" in done.stderr and "openssl pkey" in done.stderr and "Traceback" not in done.stderr
    done = call(*options, "--tls-key", str(encrypted.key))
    assert done.returncode == 2 and "--tls-key needs --tls-cert" in done.stderr
