"""`--trusted-proxies`: which headers count, of whom, and what they do to a request."""

import re
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from celery_gateway.access.proxies import MAX_HOPS, Forwarded, TrustedProxies, parse_proxy
from celery_gateway.asgi import Gateway
from celery_gateway.cli.serve import serve
from celery_gateway.http.proxy_headers import ProxyHeaders, is_trusted
from celery_gateway.settings import Settings
from tests.support.gateway_process import GatewayProcess

PROXIES = TrustedProxies(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])


def forwarded(value: str, *more: str, proto: str = "") -> Forwarded:
    headers = {"x-forwarded-for": [value, *more]} if value else {}
    return PROXIES.read(headers | ({"x-forwarded-proto": [proto]} if proto else {}))


async def seen(
    client: tuple[str, int] | None, *headers: tuple[bytes, bytes], kind: str = "http", **more: Any
) -> Any:
    """Return the scope of a request as an application behind the middleware sees it."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    scheme = "ws" if kind == "websocket" else "http"
    scope = {"type": kind, "client": client, "scheme": scheme, "headers": list(headers), **more}
    before = dict(scope)
    await ProxyHeaders(app, PROXIES)(scope, None, None)  # type: ignore[arg-type]
    assert scope == before, "it belongs to the server"
    return scopes[0]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.1.2.3", True),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("::ffff:10.1.2.3", True),
        ("2001:DB8::1", True),
        ("2001:db8::1%eth0", True),
        ("2001:db9::1", False),
        ("127.0.0.1", False),
        ("testclient", False),
        ("10.1.2.3.evil.example", False),
        ("", False),
        (None, False),
    ],
)
def test_peers(peer: str | None, trusted: bool) -> None:
    assert PROXIES.trusts(peer) is trusted
    assert not TrustedProxies().trusts(peer)


@pytest.mark.unit
def test_peers_of_a_unix_socket() -> None:
    proxies = TrustedProxies(["unix"])
    assert proxies and proxies.trusts(None) and proxies.trusts("") and not proxies.trusts("10.0.0.1")
    assert proxies.read({"x-forwarded-for": ["192.0.2.9"]}).client == ("192.0.2.9", 0)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("198.51.100.1:4711", "198.51.100.1"),
        ("1.1.1.1, 198.51.100.1", "198.51.100.1"),
        ("1.1.1.1, 198.51.100.1, 10.0.0.2, 192.0.2.7", "198.51.100.1"),
        ("1.1.1.1,198.51.100.1 ,10.0.0.2", "198.51.100.1"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),  # a client within the trusted network
        ("[2001:db9::1]:443", "2001:db9::1"),
        ("2001:DB9:0::1, 2001:db8::5", "2001:db9::1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("1.1.1.1, unknown, 10.0.0.2", "10.0.0.2"),
        ("1.1.1.1, _hidden", None),
        ("1.1.1.1,", None),
        ("", None),
        (" , ", None),
        ("999.1.1.1", None),
        ("evil.example", None),
        ("[2001:db9::1", None),
        ("[2001:db9::1]443", None),
        ("198.51.100.1:99999999999999999999", "198.51.100.1"),
        ("198.51.100.1:x", "198.51.100.1"),
        ("\xff, 198.51.100.1", "198.51.100.1"),
    ],
)
def test_the_client_is_the_last_address_that_is_not_trusted(value: str, client: str | None) -> None:
    found = forwarded(value).client
    assert (found and found[0]) == client
    if "4711" in value:
        assert found == (client, 4711)


@pytest.mark.unit
def test_several_headers_are_one_list() -> None:
    assert forwarded("198.51.100.1", "10.0.0.2").client == ("198.51.100.1", 0)
    assert forwarded("1.1.1.1", "198.51.100.1").client == ("198.51.100.1", 0)


@pytest.mark.unit
def test_a_long_list_is_read_from_its_end_only() -> None:
    assert forwarded("1.1.1.1, " + "10.0.0.2, " * 20_000 + "10.0.0.3").client == ("10.0.0.2", 0)
    assert forwarded("1.1.1.1, " + ", ".join(["10.0.0.2"] * (MAX_HOPS - 1))).client == ("1.1.1.1", 0)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("proto", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("wss", "https"),
        ("http", "http"),
        ("https, http", "http"),
        ("gopher", None),
        ("", None),
        ("https,", None),
        ("\xff", None),
    ],
)
def test_the_scheme_is_that_of_the_nearest_proxy(proto: str, scheme: str | None) -> None:
    assert forwarded("", proto=proto).scheme == scheme


@pytest.mark.unit
@settings(deadline=None)
@given(st.lists(st.text(max_size=60), max_size=4), st.lists(st.text(max_size=12), max_size=3))
def test_no_header_raises(addresses: list[str], schemes: list[str]) -> None:
    client, scheme = PROXIES.read({"x-forwarded-for": addresses, "x-forwarded-proto": schemes})
    assert scheme in ("http", "https", None)
    assert client is None or (re.fullmatch(r"[0-9a-f.:]+", client[0]) and 0 <= client[1] <= 65_535)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("*", "every client could then choose the address that it counts for"),
        ("0.0.0.0/0", "it contains all addresses"),
        ("::/0", "it contains all addresses"),
        ("10.0.0.7/8", "did you mean 10.0.0.0/8?"),
        ("nginx", "allowed are an address such as 10.0.0.7, a network such as 10.0.0.0/8, and unix"),
        ("10.0.0.7:80", "allowed are an address"),
        ("10.0.0.0/33", "allowed are an address"),
        ("", "allowed are an address"),
    ],
)
def test_what_is_no_proxy_is_refused(text: str, problem: str) -> None:
    for parse in (parse_proxy, lambda value: TrustedProxies([value])):
        with pytest.raises(ValueError, match=re.escape(problem)):
            parse(text)
    if text:
        with pytest.raises(click.BadParameter, match=re.escape(problem)):
            serve.make_context("serve", ["--trusted-proxies", text])
        with pytest.raises(ValueError, match=re.escape(problem)):
            Gateway(Settings(broker="memory://localhost", trusted_proxies=[text]))


@pytest.mark.unit
def test_the_option_takes_lists() -> None:
    arguments = ["--trusted-proxies", "10.0.0.0/8, 192.0.2.7", "--trusted-proxies", "unix"]
    got = serve.make_context("serve", arguments).params["trusted_proxies"]
    assert got == ("10.0.0.0/8", "192.0.2.7/32", "unix")


@pytest.mark.unit
@pytest.mark.parametrize(("kind", "scheme"), [("http", "https"), ("websocket", "wss")])
async def test_requests_of_trusted_proxies_have_the_client_and_the_scheme(kind: str, scheme: str) -> None:
    headers = ((b"X-Forwarded-For", b"198.51.100.1"), (b"x-forwarded-proto", b"https"))
    scope = await seen(("10.0.0.2", 4711), *headers, kind=kind)
    assert scope["client"] == ("198.51.100.1", 0) and scope["scheme"] == scheme and is_trusted(scope)
    scope = await seen(("10.0.0.2", 4711), kind=kind)
    assert scope["client"] == ("10.0.0.2", 4711) and scope["scheme"] != scheme and is_trusted(scope)


@pytest.mark.unit
@pytest.mark.parametrize("client", [("198.51.100.9", 1), ("127.0.0.1", 1), ("testclient", 1), None])
async def test_headers_of_others_are_ignored(client: tuple[str, int] | None) -> None:
    headers = ((b"x-forwarded-for", b"198.51.100.1"), (b"x-forwarded-proto", b"https"))
    scope = await seen(client, *headers)
    assert scope["client"] == client and scope["scheme"] == "http" and not is_trusted(scope)


@pytest.mark.unit
async def test_the_lifespan_is_passed_on() -> None:
    scope = await seen(None, kind="lifespan")
    assert not is_trusted(scope)


@pytest.mark.parametrize("trusted", [True, False])
def test_only_the_option_decides(trusted: bool, folder: Path) -> None:
    """Not uvicorn, which trusts this machine, and a variable."""
    options = ["--hsts", "60", *(["--trusted-proxies", "127.0.0.1"] if trusted else [])]
    gateway = GatewayProcess(
        "memory://localhost", folder, options=options, environment={"FORWARDED_ALLOW_IPS": "*"}
    )
    gateway.start()
    try:
        response = httpx.get(f"{gateway.url}/healthz", headers={"X-Forwarded-Proto": "https"})
        assert ("strict-transport-security" in response.headers) is trusted
        headers = {"X-Forwarded-For": "198.51.100.1"}
        with httpx.stream("GET", f"{gateway.url}/events", headers=headers) as stream:
            assert "gateway-open" in next(stream.iter_text())
        address = gateway.url.replace("http", "ws", 1)
        with connect(f"{address}/ws", additional_headers=headers) as websocket:
            assert "gateway-open" in websocket.recv(10)
        for name in ("X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "X-Forwarded-Host"):
            for value in (b"", b",,,", b"\xff", b"[", b'for="[::1"', b"x" * 5_000, b"::1%" + b"z" * 99):
                answer = httpx.get(f"{gateway.url}/tasks", headers={name.encode(): value})
                assert answer.status_code == 200, (name, value)
        assert ("FORWARDED_ALLOW_IPS has no effect" in gateway.tail()) is not trusted
        assert "Traceback" not in gateway.tail(100)
    finally:
        gateway.stop()
