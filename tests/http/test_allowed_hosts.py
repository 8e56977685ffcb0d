"""Allowed hosts and origins: their syntax, and their comparison."""

import re
import socket

import pytest

from celery_gateway.asgi import Gateway
from celery_gateway.http.allowed_hosts import (
    Origin,
    Policy,
    parse_allowed_origin,
    parse_authority,
    parse_origin,
    parse_pattern,
    parse_public_url,
)
from celery_gateway.settings import Settings

pytestmark = pytest.mark.unit

OWN = socket.gethostname().lower()


def policy(**settings: object) -> Policy:
    return Policy(**{"bind": "127.0.0.1"} | settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8555", "LocalHost", "localhost.", "app.localhost:1", "a.b.localhost"),
        *("127.0.0.1", "127.0.0.1:8555", "127.8.9.1", "[::1]", "[::1]:8555", "[::ffff:127.0.0.1]"),
        *("10.0.0.7:8555", "[2001:db8::7]", "[fe80::1%eth0]:8555", "0.0.0.0", "127.1"),
        *(OWN, f"{OWN.partition('.')[0]}.local"),
        *("gateway", "gateway:8555", "celery_gateway-1", "notlocalhost"),  # not in the public DNS
        "",
    ],
)
def test_hosts_allowed_by_default(host: str) -> None:
    assert policy().allows_host(host)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8555", "localhost.evil.example"),
        *("127.0.0.1.evil.example", "127.0.0.1.nip.io", "1.2.3.4x", "evil.example.", "0x7f.evil"),
        *("localhost@evil.example", "evil.example/localhost", "evil.example,localhost", "localhost evil"),
        *(
            "[::1",
            "::1",
            "[::1].evil.example",
            "localhost:x",
            "localhost:8555:1",
            ":8555",
            "\x00",
            "lócalhost",
        ),
        *(f"{OWN}.evil.example", f"x.{OWN}", "-x", "x-", "a b", "x*"),
    ],
)
def test_foreign_hosts_are_rejected(host: str) -> None:
    assert not policy().allows_host(host)
    assert policy(allow_hosts=["*"]).allows_host(host)


@pytest.mark.parametrize(
    ("settings", "allowed", "refused"),
    [
        ({"allow_hosts": ["events.example"]}, ["events.example:80", "EVENTS.example."], ["a.events.example"]),
        ({"allow_hosts": "gateway"}, ["gateway:8555"], ["gateway.example"]),
        ({"allow_hosts": [".x.example"]}, ["x.example", "a.x.example", "a.b.x.example"], ["ax.example"]),
        ({"allow_hosts": ["*.x.example"]}, ["x.example", "a.x.example"], ["x.example.org", "y.example"]),
        ({"allow_hosts": ["bücher.example"]}, ["xn--bcher-kva.example"], ["bucher.example"]),
        ({"bind": "events.lan"}, ["events.lan:8555"], ["a.lan"]),
        (
            {"public_url": "https://events.example:8443/celery"},
            ["events.example", "events.example:1"],
            ["x.events.example"],
        ),
    ],
)
def test_hosts_allowed_by_settings(
    settings: dict[str, object], allowed: list[str], refused: list[str]
) -> None:
    named = policy(**settings)
    assert all(named.allows_host(host) for host in allowed)
    assert not any(named.allows_host(host) for host in refused)


def test_the_host_that_the_server_listens_on_is_allowed() -> None:
    assert policy().allows_host("testserver", server="testserver")
    assert not policy().allows_host("evil.example", server="testserver")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8555", "localhost:8555"),
        ("http://LOCALHOST:8555", "localhost:8555"),
        ("http://events.example", "events.example"),
        ("https://events.example", "events.example"),  # TLS ends at a proxy
        ("http://events.example", "events.example:80"),
        ("https://events.example", "events.example:443"),
        ("http://events.example:80", "events.example"),
        ("https://[::1]:8555", "[::1]:8555"),
    ],
)
def test_a_page_of_the_same_host_is_allowed(origin: str, host: str) -> None:
    assert policy().allows_origin(origin, [host])
    assert policy().allows_origin(origin, ["127.0.0.1:8555", host])  # as a proxy forwards it
    assert policy().shares_with(origin) == "none"


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("null", "localhost:8555"),
        ("", "localhost:8555"),
        ("http://localhost:3000", "localhost:8555"),
        ("http://localhost", "localhost:8555"),
        ("http://localhost:8555", "localhost"),
        ("http://127.0.0.1:8555", "localhost:8555"),
        ("https://events.example", "events.example:80"),
        ("http://evil.example", "events.example"),
        ("http://events.example.evil.example", "events.example"),
        ("file://", "localhost"),
        ("capacitor://localhost", "localhost"),
        ("chrome-extension://abcdef", "localhost"),
        ("http://localhost:8555/", "localhost:8555"),
        ("localhost:8555", "localhost:8555"),
        ("http://localhost:8555 http://evil.example", "localhost:8555"),
        ("http://user@localhost:8555", "localhost:8555"),
    ],
)
def test_a_foreign_page_is_rejected(origin: str, host: str) -> None:
    for settings in ({}, {"allow_origins": ["https://shop.example"]}, {"public_url": "https://x.example"}):
        assert not policy(**settings).allows_origin(origin, [host])
    assert not policy().allows_origin(origin, [])
    assert policy(allow_origins=["*"]).allows_origin(origin, [host])


def test_origins_allowed_by_settings() -> None:
    named = policy(allow_origins=["https://shop.example", "http://localhost:3000", "capacitor://localhost"])
    for origin in ("https://shop.example", "https://Shop.example:443", "http://localhost:3000"):
        assert named.shares_with(origin) == "named"
        assert named.allows_origin(origin, ["localhost:8555"])
    assert named.shares_with("capacitor://localhost") == "named"
    for origin in ("http://shop.example", "https://shop.example:8443", "https://a.shop.example", "null"):
        assert named.shares_with(origin) == "none"
    named = policy(allow_origins=["https://bücher.example:8443", "http://[::1]:5173", "https://a.example."])
    for origin in ("https://xn--bcher-kva.example:8443", "http://[::1]:5173", "https://a.example"):
        assert named.shares_with(origin) == "named"
    both = policy(allow_origins=["https://shop.example", "*"])
    assert (both.shares_with("https://shop.example"), both.shares_with("null")) == ("named", "all")
    public = policy(public_url="https://events.example:8443/celery")
    assert public.allows_origin("https://events.example:8443", ["events.example"])
    assert not public.allows_origin("https://events.example:8444", ["127.0.0.1:8555"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://x.example",
        "x.example:80",
        "x.example/",
        "a b",
        "*x.example",
        "x.*.example",
        "..x",
        ".",
        "a,b",
    ],
)
def test_malformed_hosts_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"invalid host {text!r}")):
        parse_pattern(text)
    with pytest.raises(ValueError, match="invalid host"):
        Policy(allow_hosts=[text])


@pytest.mark.parametrize("text", ["[::1]", "::1", "[2001:db8::7]:8555", "fe80::1"])
def test_an_ip_address_as_a_setting_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=f"{re.escape(repr(text))}: IP addresses are always allowed"):
        parse_pattern(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "shop.example", "https://shop.example/", "https://shop.example/x", "https://shop.example?q"),
        *(
            "*.example.com",
            "https://*.example.com",
            "https://*",
            "null",
            "file://",
            "https://",
            " https://a.b",
        ),
        *("https://u@shop.example", "https://shop.example:99999", "https://shop.example:x", "https://a b"),
        *("https://a.example,https://b.example", "https://a..b", "https://-"),
    ],
)
def test_malformed_origins_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"invalid origin {text!r}")):
        parse_allowed_origin(text)
    with pytest.raises(ValueError, match="invalid origin"):
        Gateway(Settings(broker="memory://localhost", allow_origins=[text]))


@pytest.mark.parametrize(
    "text",
    [
        "x.example",
        "https://*",
        "https://x.example:99999",
        "ftp://x.example",
        "https://",
        "https://u:p@x.example",
        "https://x.example/?q",
        "http:x",
    ],
)
def test_malformed_public_urls_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"invalid public URL {text!r}")):
        parse_public_url(text)


def test_parsing_of_authorities_and_origins() -> None:
    assert parse_authority("[::1]:8555") == ("[::1]", 8555)
    assert parse_authority("A.example.:") == ("a.example", None)
    assert parse_origin("https://a.example") == Origin("https", "a.example", 443)
    assert parse_public_url("http://a.example/celery") == Origin("http", "a.example", 80)
    assert parse_public_url("http://bücher:81/x") == Origin("http", "xn--bcher-kva", 81)
    assert parse_allowed_origin("https://A.example") == Origin("https", "a.example", 443)
    assert parse_allowed_origin("*") == "*"
