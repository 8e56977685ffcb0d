"""Secrets in the query of a request's URL: replaced before anything can log them.

Rules: the values of ``access_token`` are kept in the scope, for ``carriers``. Servers and middleware write
their access logs from the same ``scope`` when the response starts; the value is replaced by then. Middleware
that keeps a copy of the scope, and proxies, have to be configured (docs/mounting.md).
"""

from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.types import Scope

from celery_gateway.http.carriers import ACCESS_TOKEN_KEY

HIDDEN: Final = b"***"
_ACCESS_TOKEN: Final = b"access_token"
_WORDS: Final = (
    *(b"token", b"passw", b"pwd", b"secret", b"api_key", b"api-key", b"apikey", b"auth", b"jwt"),
    *(b"signature", b"credential", b"session"),
)
"""The value of a parameter with one of these words in its name is a secret, as of ``access_token``."""


def hide_secrets(scope: Scope) -> None:
    """Replace the values of secret parameters in the query of a request, in place."""
    query: bytes = scope.get("query_string") or b""
    if not query:
        return
    parameters = query.split(b"&")
    names = b"&".join([parameter.partition(b"=")[0] for parameter in parameters])  # values can be long
    plain = unquote_to_bytes(names).lower() if b"%" in names else names.lower()
    if any(word in plain for word in _WORDS):
        if _ACCESS_TOKEN in plain:
            given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
            scope[ACCESS_TOKEN_KEY] = [value for name, value in given if name == _ACCESS_TOKEN.decode()]
        scope["query_string"] = b"&".join(map(_hidden, parameters))


def _hidden(parameter: bytes) -> bytes:
    name, separator, value = parameter.partition(b"=")
    if not value:
        return parameter
    plain = unquote_to_bytes(name).lower()
    return name + separator + HIDDEN if any(word in plain for word in _WORDS) else parameter
