"""The sockets that our server listens on.

Rules: without authentication the address is a loopback address, unless the user insists (``--insecure``). The
check is of the address that is bound, after its name is resolved.
"""

import errno
import ipaddress
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from celery_gateway.errors import GatewayError
from celery_gateway.settings import Settings

BACKLOG: Final = 2048
"""Maximum number of connections that wait to be accepted."""
BALANCES: Final = sys.platform == "linux"
"""Whether the system distributes connections among the sockets of one port (SO_REUSEPORT, socket(7))."""


class UnprotectedAddress(GatewayError):
    """Other machines can reach the address, and there is no authentication."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an IP address."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def listen(settings: Settings) -> socket.socket:
    """Return a socket that listens on the address of the settings, before anything else is started.

    Raises:
        UnprotectedAddress: other machines can reach the address, and there is no authentication.
        GatewayError: it cannot listen there; the message has the reason and what to do.
    """
    with _explained(settings):
        family, address = _resolve(settings)
        return _listening(_bound(family, address, settings.slow_seconds))


class SharedAddress:
    """The address of several processes: each listens on a socket of its own, and the system balances them.

    A single socket for all does not balance: under uvloop one of two processes accepted all of 400
    connections. Where the system cannot balance sockets, the processes share one nevertheless.

    While this object is open, the port stays reserved, whether a process listens or not.

    Raises:
        UnprotectedAddress, GatewayError: as of ``listen``.
    """

    def __init__(self, settings: Settings, *, balances: bool = BALANCES) -> None:
        self._settings = settings
        self._balances = balances
        with _explained(settings):
            self._family, address = _resolve(settings)
            self.reserved = _bound(self._family, address, settings.slow_seconds)
            if balances:
                # After bind, which would accept a port that another gateway shares among its processes.
                self.reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            else:
                _listening(self.reserved)

    def socket(self, *, listens: bool) -> socket.socket:
        """Return the socket of another process.

        Args:
            listens: whether connections can wait in it from now on; else from when the process listens.
        """
        if not self._balances:
            return self.reserved.dup()
        with _explained(self._settings):
            address = self.reserved.getsockname()
            bound = _bound(self._family, address, self._settings.slow_seconds, is_shared=True)
            return _listening(bound) if listens else bound

    def close(self) -> None:
        """Release the port, if no process listens."""
        self.reserved.close()


@contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    """Turn errors of the system into errors with the reason and what to do."""
    host, port = settings.host, settings.port
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise GatewayError(
                f"port {port} on {host} is already in use: stop what uses it, or choose another with --port"
            ) from None
        raise GatewayError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from None


def _resolve(settings: Settings) -> tuple[socket.AddressFamily, Any]:
    """Return the address of the settings, which may be listened on."""
    family, _, _, _, address = socket.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    _check(settings.host, str(address[0]), settings)
    return family, address


def _bound(
    family: socket.AddressFamily, address: Any, slow_seconds: float, *, is_shared: bool = False
) -> socket.socket:
    """Return a socket that is bound to an address.

    Args:
        is_shared: other sockets may be bound to it, too.
    """
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _drop_dead_peers(bound, slow_seconds)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _listening(bound: socket.socket) -> socket.socket:
    try:
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def _check(host: str, address: str, settings: Settings) -> None:
    """Raise an error if an address is open to others.

    Args:
        host: the setting.
        address: what it resolves to.
    """
    if settings.auth or settings.insecure or is_loopback(address):
        return
    resolved = "" if host == address else f" ({address})"
    raise UnprotectedAddress(
        f"refused to listen on {host}{resolved}: other machines can reach this address, and there is no "
        "authentication, so everyone who can connect could read all events. Set --auth FILE "
        "(docs/security.md), or --host 127.0.0.1, also behind a proxy on this machine; --insecure "
        "(GATEWAY_INSECURE=true) listens all the same"
    )


def url_of(listener: socket.socket, root_path: str, *, is_tls: bool) -> str:
    """Return the URL of a gateway by the address of its socket."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if is_tls else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{root_path}"


def _drop_dead_peers(listener: socket.socket, slow_seconds: float) -> None:
    """Let the system drop connections whose other end has vanished; accepted sockets inherit it (tcp(7)).

    Idle connections are probed. A connection without acknowledgements is dropped, but not before it was
    closed as slow. (uvicorn's pings would do this for WebSockets only, at a higher price.)

    Args:
        slow_seconds: how long a client may make no progress, in seconds.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 30),  # seconds
        ("TCP_KEEPINTVL", 10),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", round((2 * slow_seconds + 15) * 1000)),  # milliseconds
    ):
        if hasattr(socket, option):  # not every system has all of them
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
