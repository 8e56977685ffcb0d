"""The entries of the Redis Stream that is the log. Pure.

- An entry has two fields: ``data``, a message, and ``written``, how many bytes the log has had with it.
  Retention by size compares that. It is not exact: gateways that append at the same time do not count each
  other's entry.
- Redis gives an entry an id, ``<ms>-<seq>``, that only grows. The offset is ``ms << 20 | seq``. Redis counts
  ``seq`` on within one millisecond, and as long as its clock is behind that of the last entry: a log works
  until its server's clock goes back and 1,048,576 entries are appended before it has caught up.
- The name of a consumer group is the identity of the stream. Nobody reads with it, but it is deleted with the
  stream, so that a stream that was created again can be told from the one before.
"""

import secrets
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from celery_gateway.log.engine import LogError, Stored

SEQ_BITS = 20
ENTRY_BYTES = 64
"""About what an entry takes in Redis beside its message."""
IDENTITY_PREFIX = "celery-gateway-log-"

_MAX_SEQ = (1 << SEQ_BITS) - 1


class Entry(NamedTuple):
    """An entry: its offset, its message, and how many bytes the log has had with it."""

    offset: int
    data: bytes
    written: int

    @property
    def stored(self) -> Stored:
        return Stored(self.offset, self.data)


def id_of(offset: int) -> str:
    """Return the id for an offset; no entry needs to have it.

    >>> id_of((1_700_000_000_000 << 20) + 3)
    '1700000000000-3'
    """
    return f"{offset >> SEQ_BITS}-{offset & _MAX_SEQ}"


def offset_of(entry_id: bytes) -> int:
    """Return the offset of an entry.

    Raises:
        LogError: the clock of Redis went back by a long time.

    >>> offset_of(b"1700000000000-3") == (1_700_000_000_000 << 20) + 3
    True
    """
    ms, _, seq = entry_id.partition(b"-")
    if int(seq) > _MAX_SEQ:
        raise LogError(
            "the clock of Redis went back, and too many entries were appended since: delete the log "
            "(celery-gateway log delete), or wait until the clock has caught up"
        )
    return int(ms) << SEQ_BITS | int(seq)


def offset_at(seconds: float) -> int:
    """Return the offset of the first entry that Redis can have appended at a time, in epoch seconds."""
    return max(0, int(seconds * 1_000)) << SEQ_BITS


def fields(data: bytes, written: int) -> tuple[Any, ...]:
    """Return the arguments of ``XADD`` for an entry."""
    return ("data", data, "written", written)


def entries_of(reply: Iterable[Any] | None) -> list[Entry]:
    """Return the entries of a reply to ``XRANGE``; those without a message (of another program) are left out.

    Raises:
        LogError: see ``offset_of``.
    """
    found = []
    for entry_id, pairs in reply or ():
        if pairs and len(pairs) == 4 and pairs[0] == b"data" and pairs[3].isdigit():
            found.append(Entry(offset_of(entry_id), pairs[1], int(pairs[3])))
    return found


def entries_of_streams(reply: Any) -> list[Entry]:
    """Return the entries of a reply to ``XREAD`` for one stream, in RESP2 or RESP3."""
    streams = list(reply.items() if isinstance(reply, Mapping) else reply or ())
    return entries_of(streams[0][1]) if streams else []


def new_identity() -> str:
    return IDENTITY_PREFIX + secrets.token_hex(8)


def identities_of(reply: Iterable[Any]) -> set[str]:
    """Return the identities in a reply to ``XINFO GROUPS``, in RESP2 or RESP3."""
    names = set()
    for group in reply:
        pairs = group if isinstance(group, Mapping) else dict(zip(group[::2], group[1::2], strict=True))
        names.add(pairs[b"name"].decode("utf-8", "replace"))
    return {name for name in names if name.startswith(IDENTITY_PREFIX)}
