"""Which brokers a gateway consumes, as the setting ``broker`` names them.

Each value is a URL as Celery takes it, or several between commas or semicolons of which one is used at a time
(a host alone stands for the first URL with another host: ``amqp://user:password@a,b:5673/vhost``). Values
without a name are more URLs of the one broker. With names (``eu=amqp://…``) they are brokers of their own,
consumed side by side, and each event says by ``cluster`` where it came from.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from gateway.errors import SourceError

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
_BETWEEN_URLS = re.compile(r"[,;]\s*(?=[a-z][a-z0-9+]*://)")
_BETWEEN_HOSTS = re.compile(r"[,;]\s*")
_PASSWORD = re.compile(r"\A(?P<before>(?:[a-z][a-z0-9+]*://)?+[^:/@]*):.*@", re.DOTALL)
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+]*)://(?P<user>.*@)?(?P<hosts>[^/?#]*)(?P<rest>.*)", re.DOTALL)


class Broker(NamedTuple):
    """A broker, or a cluster of them: ``name`` is ``None`` for the only one without; ``urls`` in order."""

    name: str | None
    urls: tuple[str, ...]


def brokers(values: str | Iterable[str]) -> tuple[Broker, ...]:
    """Return the brokers that some values of the setting name, each once, in order.

    Raises:
        SourceError: a value holds no URL, or some have a name and others do not.

    >>> brokers(["eu=amqp://a,b/v", "us=amqp://c"])
    (Broker(name='eu', urls=('amqp://a/v', 'amqp://b/v')), Broker(name='us', urls=('amqp://c',)))
    """
    urls: dict[str | None, list[str]] = {}
    for value in [values] if isinstance(values, str) else values:
        named = _NAMED.fullmatch(value)
        name, text = named.groups() if named else (None, value)
        for part in _BETWEEN_URLS.split(text.strip()):
            urls.setdefault(name, []).extend(_with_each_host(part))
    if not urls:
        raise SourceError("no broker is named: try --broker amqp://guest:guest@localhost:5672//")
    if None in urls and len(urls) > 1:
        raise SourceError(
            f"the broker {without_password(urls[None][0])} has no name but others have: name all of them "
            "(--broker eu=amqp://… --broker us=amqp://…), or none, if they are one broker's addresses"
        )
    return tuple(Broker(name, tuple(dict.fromkeys(of_one))) for name, of_one in urls.items())


def without_password(url: str) -> str:
    """Return a URL fit to be shown.

    >>> without_password("amqp://guest:secret@localhost//")
    'amqp://guest:***@localhost//'
    """
    return _PASSWORD.sub(r"\g<before>:***@", url, count=1)


def _with_each_host(url: str) -> list[str]:
    parts = _URL.fullmatch(url)
    if parts is None:
        raise SourceError(
            f"{without_password(url)!r} is no broker URL: one begins with a scheme, such as amqp://localhost"
        )
    scheme, user, hosts, rest = parts["scheme"], parts["user"] or "", parts["hosts"], parts["rest"]
    return [f"{scheme}://{user}{host}{rest}" for host in _BETWEEN_HOSTS.split(hosts)]
