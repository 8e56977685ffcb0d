"""What a shared log has: its bounds, its leader, and how far each gateway has read. It changes nothing.

- A leader writes a batch at least once a second. So it is alive if one arrives within ``LEADER_SECONDS``. No
  clock decides that.
- Each other gateway writes how far it has read every 10 s (``seen``). Its lag is exact: a ``seen`` message
  stands in the log behind the last entry that the log had when it was written.
- Ages compare this machine's clock with those of the gateways.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from celery_gateway.log.batch import Head, NewerFormat, decode
from celery_gateway.log.engine import Engine, LogError, LogGone, Place, Stored
from celery_gateway.log.order import Forked, Order
from celery_gateway.log.search import Bounds, bounds, find_time

LEADER_SECONDS = 2.5
"""How long to wait for a batch of the leader."""
LOOK_BACK_SECONDS = 15.0
"""Gateways that have written nothing for this time, before the last batch, are not listed."""
POLL_SECONDS = 0.1
READ_BYTES = 4 << 20
READ_MESSAGES = 1_000


class Reader(NamedTuple):
    """A gateway that does not lead.

    Attributes:
        position: that of the last entry that it had read.
        lag: how many entries the log had beyond that when it wrote so.
        seconds: how long ago that was.
    """

    name: str
    position: int
    lag: int
    seconds: float


class LogReport(NamedTuple):
    """The content of a log. Ages are in seconds before now, by this machine's clock.

    Attributes:
        first, last: the positions of the first and the last entry; 0 if there is none.
        entries: how many there are.
        bytes: the size of the entries, about, without what the server adds.
        first_seconds, last_seconds: the ages of the first and the last batch.
        term: the current leadership: ids of its entries begin with it.
        leader: the name of the gateway that leads; ``""`` if none has written within ``LEADER_SECONDS``.
        readers: the other gateways, by name.
    """

    place: Place
    first: int
    last: int
    entries: int
    bytes: int
    first_seconds: float
    last_seconds: float
    term: str
    leader: str
    readers: list[Reader]


async def log_report(engine: Engine, on_wait: Callable[[str], None] = lambda what: None) -> LogReport | None:
    """Return what a log has; ``None`` if there is no log.

    Args:
        engine: the log, not open; it is closed in the end.
        on_wait: called with what is waited for.

    Raises:
        LogError: the log cannot be read, or a later version of the gateway has written it.
    """
    try:
        await engine.open(creates=False)
        found = await bounds(engine)
        if found is None:
            return LogReport(engine.place, 0, 0, 0, 0, 0.0, 0.0, "", "", [])
        end = _End()
        end.offset = await find_time(engine, found.last.at - LOOK_BACK_SECONDS)
        await _read_to(engine, end, found.last.offset)
        await _wait_for_leader(engine, end, on_wait)
        return _report(engine.place, found, end)
    except LogGone:
        return None
    except ValueError as error:
        raise LogError(f"{error}. Use the version of celery-gateway that the other gateways have") from None
    finally:
        await engine.close()


async def log_exists(engine: Engine) -> bool:
    """Return whether there is a log; the engine is closed in the end.

    Raises:
        LogError: the server cannot be used.
    """
    try:
        await engine.open(creates=False)
        return True
    except LogGone:
        return False
    finally:
        await engine.close()


class _End:
    """What the last messages of a log say.

    Attributes:
        offset: that of the next message to read.
        batches: how many batches of the current leadership were read.
    """

    def __init__(self) -> None:
        self.order = Order()
        self.offset = 0
        self.batches = 0
        self.seen: dict[str, tuple[Head, int]] = {}

    def on_message(self, stored: Stored) -> None:
        self.offset = stored.offset + 1
        try:
            batch = decode(stored.data)
        except NewerFormat:
            raise
        except ValueError:
            return  # gateways skip it, too
        head = batch.head
        try:
            self.order.on_batch(batch)
        except Forked:  # what was read is of a leader that had been replaced
            self.order = Order()
            self.order.on_batch(batch)
        if head.kind == "seen":
            position = self.order.position
            self.seen[head.gateway] = head, 0 if position is None else max(0, position - head.first)
        elif head.kind == "batch" and head.term == self.order.term:
            self.batches += 1
            self.seen.pop(head.gateway, None)


async def _read_to(engine: Engine, end: _End, last: int) -> None:
    """Read up to the message with an offset."""
    while end.offset <= last:
        limit = min(READ_MESSAGES, last - end.offset + 1)
        messages = await engine.read(end.offset, limit_bytes=READ_BYTES, limit=limit)
        if not messages:
            return
        for each in messages:
            end.on_message(each)


async def _wait_for_leader(engine: Engine, end: _End, on_wait: Callable[[str], None]) -> None:
    """Read until the leader has written once more, or the time is up: then there is no leader."""
    loop = asyncio.get_running_loop()
    ends_at, before = loop.time() + LEADER_SECONDS, end.batches
    while end.batches == before:
        if loop.time() > ends_at:
            end.order.leader = ""
            return
        on_wait("a sign of the leader")
        messages = await engine.read(end.offset, limit_bytes=READ_BYTES, limit=1)
        for each in messages:
            end.on_message(each)
        if not messages:
            await asyncio.sleep(POLL_SECONDS)


def _report(place: Place, found: Bounds, end: _End) -> LogReport:
    now, order = time.time(), end.order
    first, last = found.first.position, found.last.position
    if order.position is not None:
        last = order.position  # that batch may be of a leader that had been replaced
    readers = [
        Reader(name, head.first, lag, max(0.0, now - head.at))
        for name, (head, lag) in sorted(end.seen.items())
        if name != order.leader
    ]
    return LogReport(
        place,
        first if last >= first else 0,
        last if last >= first else 0,
        max(0, last - first + 1),
        max(order.written_bytes, found.last.written_bytes) - found.first.written_bytes,
        max(0.0, now - found.first.at),
        max(0.0, now - max(order.at, found.last.at)),
        order.term,
        order.leader,
        readers,
    )


def size_text(size: float) -> str:
    """Return a number of bytes in words.

    >>> size_text(2_048), size_text(1 << 30), size_text(10)
    ('2.0 KiB', '1.0 GiB', '10 bytes')
    """
    if size < 1_024:
        return f"{size:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1_024
        if size < 1_024:
            return f"{size:.1f} {unit}"
    return f"{size / 1_024:.1f} TiB"


def duration_text(seconds: float) -> str:
    """Return a duration in words.

    >>> duration_text(3.2), duration_text(120), duration_text(86_400), duration_text(266_400)
    ('3 s', '2 min', '24 h', '3.1 d')
    """
    for unit, size, limit in (("s", 1, 90), ("min", 60, 90), ("h", 3_600, 48)):
        if seconds / size < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.1f} d"
