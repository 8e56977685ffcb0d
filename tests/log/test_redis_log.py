"""The log in Redis: failover, lost messages, other servers, TLS, permissions, prefixes, retention."""

import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from celery_gateway.broker.urls import Access, brokers
from celery_gateway.errors import SourceError
from celery_gateway.log.engine import FIRST, LogError, LogGone, Stored
from celery_gateway.log.redis_entries import entries_of, id_of, offset_of
from celery_gateway.log.redis_log import RedisLog
from tests.log.test_engines import DEADLINE_SECONDS, MANY, append_all, name, numbers, opened, tailing
from tests.support import certificates
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer, Sentinels, redis_server

__all__ = ["name"]  # a fixture

MIB = 1 << 20


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RedisServer]:
    with redis_server(folder) as server:
        yield server


def log_at(
    url: str, name: str, *, age_seconds: float = 3_600.0, max_bytes: int = 64 * MIB, **access: Any
) -> RedisLog:
    (broker,) = brokers(url, Access(**access))
    return RedisLog(
        broker.urls, access=broker.access, name=name, age_seconds=age_seconds, max_bytes=max_bytes
    )


@asynccontextmanager
async def following(engine: RedisLog) -> AsyncIterator[list[Stored]]:
    """Read everything, and open the log again whenever the connection is lost."""
    got: list[Stored] = []

    async def follow() -> None:
        while True:
            with suppress(LogError):
                await engine.open()
                await engine.tail(got[-1].offset + 1 if got else FIRST, got.append)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(follow())
    try:
        yield got
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await engine.close()


async def write(engine: RedisLog, messages: list[bytes], read_back: list[Stored]) -> None:
    """Append messages, each again and again until it is read back."""
    for data in messages:
        while not any(each.data == data for each in reversed(read_back)):
            with suppress(LogError):
                engine.append(data)
            deadline = asyncio.get_running_loop().time() + 1.0
            while asyncio.get_running_loop().time() < deadline:
                if read_back and read_back[-1].data == data:
                    break
                await asyncio.sleep(0.001)


async def test_the_log_goes_on_at_the_new_master(tmp_path: Path, name: str) -> None:
    with Sentinels(tmp_path) as sentinels:
        options = {"master_name": "mymaster"}
        writer = log_at(sentinels.url, name, transport_options=options)
        reader = log_at(sentinels.url, name, transport_options=options)
        async with asyncio.timeout(60), following(writer) as read_back, following(reader) as got:
            await write(writer, numbers(0, 200), read_back)
            with sentinels.replica.client() as client:
                while client.xlen(name) < len(read_back):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            sentinels.master.stop()
            await write(writer, numbers(200, 400), read_back)
            while len(got) < len(read_back):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            assert got == read_back
            assert list(dict.fromkeys(each.data for each in got)) == numbers(0, 400)
            assert sentinels.current() == sentinels.replica.port


async def test_a_failover_that_loses_what_was_read_is_reported(server: RedisServer, name: str) -> None:
    async with opened(log_at(server.url, name)) as engine:
        stored = await append_all(engine, numbers(0, 10))
        await engine.close()
        with server.client() as client:
            client.xdel(name, id_of(stored[-1].offset))
        await engine.open()
        with pytest.raises(LogGone, match="lost"):
            await engine.tail(stored[-1].offset + 1, lambda _: None)
        await engine.open()
        assert await engine.read(FIRST, limit_bytes=MANY) == stored[:-1]


async def test_what_retention_has_removed_is_not_reported_as_lost(server: RedisServer, name: str) -> None:
    async with opened(log_at(server.url, name)) as engine:
        stored = await append_all(engine, numbers(0, 10))
        await engine.trim(stored[-1].offset + 1)
        engine.append(b"new")
        async with tailing(engine, stored[-1].offset + 1) as tail:
            await tail.count(1)
            assert tail.data == [b"new"]


async def test_a_stream_that_another_client_deletes(server: RedisServer, name: str) -> None:
    """An append does not create it again, and later messages of it are not passed on."""
    async with opened(log_at(server.url, name)) as engine, tailing(engine) as tail:
        engine.append(b"x")
        await tail.count(1)
        with server.client() as client:
            client.delete(name)
            engine.append(b"y")
            assert isinstance(await tail.error(), LogGone)
            assert not client.exists(name)
        with pytest.raises(LogGone):
            engine.append(b"z")
        await engine.open()
        assert await append_all(engine, [b"z"])


async def test_a_replica_is_passed_over(server: RedisServer, tmp_path: Path, name: str) -> None:
    with redis_server(tmp_path, "--replicaof", f"127.0.0.1 {server.port}") as replica:
        with pytest.raises(LogError, match="read-only replica"):
            await log_at(replica.url, name).open()
        async with opened(log_at(f"{replica.url},{server.url}", name)) as engine:
            assert engine.place == ("redis", f"127.0.0.1:{server.port}", name)
            assert await append_all(engine, [b"x"])


async def test_a_server_that_is_away(server: RedisServer, name: str) -> None:
    with Proxy(server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        async with opened(log_at(url, name, transport_options={"socket_timeout": 0.4})) as engine:
            for fault in (proxy.cut, proxy.hang_up, proxy.stall):
                async with tailing(engine) as tail:
                    await append_all(engine, [b"%s" % fault.__name__.encode()])
                    fault()
                    assert not isinstance(await tail.error(), LogGone)
                with pytest.raises(LogError):
                    engine.append(b"lost")
                proxy.resume()
                async with asyncio.timeout(DEADLINE_SECONDS):
                    while True:
                        with suppress(LogError):
                            await engine.open()
                            break
                assert len(await append_all(engine, [fault.__name__.encode() + b"-after"])) == 1
            proxy.refuse()
            with pytest.raises(LogError, match=f"127.0.0.1:{proxy.port}"):
                await engine.read(FIRST, limit_bytes=1)


async def test_appended_messages_are_sent_before_it_closes(server: RedisServer, name: str) -> None:
    async with opened(log_at(server.url, name)) as engine:
        for each in numbers(0, 1_000):
            engine.append(each)
    with server.client() as client:
        assert client.xlen(name) == 1_000


async def test_reads_that_are_cancelled_leave_nothing_behind(server: RedisServer, name: str) -> None:
    """A reply of a cancelled command never becomes that of a later one."""
    async with opened(log_at(server.url, name)) as engine:
        stored = await append_all(engine, [b"%06d" % number * 50 for number in range(300)])
        for turn in range(60):
            reads = [
                asyncio.create_task(engine.read(stored[(turn * 7 + n) % 300].offset, limit_bytes=MANY))
                for n in range(6)
            ]
            for _ in range(turn % 12):
                await asyncio.sleep(0)
            for read in reads[::2]:
                read.cancel()
            for n, read in enumerate(reads):
                with suppress(asyncio.CancelledError):
                    assert await read == stored[(turn * 7 + n) % 300 :]


async def test_prefix_and_database(server: RedisServer, name: str) -> None:
    url = server.url.removesuffix("0") + "3?global_keyprefix=shop."
    async with opened(log_at(url, name)) as engine:
        assert engine.place.name == f"shop.{name}"
        await append_all(engine, [b"x"])
        with server.client(db=3) as client:
            assert client.type(f"shop.{name}") == b"stream"
        await engine.delete()
        with server.client(db=3) as client:
            assert client.keys() == []


async def test_a_user_with_few_permissions(server: RedisServer, name: str) -> None:
    """The error has the command that gives what is missing, and that is enough."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "gateway", "on", ">secret", "+hello", "+client", "+select")
        url = server.url.replace("redis://", "redis://gateway:secret@")
        with pytest.raises(LogError, match="permission") as caught:
            await log_at(url, name).open()
        assert "secret" not in str(caught.value)
        words = str(caught.value).partition(" ACL SETUSER ")[2].split()
        client.execute_command("ACL", "SETUSER", *[word.strip("'") for word in words])
        async with opened(log_at(url, name)) as engine:
            stored = await append_all(engine, numbers(0, 10))
            assert await engine.read(FIRST, limit_bytes=MANY) == stored
            await engine.trim(stored[-1].offset)
            await engine.delete()


async def test_a_key_that_is_no_stream(server: RedisServer, name: str) -> None:
    with server.client() as client:
        client.set(name, "x")
    with pytest.raises(LogError, match=f"{name} at .* is not a stream"):
        await log_at(server.url, name).open()


async def test_a_full_server(server: RedisServer, name: str) -> None:
    async with opened(log_at(server.url, name)) as engine, tailing(engine) as tail:
        with server.client() as client:
            client.config_set("maxmemory", 1)
            try:
                engine.append(b"private")
                engine.append(b"private")
                error = str(await tail.error())
                assert "no memory" in error and "private" not in error
            finally:
                client.config_set("maxmemory", 0)
        await engine.open()
        assert await append_all(engine, [b"y"])


async def test_tls(server: RedisServer, tmp_path: Path, name: str) -> None:
    files = certificates.create(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    with Proxy(server.port, tls=context) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0"
        for options in (f"?ssl_ca_certs={files.cert}&ssl_cert_reqs=required", "?ssl_cert_reqs=none", ""):
            async with opened(log_at(url + options, name)) as engine:
                assert await append_all(engine, [options.encode() + b" "])
        with pytest.raises(LogError, match="certificate"):
            await log_at(f"{url}?ssl_cert_reqs=required", name).open()


async def test_a_socket_in_the_file_system(tmp_path: Path, name: str) -> None:
    path = tmp_path / "redis.sock"
    with redis_server(tmp_path, "--unixsocket", str(path)):
        async with opened(log_at(f"redis+socket://{path}?virtual_host=2", name)) as engine:
            assert await append_all(engine, [b"x"])
            assert engine.place.address == str(path)


async def test_age(server: RedisServer, name: str) -> None:
    """Whole blocks of entries are removed, so a few stay longer."""
    async with opened(log_at(server.url, name, age_seconds=0.3)) as engine:
        old = await append_all(engine, [bytes(1_000)] * 200)
        await asyncio.sleep(0.4)
        await engine.close()
        await engine.open()  # the first append of a connection checks
        await append_all(engine, [b"new"])
        async with asyncio.timeout(DEADLINE_SECONDS):
            left = old
            while left[0].offset == old[0].offset:
                await asyncio.sleep(0.02)
                left = await engine.read(FIRST, limit_bytes=MANY)
        assert len(left) < 20 and left[-1].data == b"new"


def test_unknown_options_of_tls_are_refused() -> None:
    with pytest.raises(SourceError, match="cannot be read: .*ssl_nothing"):
        log_at("rediss://localhost", "x", tls={"ssl_nothing": "x"})


def test_without_the_package() -> None:
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from celery_gateway.broker.urls import brokers\n"
        "from celery_gateway.log.factory import engine_for\n"
        "engine_for('redis://:secret@h', brokers('amqp://a'), prefix='p', age_seconds=60, max_bytes=1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "run: pip install 'celery-gateway[redis]'" in done.stderr and "secret" not in done.stderr


def test_offsets_and_ids() -> None:
    assert offset_of(b"5-7") == (5 << 20) + 7 and id_of((5 << 20) + 7) == "5-7"
    assert id_of(FIRST) == "0-0" and id_of((5 << 20) - 1) == "4-1048575"
    with pytest.raises(LogError, match="clock"):
        offset_of(b"5-1048576")


def test_entries_of_other_programs_are_left_out() -> None:
    pairs = [[b"data", b"x", b"written", b"70"], [b"other", b"x"], None]
    found = entries_of([[b"1-%d" % number, each] for number, each in enumerate(pairs)])
    assert [entry.data for entry in found] == [b"x"]
