"""The parameters of requests for state: which each endpoint has, and the checks of their values.

Rules: an unknown parameter or a bad value is an error, never ignored. ``query_params`` has the checks that
streams share.
"""

import re
import secrets
from collections.abc import Callable
from hashlib import blake2b
from typing import Final, NamedTuple

from starlette.datastructures import QueryParams

from celery_gateway.errors import BadRequest
from celery_gateway.events.event import FILTER_FIELDS
from celery_gateway.events.filter import Filter
from celery_gateway.events.filter_parser import parse
from celery_gateway.events.pattern import quoted
from celery_gateway.http.query_params import ACCESS_TOKEN, check_parameters, only, requested_fields
from celery_gateway.http.stream_query import bad_value
from celery_gateway.state.task import VIEW_FIELDS
from celery_gateway.state.worker import WORKER_FIELDS

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000

WORKER_FILTERS = ("hostname", "cluster")
_PART_BYTES: Final = 8
"""Length of each of the two parts of a page token: an authentication tag, and an encrypted number."""
_KEY_BYTES: Final = 32
_TOKEN: Final = re.compile(r"(?P<epoch>[0-9a-f]{8})-(?P<rest>[0-9a-f]{1,32})")
_EVENT_PARAMETERS = ("fields", ACCESS_TOKEN)
_TASK_PARAMETERS = ("cluster", "fields", ACCESS_TOKEN)
_TASK_LIST_PARAMETERS = (*FILTER_FIELDS, "limit", "cursor", "fields", ACCESS_TOKEN)
_WORKER_LIST_PARAMETERS = (*WORKER_FILTERS, "fields", ACCESS_TOKEN)


class TaskQuery(NamedTuple):
    """A checked request for one task or one workflow; ``fields`` is ``None`` for all."""

    cluster: str | None
    fields: frozenset[str] | None


class TaskListQuery(NamedTuple):
    """A checked request for a page of tasks.

    ``before`` is the number of the last task on the page before; ``fields`` is ``None`` for all.
    """

    filter: Filter
    limit: int
    before: int | None
    fields: frozenset[str] | None


class WorkerListQuery(NamedTuple):
    """A checked request for workers; ``fields`` is ``None`` for all."""

    filter: Filter
    fields: frozenset[str] | None


class PageTokens:
    """The page tokens (``cursor=``) of one run of the gateway, or of all gateways with one shared log.

    A token has the number of the last task on a page. Numbers start again with each run, or with a new log,
    so a token also has the epoch of that. The number is encrypted and authenticated: it shows how many tasks
    there are of others, and a client that could choose one could find the number of each of its tasks.

    Args:
        secret: returns what the epoch and the key follow from; ``""``: they are drawn.
    """

    def __init__(self, secret: Callable[[], str] = str) -> None:
        self._secret = secret
        self._used = ""
        self._epoch = secrets.token_hex(4)
        self._key = secrets.token_bytes(_KEY_BYTES)

    def _update(self) -> None:
        """Take over the secret, once it is known."""
        if (secret := self._secret()) != self._used:
            self._used = secret
            self._key = blake2b(secret.encode(), digest_size=_KEY_BYTES, person=b"key").digest()
            self._epoch = blake2b(secret.encode(), digest_size=4, person=b"epoch").hexdigest()

    def token(self, number: int) -> str:
        """Return the token of the page behind a task's number; always the same, so that ETags are, too."""
        self._update()
        tag = self._tag(number)
        return f"{self._epoch}-{tag.hex()}{number ^ self._pad(tag):0{2 * _PART_BYTES}x}"

    def _tag(self, number: int) -> bytes:
        """Return the authentication tag of a number, which its encryption begins with (as in RFC 5297)."""
        return blake2b(
            number.to_bytes(_PART_BYTES), digest_size=_PART_BYTES, key=self._key, person=b"tag"
        ).digest()

    def _pad(self, tag: bytes) -> int:
        """Return the number that encrypts another one with XOR."""
        return int.from_bytes(blake2b(tag, digest_size=_PART_BYTES, key=self._key, person=b"pad").digest())

    def number(self, token: str) -> int:
        """Return the number in a token.

        Raises:
            BadRequest: the token is malformed, or of another run.
        """
        self._update()
        found = _TOKEN.fullmatch(token)
        if found is not None and found["epoch"] != self._epoch:
            raise BadRequest(
                f"expired cursor={token!r}: it is from another gateway or from before a restart; "
                "start again with the first page",
                code="cursor-expired",
                parameter="cursor",
            )
        if found is not None and len(found["rest"]) == 4 * _PART_BYTES:
            tag = bytes.fromhex(found["rest"][: 2 * _PART_BYTES])
            number = int(found["rest"][2 * _PART_BYTES :], 16) ^ self._pad(tag)
            if secrets.compare_digest(tag, self._tag(number)):
                return number
        raise bad_value("cursor", f"invalid cursor={quoted(token)}: it must be the cursor of a previous page")


def event_fields(parameters: QueryParams) -> frozenset[str] | None:
    """Return the requested fields of an event; ``None`` for all.

    Raises:
        BadRequest: an unknown parameter or a bad value. Also raised by the other functions.
    """
    check_parameters(parameters, _EVENT_PARAMETERS)
    return requested_fields(parameters)


def task_query(parameters: QueryParams) -> TaskQuery:
    check_parameters(parameters, _TASK_PARAMETERS)
    return TaskQuery(cluster=only(parameters, "cluster"), fields=_known_fields(parameters, VIEW_FIELDS))


def task_list_query(parameters: QueryParams, tokens: PageTokens) -> TaskListQuery:
    check_parameters(parameters, _TASK_LIST_PARAMETERS)
    token = only(parameters, "cursor")
    return TaskListQuery(
        filter=parse({field: parameters.getlist(field) for field in FILTER_FIELDS}),
        limit=_limit(only(parameters, "limit")),
        before=None if token is None else tokens.number(token),
        fields=_known_fields(parameters, VIEW_FIELDS),
    )


def worker_list_query(parameters: QueryParams) -> WorkerListQuery:
    check_parameters(parameters, _WORKER_LIST_PARAMETERS)
    return WorkerListQuery(
        filter=parse({field: parameters.getlist(field) for field in WORKER_FILTERS}),
        fields=_known_fields(parameters, WORKER_FIELDS),
    )


def _known_fields(parameters: QueryParams, allowed: tuple[str, ...]) -> frozenset[str] | None:
    fields = requested_fields(parameters)
    if unknown := sorted((fields or frozenset()).difference(allowed)):
        message = f"invalid fields={unknown[0]!r}: the allowed fields are {', '.join(allowed)}"
        raise bad_value("fields", message, allowed)
    return fields


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    message = f"invalid limit={text!r}: it must be a number from 1 to {MAX_LIMIT}"
    raise bad_value("limit", message, ("1", str(MAX_LIMIT)))
