"""Sign a token for one user's work, in the back end of a web site: ``sign``.

Imports the standard library and PyJWT only, nothing of the server. RS256, ES256 and EdDSA also require the
package cryptography: ``pip install 'celery-gateway[jwt]'``.
"""

import math
import re
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import jwt

__all__ = ["sign"]

ALGORITHMS: Final = ("HS256", "RS256", "ES256", "EdDSA")
SCOPE_CLAIM: Final = "celery_gateway"
"""The private claim (RFC 7519, section 4.3) with the scope."""
DEFAULT_AUDIENCE: Final = "celery-gateway"
MAX_TOKEN_BYTES: Final = 8_000
"""The gateway refuses longer tokens. Servers and proxies limit a header to about this size."""
MIN_SECRET_BYTES: Final = 32
"""Minimum length of a secret for HS256 (RFC 7518, section 3.2)."""

MAX_SUBJECT_CHARS: Final = 255
"""As in OpenID Connect."""
MAX_ALTERNATIVES: Final = 20
"""Maximum number of filters in ``any``."""
MAY: Final = ("events", "state", "workers", "metrics", "dashboard", "revoke", "terminate")
"""The kinds of endpoints: streams and single events; tasks and workflows; workers and queues; metrics; the
dashboard; and the actions, which the gateway also has to allow (``--allow``)."""
FILTER_FIELDS: Final = frozenset(
    ("type", "name", "root_id", "parent_id", "uuid", "hostname", "state", "queue", "cluster")
)
"""The fields of a filter, as in ``events.event``, which is not imported here."""
NEVER_HIDDEN: Final = frozenset(
    (
        "id",
        "type",
        "uuid",
        "root_id",
        "parent_id",
        "name",
        "state",
        "time",
        "timestamp",
        "truncated",
        "cluster",
    )
)
"""Fields that cannot be hidden, as in ``events.fields``."""
_SPECIAL: Final = re.compile(r"[\\,*?!]")
"""The special characters of patterns."""
_Values = str | Collection[str] | None


def sign(
    key: str | bytes,
    *,
    issuer: str,
    audience: str = DEFAULT_AUDIENCE,
    minutes: float = 15,
    subject: str | None = None,
    uuid: _Values = None,
    root_id: _Values = None,
    name: _Values = None,
    queue: _Values = None,
    any: Sequence[Mapping[str, str | Collection[str]]] | None = None,
    hide: Collection[str] = (),
    may: Collection[str] = ("events", "state"),
    algorithm: str = "HS256",
    key_id: str | None = None,
) -> str:
    """Return a JSON Web Token that lets its holder read some tasks for some minutes.

    A task is visible if it passes all of ``uuid``, ``root_id``, ``name`` and ``queue`` that are given, each
    with one value or several. At least one of them, or ``any``, is required: ``any=[{}]`` makes all tasks
    visible.

    Args:
        key: for HS256 the secret, at least 32 bytes (white space around a secret of ASCII text is ignored);
            otherwise a private key in PEM.
        issuer: the claim ``iss``: ``issuer`` in the gateway's file of ``--auth``.
        audience: the claim ``aud``: ``audience`` in that file.
        minutes: how long the token is valid.
        subject: the claim ``sub``: who uses the token, such as the user's ID. Quotas are per subject.
        uuid: IDs of tasks. They are compared exactly, so ``*`` is no pattern here.
        root_id: IDs of workflows: of the tasks that began them. They are compared exactly, too.
        name: names of tasks, or patterns such as ``shop.*`` and ``!shop.internal.*``.
        queue: names of queues, or patterns.
        any: instead of these four, several filters with patterns; a task is visible if it passes one of them.
        hide: fields to remove, such as ``args`` and ``kwargs``.
        may: what the token may read: ``events``, ``state``, ``workers``, ``metrics``, ``dashboard``; and
            what it may do: ``revoke`` tasks, ``terminate`` running ones.
        algorithm: ``HS256``, ``RS256``, ``ES256`` or ``EdDSA``; the same as in that file.
        key_id: the header ``kid``, if the issuer has several keys.

    Returns:
        The token, in ASCII.

    Raises:
        ValueError: an argument is missing or malformed, or the token is too long.
        ImportError: the algorithm requires cryptography, which is not installed.

    >>> token = sign("a secret of at least 32 characters", issuer="https://shop.example", root_id="7f3c")
    >>> token.count(".")
    2
    """
    filters = {"uuid": _exactly(uuid), "root_id": _exactly(root_id), "name": name, "queue": queue}
    hidden, kinds = _names("hide", hide), _names("may", may)
    _check_names("hide", NEVER_HIDDEN.intersection(hidden), "fields other than", NEVER_HIDDEN)
    _check_names("may", set(kinds).difference(MAY), "", MAY)
    scope = {"any": _alternatives(filters, any), "hide": hidden, "may": kinds}
    claims = _claims(issuer, audience, minutes, subject) | {SCOPE_CLAIM: scope}
    headers = {} if key_id is None else {"kid": _check_text("key_id", key_id)}
    return _signed(claims, key, algorithm, headers)


def hmac_secret(key: str | bytes) -> bytes:
    """Return the bytes of a secret for HS256.

    A file with a secret often ends with a line break. White space around ASCII text is removed here, so that
    the gateway and the back end use the same bytes. Other secrets are taken as they are.

    Raises:
        ValueError: it is too short.
    """
    secret = key.encode() if isinstance(key, str) else bytes(key)
    if secret.isascii():
        secret = secret.strip()
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(
            f"the secret for HS256 has {len(secret)} bytes, and at least {MIN_SECRET_BYTES} are required "
            "(RFC 7518). Make one with: openssl rand -base64 48"
        )
    return secret


def _claims(issuer: str, audience: str, minutes: float, subject: str | None) -> dict[str, Any]:
    """Return the registered claims (RFC 7519 section 4.1)."""
    if not isinstance(minutes, int | float) or not 0 < minutes < math.inf:
        raise ValueError(f"invalid minutes={minutes!r}: it must be a number above 0")
    now = time.time()
    claims: dict[str, Any] = {
        "iss": _check_text("issuer", issuer),
        "aud": _check_text("audience", audience),
        "iat": int(now),
        "exp": math.ceil(now + minutes * 60),
    }
    if subject is not None:
        claims["sub"] = _check_text("subject", subject)
        if len(subject) > MAX_SUBJECT_CHARS or not subject.isprintable():
            raise ValueError(
                f"invalid subject: it must have at most {MAX_SUBJECT_CHARS} characters, which can be printed"
            )
    return claims


def _signed(claims: dict[str, Any], key: str | bytes, algorithm: str, headers: dict[str, str]) -> str:
    if algorithm not in ALGORITHMS:
        raise ValueError(f"invalid algorithm={algorithm!r}: allowed are {', '.join(ALGORITHMS)}")
    if not isinstance(key, str | bytes):
        raise ValueError(f"invalid key: it must be text or bytes, and is of the type {type(key).__name__}")
    try:
        token = jwt.encode(claims, hmac_secret(key) if algorithm == "HS256" else key, algorithm, headers)
    except NotImplementedError:
        raise ImportError(
            f"{algorithm} requires the package cryptography: pip install 'celery-gateway[jwt]'"
        ) from None
    except (jwt.PyJWTError, TypeError, ValueError, AttributeError) as error:
        if algorithm == "HS256" and isinstance(error, ValueError):
            raise
        # The texts of the libraries can quote the key.
        expected = "a secret, not a public or private key" if algorithm == "HS256" else "a private key in PEM"
        raise ValueError(f"invalid key for {algorithm}: it must be {expected}") from None
    if len(token) > MAX_TOKEN_BYTES:
        raise ValueError(
            f"the token has {len(token)} bytes, and at most {MAX_TOKEN_BYTES} are allowed: use fewer "
            "values, or a pattern such as 'shop.*'"
        )
    return token


def _alternatives(
    filters: Mapping[str, _Values], any: Sequence[Mapping[str, str | Collection[str]]] | None
) -> list[dict[str, list[str]]]:
    given = {field: values for field, values in filters.items() if values is not None}
    if any is None:
        if not given:
            raise ValueError(
                f"no filter: give {', '.join(filters)} or any. To make all tasks visible, write any=[{{}}]"
            )
        any = [given]
    elif given:
        raise ValueError(
            f"any cannot be combined with {', '.join(given)}: write them into each filter of any"
        )
    if not isinstance(any, list | tuple) or not any:
        raise ValueError('invalid any: it must be a list of filters, such as [{"name": ["shop.*"]}]')
    if len(any) > MAX_ALTERNATIVES:
        raise ValueError(f"invalid any: it has {len(any)} filters; at most {MAX_ALTERNATIVES} are allowed")
    return [_filter(each) for each in any]


def _exactly(values: _Values) -> _Values:
    """Escape patterns: an ID often comes from a request, and ``*`` must not make all tasks visible."""
    if isinstance(values, str):
        return _SPECIAL.sub(r"\\\g<0>", values)
    if isinstance(values, list | tuple | set | frozenset):
        return [_SPECIAL.sub(r"\\\g<0>", each) if isinstance(each, str) else each for each in values]
    return values  # None, or not allowed


def _filter(alternative: object) -> dict[str, list[str]]:
    if not isinstance(alternative, Mapping):
        raise ValueError(
            f"invalid any: {alternative!r} is not a filter; it must be an object, such as "
            '{"name": ["shop.*"]}'
        )
    _check_names("any", alternative.keys() - FILTER_FIELDS, "", FILTER_FIELDS)
    return {
        _check_text("any", field): [values]
        if isinstance(values, str) and values
        else _names(field, values, 1)
        for field, values in alternative.items()
    }


def _check_names(argument: str, refused: Collection[object], prefix: str, allowed: Collection[str]) -> None:
    if refused:
        name = min(map(repr, refused))
        listed = ", ".join(sorted(allowed))
        raise ValueError(f"invalid {argument}: {name}; allowed are {prefix}{' ' if prefix else ''}{listed}")


def _names(argument: str, values: object, minimum: int = 0) -> list[str]:
    if isinstance(values, str | bytes) or not isinstance(values, list | tuple | set | frozenset):
        expected = "a string that is not empty, or a list" if minimum else "a list of strings"
        raise ValueError(f"invalid {argument}={values!r}: it must be {expected}")
    if len(values) < minimum:
        raise ValueError(f"invalid {argument}={values!r}: the list is empty, so no task would be visible")
    return [_check_text(argument, each) for each in values]


def _check_text(argument: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(
            f"invalid {argument}: {value!r} is not allowed; it must be a string that is not empty"
        )
    return value
