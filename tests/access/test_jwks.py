"""Keys behind a URL: a real server that rotates them, fails, is slow, or sends too much."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from celery_gateway.access import jwks as jwks_module
from celery_gateway.access.jwks import MAX_BYTES, Jwks
from tests.support.token_issuer import JwksServer, jwk, jwks_server, segment

pytestmark = pytest.mark.unit


@pytest.fixture
def server() -> Iterator[JwksServer]:
    with jwks_server() as server:
        server.keys = [jwk("ES256", 0)]
        yield server


@pytest.fixture
async def keys(server: JwksServer) -> AsyncIterator[Jwks]:
    keys = Jwks(server.url, "ES256")
    yield keys
    await keys.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests may follow each other at once."""
    monkeypatch.setattr(jwks_module, "MIN_INTERVAL_SECONDS", 0.0)


def kids(keys: Jwks) -> list[str | None]:
    return [key.key_id for key in keys.keys]


async def test_keys_are_fetched_and_rotate(server: JwksServer, quick: None) -> None:
    changes: list[int] = []
    keys = Jwks(server.url, "ES256", lambda: changes.append(1))
    assert keys.keys == ()
    await keys.fetch()
    assert kids(keys) == ["0"] and len(changes) == 1
    await keys.fetch()
    assert len(changes) == 1  # the same document
    server.keys = [jwk("ES256", 1), jwk("RS256", 2), {"kty": "oct", "k": segment(b"x" * 32), "kid": "3"}]
    await keys.fetch()
    assert kids(keys) == ["1"] and len(changes) == 2


async def test_requests_are_limited(server: JwksServer, keys: Jwks) -> None:
    """A thousand unknown keys cause one request."""
    await asyncio.gather(*(keys.fetch() for _ in range(1_000)))
    for _ in range(100):
        await keys.fetch()
    keys.start_if_due()
    await keys.fetch()
    assert server.requests == 1 and kids(keys) == ["0"]


async def test_the_end_of_one_caller_is_not_that_of_the_others(server: JwksServer, keys: Jwks) -> None:
    server.delay.clear()
    first, second = asyncio.create_task(keys.fetch()), asyncio.create_task(keys.fetch())
    async with asyncio.timeout(30):
        while not server.requests:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    server.delay.set()
    await second
    assert kids(keys) == ["0"] and server.requests == 1


async def test_old_keys_are_refreshed(
    server: JwksServer, keys: Jwks, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    monkeypatch.setattr(jwks_module, "REFRESH_SECONDS", 0.2)
    keys.start_if_due()
    await keys.fetch()
    fetched_at = time.monotonic()
    server.keys = [jwk("ES256", 1)]
    async with asyncio.timeout(30):
        while kids(keys) != ["1"]:
            keys.start_if_due()
            await asyncio.sleep(0.01)
    assert time.monotonic() - fetched_at >= 0.15 and server.requests == 2


@pytest.mark.parametrize(
    ("status", "headers", "body", "reason"),
    [
        (500, {}, None, "status 500"),
        (404, {}, None, "status 404"),
        (302, {"Location": "https://eve.example/"}, None, "redirects"),
        (307, {"Location": "/other"}, None, "redirects"),
        (200, {}, b"<html>", "Expecting value"),
        (200, {}, b"\xff\xfe", ""),
        (200, {}, b'{"keys": []}', "none of its 0 keys is for ES256"),
        (200, {}, b"[" * 100_000, "recursion"),
        (200, {}, b" " * (MAX_BYTES + 1), f"more than {MAX_BYTES} bytes"),
        (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b\x08\x00", ""),
    ],
)
async def test_an_outage_leaves_the_keys(
    server: JwksServer,
    keys: Jwks,
    caplog: pytest.LogCaptureFixture,
    quick: None,
    status: int,
    headers: dict[str, str],
    body: bytes | None,
    reason: str,
) -> None:
    await keys.fetch()
    server.status, server.headers, server.body = status, headers, body
    for _ in range(5):
        await keys.fetch()
    assert kids(keys) == ["0"] and server.requests == 6
    (record,) = caplog.records  # once a minute
    assert record.levelno == logging.WARNING
    assert reason in record.getMessage() and "the keys from before stay valid" in record.getMessage()
    server.status, server.headers, server.body, server.keys = 200, {}, None, [jwk("ES256", 1)]
    await keys.fetch()
    assert kids(keys) == ["1"]


async def test_a_slow_issuer_is_given_up(
    server: JwksServer, keys: Jwks, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks_module, "TIMEOUT_SECONDS", 0.3)
    server.delay.clear()
    await keys.fetch()  # it returns, although the issuer never responds
    assert "its tokens are refused" in caplog.text and keys.keys == ()


async def test_a_server_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    with jwks_server() as server:
        url = server.url
    keys = Jwks(url + "?key=very-secret", "ES256")
    await keys.fetch()
    assert url in caplog.text and "very-secret" not in caplog.text


async def test_the_proxy_of_the_environment_is_not_used_for_loopback(
    server: JwksServer, keys: Jwks, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    await keys.fetch()
    assert kids(keys) == ["0"]


async def test_https_verifies_certificates(server: JwksServer, caplog: pytest.LogCaptureFixture) -> None:
    """A server without TLS at an https address: nothing is sent in plain text instead."""
    keys = Jwks(server.url.replace("http://127.0.0.1", "https://localhost"), "ES256")
    await keys.fetch()
    assert keys.keys == () and "cannot fetch the keys" in caplog.text and server.requests == 0
