"""Where a broker URL leads, and the rights that a gateway needs there. Pure."""

import re
import shlex
from typing import Any, NamedTuple

from kombu.utils.url import url_to_parts
from yarl import URL

from gateway.broker import BY_URL

_AMQP_SCHEMES = frozenset({"amqp", "amqps", "pyamqp"})
_PORTS = {"amqps": 5671, "redis": 6379, "rediss": 6379}
_AMQP_PORT = 5672


class Place(NamedTuple):
    """A broker URL's parts, with Celery's defaults; for Redis ``vhost`` is the number of the database.

    ``queue_prefix`` is what the names of our queues there begin with.
    """

    scheme: str
    host: str
    port: int
    user: str
    vhost: str
    queue_prefix: str = BY_URL.queue_prefix

    @property
    def address(self) -> str:
        """Host and port, as they are written in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_amqp(self) -> bool:
        return self.scheme in _AMQP_SCHEMES

    @property
    def is_redis(self) -> bool:
        return self.scheme in ("redis", "rediss")

    @property
    def is_tls(self) -> bool:
        return self.scheme in ("amqps", "rediss")

    @property
    def is_local(self) -> bool:
        return self.host in ("localhost", "127.0.0.1", "::1")

    @property
    def has_usual_port(self) -> bool:
        return self.port == _PORTS.get(self.scheme, _AMQP_PORT)


def place_of(url: str) -> Place:
    """Return where a broker URL leads.

    Raises:
        ValueError: it cannot be read.
    """
    parts = _parts(url)
    scheme = parts.scheme or ""
    is_amqp = scheme in _AMQP_SCHEMES
    return Place(
        scheme,
        parts.hostname or "localhost",
        parts.port or _PORTS.get(scheme, _AMQP_PORT),
        parts.username or ("guest" if is_amqp else ""),
        parts.path or ("/" if is_amqp else "0"),
    )


def _parts(url: str) -> Any:
    try:
        return url_to_parts(url)
    except ValueError:  # whose text shows parts of the password
        raise ValueError("in user and password @ : / # ? % are written %40 %3A %2F %23 %3F %25") from None


def amqp_url(url: str, *, heartbeat_seconds: int, name: str, login_method: str | None = None) -> URL:
    """Return Celery's URL of a RabbitMQ as aiormq takes it; its own heartbeat and name go before ours.

    Raises:
        ValueError: it cannot be read, or the way to log in is none that aiormq has.
    """
    place, parts = place_of(url), _parts(url)
    # AMQPLAIN is PLAIN written in another way, and no broker is without PLAIN by itself.
    login_method = (parts.query.get("login_method") or login_method or "PLAIN").upper()
    auth = {"PLAIN": "plain", "AMQPLAIN": "plain", "EXTERNAL": "external"}.get(login_method)
    if auth is None:
        raise ValueError(f"the login method {login_method} is none of PLAIN, AMQPLAIN and EXTERNAL")
    return URL.build(
        scheme="amqps" if place.is_tls else "amqp",
        host=place.host,
        port=place.port,
        user=place.user,
        password=parts.password or "guest",
        path=f"/{place.vhost}",
        query={"heartbeat": heartbeat_seconds, "name": name, "auth": auth, **parts.query},
    )


def grant(place: Place, exchange: str) -> str:
    """Return the command that gives a URL's user the rights that a gateway needs in RabbitMQ, and no others.

    Configure, write and read on its own queues, and read on the exchange, to bind to it. (To declare the
    exchange needs configure on it too; the workers do that.)
    """
    ours = rf"{re.escape(place.queue_prefix)}\..*"
    own, read = f"^{ours}", f"^({ours}|{re.escape(exchange)})$"
    return shlex.join(["rabbitmqctl", "set_permissions", "-p", place.vhost, place.user, own, own, read])
