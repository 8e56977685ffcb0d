"""Which brokers a gateway consumes, as the setting ``broker`` names them.

Each value is a URL as Celery takes it, or several between commas or semicolons of which one is used at a time
(a host alone stands for the first URL with another host: ``amqp://user:password@a,b:5673/vhost``). Values
without a name are more URLs of the one broker. With names (``eu=amqp://…``) they are brokers of their own,
consumed side by side, and each event says by ``cluster`` where it came from.
"""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from gateway.errors import SourceError

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
_BETWEEN_URLS = re.compile(r"[,;]\s*(?=[a-z][a-z0-9+]*://)")
_BETWEEN_HOSTS = re.compile(r"[,;]\s*")
_PASSWORD = re.compile(r"\A(?P<before>(?:[a-z][a-z0-9+]*://)?+[^:/@]*):.*@", re.DOTALL)
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+]*)://(?P<user>.*@)?(?P<hosts>[^/?#]*)(?P<rest>.*)", re.DOTALL)


_TLS_SCHEMES = {"amqp": "amqps", "pyamqp": "amqps"}


class Access(NamedTuple):
    """How a broker is spoken to, beyond its URL, in Celery's words: what they mean is what they mean there.

    Attributes:
        tls: Celery's ``broker_use_ssl``: whether, or with which options (those of the broker's transport).
        login_method: Celery's ``broker_login_method``, such as ``EXTERNAL``; for AMQP.
        transport_options: Celery's ``broker_transport_options``, for connections that kombu makes.
        queue_prefix: what the names of the gateway's own queues and exchanges begin with, before a dot.
    """

    tls: bool | Mapping[str, Any] = False
    login_method: str | None = None
    transport_options: Mapping[str, Any] = MappingProxyType({})
    queue_prefix: str = "celery-gateway"

    @property
    def ssl(self) -> bool | dict[str, Any]:
        """``tls`` for a connection of kombu's: a copy, since kombu writes the host's name into it."""
        return dict(self.tls) if isinstance(self.tls, Mapping) else self.tls


BY_URL = Access()
"""As the URL says, and no more."""


class Broker(NamedTuple):
    """A broker, or a cluster of them: ``name`` is ``None`` for the only one without; ``urls`` in order."""

    name: str | None
    urls: tuple[str, ...]
    access: Access = BY_URL


def brokers(values: str | Iterable[str], access: Access = BY_URL) -> tuple[Broker, ...]:
    """Return the brokers that some values of the setting name, each once, in order, all with one access.

    Raises:
        SourceError: a value holds no URL, or some have a name and others do not.

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
        raise SourceError("no broker is named: try --broker amqp://guest:guest@localhost:5672//")
    if None in urls and len(urls) > 1:
        raise SourceError(
            f"the broker {without_password(urls[None][0])} has no name but others have: name all of them "
            "(--broker eu=amqp://… --broker us=amqp://…), or none, if they are one broker's addresses"
        )
    return tuple(Broker(name, tuple(dict.fromkeys(of_one)), access) for name, of_one in urls.items())


def without_password(url: str) -> str:
    """Return a URL fit to be shown.

    >>> without_password("amqp://guest:secret@localhost//")
    'amqp://guest:***@localhost//'
    """
    return _PASSWORD.sub(r"\g<before>:***@", url, count=1)


def _with_each_host(url: str, access: Access) -> list[str]:
    parts = _URL.fullmatch(url)
    if parts is None:
        raise SourceError(
            f"{without_password(url)!r} is no broker URL: one begins with a scheme, such as amqp://localhost"
        )
    scheme, user, hosts, rest = parts["scheme"], parts["user"] or "", parts["hosts"], parts["rest"]
    if access.tls:  # which changes the port of a URL that has none, too
        scheme = _TLS_SCHEMES.get(scheme, scheme)
    return [f"{scheme}://{user}{host}{rest}" for host in _BETWEEN_HOSTS.split(hosts)]
