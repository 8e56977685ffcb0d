"""How ``tail`` reaches a gateway: directly, or through a proxy of the environment.

httpx reads the environment too, but uses a proxy for loopback addresses, refuses ``NO_PROXY=[::1]``, and
needs a package for SOCKS that celery-gateway does not install.
"""

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import click
import httpx

from celery_gateway.cli.redact import redacted
from celery_gateway.errors import GatewayError


def transport(url: SplitResult) -> tuple[httpx.HTTPTransport, str | None]:
    """Return the transport for a URL, and its proxy for messages.

    Returns:
        The proxy is without its password; ``None`` if the URL is reached directly.

    Raises:
        GatewayError: the proxy cannot be used; the text names the variable.
    """
    name, proxy = proxy_of(url, getproxies_environment())
    if proxy is None:
        return httpx.HTTPTransport(), None
    shown = redacted(proxy)
    try:
        return httpx.HTTPTransport(proxy=httpx.Proxy(proxy)), shown
    except ImportError:
        reason = "a SOCKS proxy needs the package socksio (pip install socksio)"
    except (ValueError, httpx.InvalidURL):
        reason = "the URL of a proxy begins with http://, https:// or socks5://"
    raise GatewayError(
        f"cannot use the proxy {shown} ({name} in the environment): {reason}. "
        f"To reach {url.hostname} without a proxy, set NO_PROXY={url.hostname}"
    )


def proxy_of(url: SplitResult, environment: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the variable of the proxy for a URL, and the proxy; ``None`` for no proxy.

    Args:
        url: of the gateway.
        environment: the proxies by scheme, as ``getproxies_environment`` returns them.

    >>> proxy_of(urlsplit("http://gateway.example"), {"http": "proxy:3128"})[1]
    'http://proxy:3128'
    """
    host = url.hostname or ""
    proxies = dict(environment)
    key = url.scheme if url.scheme in proxies else "all"
    name = next(
        (each for each in os.environ if each.lower() == f"{key}_proxy" and os.environ[each]),
        f"{key.upper()}_PROXY",
    )
    proxy = proxies.get(key)
    excluded = proxies.get("no", "")
    proxies["no"] = ",".join(
        each.strip().removeprefix("[").removesuffix("]") for each in excluded.split(",") if each.strip()
    )
    if not proxy or is_loopback(host) or proxy_bypass_environment(host, proxies):
        return name, None
    return name, proxy if "://" in proxy else f"http://{proxy}"


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address, which a proxy on another machine cannot reach.

    >>> is_loopback("localhost"), is_loopback("10.0.0.1")
    (True, False)
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def parse(text: str) -> SplitResult:
    """Return the parts of the URL of a gateway. The scheme and ``/events`` may be missing.

    Raises:
        UsageError: it is not the URL of a gateway.

    >>> parse("gateway.example/celery/events").geturl()
    'http://gateway.example/celery'
    """
    url = text if "://" in text else f"http://{text}"
    shown = redacted(url)
    try:
        parts = urlsplit(url.rstrip("/"))
        _ = parts.port
    except ValueError:  # its text may have a part of a password
        raise click.UsageError(
            f"invalid gateway URL {shown}: the host or port is invalid. Put an IPv6 address in brackets, use "
            "a port up to 65535, and in a password write %2F for /, %3F for ?, %23 for #, %40 for @"
        ) from None
    if parts.query or parts.fragment:
        raise click.UsageError(
            f"invalid gateway URL {shown}: it has a query. Give only the address, and use options to filter"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.UsageError(
            f"invalid gateway URL {shown}: write http://HOST:PORT, https://HOST/PATH or HOST:PORT"
        )
    return parts._replace(path=parts.path.removesuffix("/events"))
