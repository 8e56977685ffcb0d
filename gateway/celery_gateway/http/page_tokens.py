"""Page tokens: the parameter ``cursor``, which continues a list behind the last item of a page."""

import re
import secrets
import struct
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Final

from celery_gateway.errors import BadRequest
from celery_gateway.events.pattern import quoted
from celery_gateway.http.stream_query import bad_value
from celery_gateway.state.task_order import Rank

_TAG_BYTES: Final = 8
_QUERY_BYTES: Final = 8
"""Length of the digest of the query that a token belongs to."""
_KEY_BYTES: Final = 32
_CONTENT: Final = struct.Struct(f">{_QUERY_BYTES}s?dq")
_TOKEN: Final = re.compile(r"(?P<epoch>[0-9a-f]{8})-(?P<rest>[0-9a-f]{1,66})")


def query_digest(kind: str, parameters: Iterable[tuple[str, str]]) -> bytes:
    """Return a digest of what selects and sorts the items of a list.

    Args:
        kind: the list.
        parameters: names and values, in any order.
    """
    digest = blake2b(kind.encode(), digest_size=_QUERY_BYTES, person=b"query")
    for name, value in sorted(parameters):
        for text in (name.encode(errors="replace"), value.encode(errors="replace")):
            digest.update(len(text).to_bytes(4) + text)
    return digest.digest()


class PageTokens:
    """The page tokens of one run of the gateway, or of all gateways with one shared log.

    A token has the place of the last item of a page in the list (``Rank``), and the digest of the query.
    Numbers of tasks start again with each run, or with a new log, so a token also has the epoch of that. The
    content is encrypted and authenticated: the number shows how many tasks there are of others, and a client
    that could choose one could find the number of each of its tasks.

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

    def token(self, rank: Rank, query: bytes) -> str:
        """Return the token of the page behind a place; always the same, so that ETags are, too.

        Args:
            query: the digest of the query (``query_digest``).
        """
        self._update()
        content = _CONTENT.pack(query, *rank)
        tag = self._tag(content)
        return f"{self._epoch}-{tag.hex()}{self._encrypted(tag, content).hex()}"

    def _tag(self, content: bytes) -> bytes:
        """Return the authentication tag of a content, which its encryption begins with (as in RFC 5297)."""
        return blake2b(content, digest_size=_TAG_BYTES, key=self._key, person=b"tag").digest()

    def _encrypted(self, tag: bytes, content: bytes) -> bytes:
        """Encrypt a content, or decrypt it."""
        pad = blake2b(tag, digest_size=_CONTENT.size, key=self._key, person=b"pad").digest()
        return bytes(a ^ b for a, b in zip(content, pad, strict=True))

    def rank(self, token: str, query: bytes) -> Rank:
        """Return the place in a token.

        Raises:
            BadRequest: the token is malformed, of another run, or of another query.
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
        if found is not None and len(found["rest"]) == 2 * (_TAG_BYTES + _CONTENT.size):
            both = bytes.fromhex(found["rest"])
            tag, content = both[:_TAG_BYTES], self._encrypted(both[:_TAG_BYTES], both[_TAG_BYTES:])
            if secrets.compare_digest(tag, self._tag(content)):
                of_query, is_missing, value, number = _CONTENT.unpack(content)
                if of_query == query:
                    return Rank(is_missing, value, number)
                message = (
                    f"invalid cursor={token!r}: it is from a page with other parameters; repeat those of "
                    "that page, or start again with the first page"
                )
                raise bad_value("cursor", message)
        raise bad_value("cursor", f"invalid cursor={quoted(token)}: it must be the cursor of a previous page")
