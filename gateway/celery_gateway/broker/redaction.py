"""Broker URLs without their passwords, for logs, errors and status reports.

- Also a malformed URL is shown without its password. In doubt, more is hidden rather than less.
- Everything before the last ``@`` counts as user and password, because a password may have an unescaped
  ``/ ? # @ ,``.
- A user is shown if it stands before the first ``:`` and has none of these characters. A user without a
  password is shown for AMQP only: for Redis it would be a password.
- A port that is not a number counts as a password.
- Of a query, the values of parameters that are known to hold no secret are shown, and no others.

Pure.
"""

import re
from collections.abc import Iterable, Iterator

from celery_gateway.broker.url_syntax import (
    AMQP_SCHEMES,
    AUTHORITY_AND_REST,
    HOSTS,
    MEMORY_SCHEMES,
    PARAMETERS_WITHOUT_SECRETS,
    REDIS_SCHEMES,
)

_KINDS = "|".join(sorted(AMQP_SCHEMES | REDIS_SCHEMES | MEMORY_SCHEMES, reverse=True))
_BEFORE_URLS = re.compile(rf"([,;]\s*)(?=(?i:{_KINDS})(?:\+\w+)?://)")
_BEGIN = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_.-]*=)?(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
_CLEAN = re.compile(r"[^:/?#@,;&=\s]*")
_URL_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^\n]*@)?[^\s'\"<>]*")


def without_password(url: str) -> str:
    """Return a broker URL, or several between commas or semicolons, with ``***`` for each password.

    >>> without_password("amqp://guest:secret@localhost//")
    'amqp://guest:***@localhost//'
    >>> without_password("amqp://u@x:secret@localhost"), without_password("redis://h?ssl_password=secret")
    ('amqp://***@localhost', 'redis://h?ssl_password=***')
    """
    parts = _BEFORE_URLS.split(url)  # with the separators, at odd indexes
    return "".join(part if index % 2 else _redacted(part) for index, part in enumerate(parts))


def without_passwords(text: str) -> str:
    """Return a text of another library with ``without_password`` applied to each URL in it."""
    return _URL_IN_TEXT.sub(lambda match: without_password(match[0]), text)


def _redacted(url: str) -> str:
    begin = _BEGIN.match(url)
    before = begin[0] if begin else ""
    login, at, rest = url[len(before) :].rpartition("@")
    if "=" in login.partition("?")[2]:  # the @ may be in a query, and the text behind it a part of a value
        return f"{before}***"
    if at:
        user, colon, password = login.partition(":")
        is_clean = _CLEAN.fullmatch(user) is not None
        if is_clean and colon and (password or not user):
            login = f"{user}:***"
        elif not is_clean or colon or begin is None or begin["scheme"].lower() not in AMQP_SCHEMES:
            login = "***"
    match = AUTHORITY_AND_REST.match(rest)
    assert match is not None  # it matches any text
    hosts, path, query, fragment = match["hosts"], match["path"], match["query"], match["fragment"]
    if HOSTS.fullmatch(hosts) is None:
        return f"{before}{login}{at}{_CLEAN.match(hosts)[0]}:***"  # type: ignore[index]
    if query:
        query = "?" + "&".join(_redacted_parameters(query[1:].split("&")))
    return f"{before}{login}{at}{hosts}{path}{query or ''}{'#***' if fragment else ''}"


def _redacted_parameters(parameters: Iterable[str]) -> Iterator[str]:
    has_secret = False
    for parameter in parameters:
        name, equals, _ = parameter.partition("=")
        if name in PARAMETERS_WITHOUT_SECRETS or not parameter:
            yield parameter
        elif equals and _CLEAN.fullmatch(name) and not has_secret:
            yield f"{name}=***"
            has_secret = True
        else:  # it may be part of a secret that has an unescaped & or =
            yield "***"
