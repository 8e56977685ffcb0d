"""The socket that our server listens on.

Rules: without authentication it is a loopback address, unless the user insists (``--insecure``). The check is
of the address that is bound, after its name is resolved.
"""

import errno
import ipaddress
import socket

from celery_gateway.errors import GatewayError
from celery_gateway.settings import Settings


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
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        _check(host, str(address[0]), settings)
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _drop_dead_peers(bound, settings.slow_seconds)
        try:
            bound.bind(address)
            bound.listen(2048)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise GatewayError(
                f"port {port} on {host} is already in use: stop what uses it, or choose another with --port"
            ) from None
        raise GatewayError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from None
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
