"""Trusted proxies: their addresses, and what their headers report about a client. Pure.

Rules: a header counts only if the peer of the connection is trusted. ``X-Forwarded-For`` is read from its
right end, since each proxy appends the address that it received the request from: the client is the first
address there that is not a trusted proxy's. What stands left of it is the client's own text. A malformed
value has no effect. The header ``Forwarded`` (RFC 7239) is not read.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

UNIX: Final = "unix"
"""Trusts the peers of a Unix socket, which have no address."""
MAX_HOPS: Final = 50
"""Maximum number of addresses that are read from the right end of ``X-Forwarded-For``."""
MAX_PORT: Final = 65_535
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Forwarded(NamedTuple):
    """What a trusted proxy reports; ``None`` for what it does not.

    Attributes:
        client: the address of the client, in normal form, and its port; 0 if that is unknown.
        scheme: ``http`` or ``https``, also for a WebSocket.
    """

    client: tuple[str, int] | None
    scheme: str | None


def parse_proxy(text: str) -> str:
    """Return an address or a network of proxies in normal form.

    >>> parse_proxy("10.0.0.0/8"), parse_proxy("2001:DB8::7"), parse_proxy("unix")
    ('10.0.0.0/8', '2001:db8::7/128', 'unix')

    Raises:
        ValueError: it is malformed, or contains all addresses; the message says what is allowed.
    """
    return UNIX if text == UNIX else str(_network(text))


class TrustedProxies:
    """The proxies whose headers are trusted.

    Args:
        texts: addresses, networks, or ``unix``.

    Raises:
        ValueError: one of them is malformed.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        listed = (texts,) if isinstance(texts, str) else tuple(texts)
        self._trusts_unix = UNIX in listed
        self._networks: tuple[Network, ...] = tuple(_network(text) for text in listed if text != UNIX)

    def __bool__(self) -> bool:
        return bool(self._networks) or self._trusts_unix

    def trusts(self, peer: str | None) -> bool:
        """Return whether a peer is a trusted proxy.

        Args:
            peer: its address; ``None`` or ``""`` for a peer without one, such as that of a Unix socket.
        """
        if not peer:
            return self._trusts_unix
        if not self._networks:
            return False
        address = _address(peer)
        return address is not None and self._contains(address)

    def read(self, headers: Mapping[str, Sequence[str]]) -> Forwarded:
        """Return what the headers of a trusted peer report.

        Args:
            headers: the values of each header, in their order, by its name in lower case.
        """
        return Forwarded(
            self._client(",".join(headers.get("x-forwarded-for", ()))),
            _scheme(",".join(headers.get("x-forwarded-proto", ()))),
        )

    def _client(self, text: str) -> tuple[str, int] | None:
        found: tuple[str, int] | None = None
        for entry in reversed(text.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
            hop = _hop(entry.strip())
            if hop is None:
                break  # the proxies up to here are known, and what is left of them is not
            address, port = hop
            found = (str(address), port)
            if not self._contains(address):
                break
        return found

    def _contains(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _network(text: str) -> Network:
    allowed = "allowed are an address such as 10.0.0.7, a network such as 10.0.0.0/8, and unix"
    if text == "*":
        raise ValueError(
            f"invalid proxy '*': every client could then choose the address that it counts for; {allowed}"
        )
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        hint = ""
        if "host bits" in str(error):
            hint = f"; did you mean {ipaddress.ip_network(text, strict=False)}?"
        raise ValueError(f"invalid proxy {text!r}: {allowed}{hint}") from None
    if network.prefixlen == 0:
        raise ValueError(
            f"invalid proxy {text!r}: it contains all addresses, so every client could choose the address "
            f"that it counts for; {allowed}"
        )
    return network


def _address(text: str) -> Address | None:
    """Return an address without its zone; an IPv4 address that is mapped to IPv6 becomes IPv4."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _hop(entry: str) -> tuple[Address, int] | None:
    """Return the address and the port of ``192.0.2.7``, ``192.0.2.7:80``, ``2001:db8::7`` or ``[…]:80``."""
    if entry.startswith("["):
        host, bracket, rest = entry[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        port = rest[1:]
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
    else:
        host, port = entry, ""
    address = _address(host)
    if address is None:
        return None
    is_number = port.isascii() and port.isdigit() and len(port) <= 5
    return address, int(port) if is_number and int(port) <= MAX_PORT else 0


def _scheme(text: str) -> str | None:
    """Return the last scheme: the nearest proxy has set or appended it."""
    return _SCHEMES.get(text.rpartition(",")[2].strip().lower())
