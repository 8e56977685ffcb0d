"""Which brokers a gateway consumes, as the setting ``broker`` names them.

- Each value is a URL as Celery takes it, or several between commas or semicolons. One of them is used at a
  time. A host alone stands for the first URL with another host: ``amqp://user:password@a,b:5673/vhost``.
- Values without a name are URLs of the one broker. Values with names (``eu=amqp://…``) are several brokers,
  consumed side by side; each event has the name of its broker in ``cluster``.
- A URL is checked here, before anything is connected or declared: its scheme, the names in its query, and for
  Redis the number of its database.
- Transport options in the query of a Redis URL (``redis://host/0?socket_timeout=5``) become
  ``transport_options``.

Pure.
"""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from celery_gateway.broker.redaction import without_password
from celery_gateway.broker.transport_options import (
    TRANSPORT_OPTIONS,
    put_option,
    suggestion,
    transport_option,
)
from celery_gateway.broker.url_syntax import (
    AMQP_PARAMETERS,
    AMQP_SCHEMES,
    AUTHORITY_AND_REST,
    CERT_REQS,
    ESCAPES,
    HOSTS,
    MEMORY_SCHEMES,
    RECORDING_SCHEMES,
    REDIS_PARAMETERS,
    REDIS_SCHEMES,
    transport_of,
)
from celery_gateway.errors import SourceError, TransportError

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
_BETWEEN_URLS = re.compile(r"[,;]\s*(?=[A-Za-z][A-Za-z0-9+]*://)")
_BETWEEN_HOSTS = re.compile(r"[,;]\s*")
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+]*)://(?P<user>.*@)?(?P<hosts>[^/?#]*)(?P<rest>.*)", re.DOTALL
)
_TLS_SCHEMES = {"amqp": "amqps", "pyamqp": "amqps", "librabbitmq": "amqps"}


class Access(NamedTuple):
    """How to connect to a broker, beyond its URL. Names and values are those of Celery's settings.

    Attributes:
        tls: Celery's ``broker_use_ssl``: whether, or with which options (those of the broker's transport).
        login_method: Celery's ``broker_login_method``, such as ``EXTERNAL``; for AMQP.
        transport_options: Celery's ``broker_transport_options``, for connections that kombu makes.
        queue_prefix: the first part of the names of the gateway's own queues and exchanges, before a dot.
    """

    tls: bool | Mapping[str, Any] = False
    login_method: str | None = None
    transport_options: Mapping[str, Any] = MappingProxyType({})
    queue_prefix: str = "celery-gateway"

    @property
    def ssl(self) -> bool | dict[str, Any]:
        """``tls`` for a connection of kombu: a copy, because kombu writes the host's name into it."""
        return dict(self.tls) if isinstance(self.tls, Mapping) else self.tls


BY_URL = Access()
"""Only what the URL has."""


class Broker(NamedTuple):
    """A broker, or a cluster of them.

    Attributes:
        name: ``None`` for the only broker, without a name.
        urls: in the order in which they are tried. A URL of a Redis behind sentinels has all of them
            (``sentinel://a;sentinel://b``), as kombu takes it.
    """

    name: str | None
    urls: tuple[str, ...]
    access: Access = BY_URL


def brokers(values: str | Iterable[str], access: Access = BY_URL) -> tuple[Broker, ...]:
    """Return the brokers that some values of the setting name, each once, in order.

    Args:
        access: for all of them.

    Raises:
        TransportError: Celery's events cannot be read from a URL's transport.
        SourceError: a value has no URL, or one that cannot be used; or some values have a name and others
            have none.

    >>> [broker[:2] for broker in brokers(["eu=amqp://a,b/v", "us=amqp://c"])]
    [('eu', ('amqp://a/v', 'amqp://b/v')), ('us', ('amqp://c',))]
    """
    urls: dict[str | None, list[str]] = {}
    for value in [values] if isinstance(values, str) else values:
        named = _NAMED.fullmatch(value)
        name, text = named.groups() if named else (None, value)
        for part in _BETWEEN_URLS.split(text.strip()):
            urls.setdefault(name, []).extend(_with_each_host(part, access))
    if not urls:
        raise SourceError("no broker URL: set one, for example --broker amqp://guest:guest@localhost:5672//")
    if None in urls and len(urls) > 1:
        raise SourceError(
            f"the broker {without_password(urls[None][0])} has no name, but other brokers have one: name all "
            "of them (--broker eu=amqp://… --broker us=amqp://…), or none if they are addresses of one broker"
        )
    return tuple(_broker(name, of_one, access) for name, of_one in urls.items())


def _broker(name: str | None, urls: list[str], access: Access) -> Broker:
    options: dict[str, Any] = {}
    checked = list(dict.fromkeys(_checked(url, options) for url in urls))
    if options:
        access = access._replace(transport_options={**access.transport_options, **options})
    if transport_of(checked[0]) == "sentinel":
        if not access.transport_options.get("master_name"):
            raise SourceError(
                f"no master name for {without_password(checked[0])}: add --transport-option "
                "master_name=mymaster, the name that the sentinels have for the master (in a Celery app: "
                "broker_transport_options = {'master_name': 'mymaster'})"
            )
        checked = [";".join(checked)]
    return Broker(name, tuple(checked), access)


def _with_each_host(url: str, access: Access) -> list[str]:
    parts = _URL.fullmatch(url)
    if parts is None:
        raise SourceError(
            f"invalid broker URL {without_password(url)!r}: a URL begins with a scheme, for example "
            "amqp://localhost"
        )
    scheme, user, hosts, rest = parts["scheme"].lower(), parts["user"] or "", parts["hosts"], parts["rest"]
    if access.tls:  # it also changes the default port
        scheme = _TLS_SCHEMES.get(scheme, scheme)
    return [f"{scheme}://{user}{host}{rest}" for host in _BETWEEN_HOSTS.split(hosts)]


def _checked(url: str, options: dict[str, Any]) -> str:
    """Return a URL that can be used as it is, and move transport options of its query to ``options``.

    Raises:
        TransportError: Celery's events cannot be read from its transport.
        SourceError: a name in its query is unknown, or the database of a Redis is not a number.
    """
    kind = transport_of(url)
    after = url.partition("://")[2]
    authority = AUTHORITY_AND_REST.match(after)["hosts"]  # type: ignore[index]  # it matches any text
    is_misread = "@" in after[len(authority) :] or HOSTS.fullmatch(authority.rpartition("@")[2]) is None
    if is_misread and kind in AMQP_SCHEMES | REDIS_SCHEMES:
        # Host, path or query may be a part of the password, which must not be shown.
        raise SourceError(
            f"the broker URL cannot be read ({kind}://…): {ESCAPES} (@ also in a vhost); a port is a number"
        )
    before = url.partition("?")[0]
    if kind in AMQP_SCHEMES:
        return _checked_amqp(url)
    if kind in MEMORY_SCHEMES:
        return before
    if kind in RECORDING_SCHEMES:
        return url
    if kind in REDIS_SCHEMES:
        return _checked_redis(url, kind, options)
    raise TransportError(
        f"{without_password(before)}: the gateway cannot read Celery's events from {kind}://; "
        "use a broker that carries them: RabbitMQ (amqp://) or Redis (redis://, rediss://, sentinel://)"
    )


def _checked_amqp(url: str) -> str:
    before, _, query = url.partition("?")
    for name, _ in parse_qsl(query, keep_blank_values=True):
        if name not in AMQP_PARAMETERS:
            raise SourceError(
                f"{without_password(before)}: unknown parameter {name!r}{suggestion(name, AMQP_PARAMETERS)}"
            )
    return url


def _checked_redis(url: str, kind: str, options: dict[str, Any]) -> str:
    before, _, query = url.partition("?")
    shown = without_password(before)
    kept = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in REDIS_PARAMETERS:
            if name == "ssl_cert_reqs" and value not in CERT_REQS:
                raise SourceError(
                    f"{shown}: invalid ssl_cert_reqs={value!r}: the allowed values are {', '.join(CERT_REQS)}"
                )
            kept.append((name, value))
            continue
        if name.partition(".")[0] not in TRANSPORT_OPTIONS:
            hint = suggestion(name, REDIS_PARAMETERS | TRANSPORT_OPTIONS)
            if name in ("db", "database"):
                hint = f": the database is the number at the end of the path: {kind}://HOST:PORT/{value}"
            raise SourceError(f"{shown}: unknown parameter {name!r}{hint}")
        try:
            path, read = transport_option(f"{name}={value}")
        except ValueError as error:
            raise SourceError(f"{shown}: {error}") from None
        put_option(options, path, read)
    database = before.partition("://")[2].rpartition("@")[2].partition("/")[2].lstrip("/")
    if "+" not in url.partition("://")[0] and database and not database.isdecimal():
        raise SourceError(
            f"{shown}: invalid database {database!r}: a database of Redis is a number: {kind}://HOST:PORT/0"
        )
    return f"{before}?{urlencode(kept)}" if kept else before
