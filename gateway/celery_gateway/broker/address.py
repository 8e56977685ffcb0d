"""Where a broker URL leads. Pure."""

from typing import Any, NamedTuple

from kombu.utils.url import url_to_parts
from yarl import URL

from celery_gateway.broker.url_syntax import AMQP_SCHEMES, ESCAPES, amqp_query
from celery_gateway.broker.urls import BY_URL

_PORTS = {"amqps": 5671, "redis": 6379, "rediss": 6379, "sentinel": 26379}
_AMQP_PORT = 5672
_AUTH = {"PLAIN": "plain", "AMQPLAIN": "plain", "EXTERNAL": "external"}
"""Celery's login methods as aiormq names them. AMQPLAIN is PLAIN in another encoding, and every broker that
has AMQPLAIN has PLAIN by default."""


class Address(NamedTuple):
    """The parts of a broker URL, with Celery's defaults.

    Attributes:
        host: of several sentinels, the first; of a socket in the file system, its path.
        port: 0 for a socket in the file system.
        vhost: for Redis, the number of the database.
        queue_prefix: the first part of the names of the gateway's own queues there.
    """

    scheme: str
    host: str
    port: int
    user: str
    vhost: str
    queue_prefix: str = BY_URL.queue_prefix

    @property
    def host_and_port(self) -> str:
        """Host and port, as a URL has them; or the path of a socket."""
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_amqp(self) -> bool:
        return self.scheme in AMQP_SCHEMES

    @property
    def is_redis(self) -> bool:
        """Whether it is a Redis that is reached by TCP, without sentinels."""
        return self.scheme in ("redis", "rediss")

    @property
    def is_tls(self) -> bool:
        return self.scheme in ("amqps", "rediss")

    @property
    def is_local(self) -> bool:
        return self.host in ("localhost", "127.0.0.1", "::1")

    @property
    def has_default_port(self) -> bool:
        return self.port == _PORTS.get(self.scheme, _AMQP_PORT)


def address_of(url: str) -> Address:
    """Return where a broker URL leads.

    Raises:
        ValueError: the URL cannot be read; the text has no part of it.
    """
    url = url.partition(";")[0] if url.startswith("sentinel") else url
    parts = _parts(url)
    scheme = parts.scheme or ""
    if scheme.endswith("+socket"):
        return Address(
            scheme, f"/{parts.path or ''}", 0, parts.username or "", parts.query.get("virtual_host", "0")
        )
    is_amqp = scheme in AMQP_SCHEMES
    user = parts.username or ("guest" if is_amqp else "")
    if not is_amqp and not parts.password:
        user = ""  # in redis://PASSWORD@host it is a password by mistake, which must not be shown
    return Address(
        scheme,
        parts.hostname or "localhost",
        parts.port or _PORTS.get(scheme, _AMQP_PORT),
        user,
        parts.path or ("/" if is_amqp else "0"),
    )


def amqp_url(url: str, *, heartbeat_seconds: int, name: str, login_method: str | None = None) -> URL:
    """Return Celery's URL of a RabbitMQ as aiormq takes it.

    Args:
        heartbeat_seconds: if the URL has no heartbeat.
        name: the connection's name at the broker, if the URL has none.
        login_method: Celery's ``broker_login_method``, if the URL has none.

    Raises:
        ValueError: the URL cannot be read, or aiormq has no such login method.
    """
    address, parts = address_of(url), _parts(url)
    query = amqp_query(parts.query)
    login_method = (query.pop("login_method", None) or login_method or "PLAIN").upper()
    auth = _AUTH.get(login_method)
    if auth is None:
        raise ValueError(
            f"invalid login method {login_method!r}: the allowed ones are PLAIN, AMQPLAIN and EXTERNAL"
        )
    return URL.build(
        scheme="amqps" if address.is_tls else "amqp",
        host=address.host,
        port=address.port,
        user=address.user,
        password=parts.password or "guest",
        path=f"/{address.vhost}",
        query={"heartbeat": heartbeat_seconds, "name": name, "auth": auth, **query},
    )


def _parts(url: str) -> Any:
    try:
        return url_to_parts(url)
    except ValueError:  # its text has parts of the password
        raise ValueError(ESCAPES) from None
