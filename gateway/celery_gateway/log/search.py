"""Finding batches of the log by position or time, with few reads.

Positions and times grow along the log, with these exceptions:

- A leader that was replaced may write a few batches more, whose positions are those of before. So a batch
  that is before the wanted one is accepted only if those that follow it are, too.
- Batches can be in the log twice. Then either copy is found: they are equal, and so is what follows.
- Clocks of gateways differ: a time is looked for ``MARGIN_SECONDS`` earlier.
"""

from collections.abc import Callable
from typing import NamedTuple

from celery_gateway.log.batch import Head, head_of
from celery_gateway.log.engine import FIRST, Engine, Stored

MARGIN_SECONDS = 5.0
LOOK_MESSAGES = 8
"""How many messages are read to check a batch: more than a leader writes without reading the log."""
LOOK_BYTES = 1 << 20
MAX_PROBES = 150
_GROWTH = 4
"""How much farther each step is while the end of the log is not known."""

IsBefore = Callable[[Head], bool]


class Mark(NamedTuple):
    """A batch of the log.

    Attributes:
        offset: of the message.
        position: in ``Bounds.first``, that of its first entry; in ``Bounds.last``, that of its last one,
            or of the last one before it.
        at: when it was written, in epoch seconds.
        written_bytes: see ``Head``.
        leader: the name of the gateway that wrote it.
        term: the leadership in which it was written.
    """

    offset: int
    position: int
    at: float
    written_bytes: int
    leader: str
    term: str


class Bounds(NamedTuple):
    """The first and the last batch of a log. ``last`` may be of a leader that was replaced a moment ago."""

    first: Mark
    last: Mark


class _Found(NamedTuple):
    """A batch: its offset and its head."""

    offset: int
    head: Head


async def find_position(engine: Engine, position: int) -> int:
    """Return an offset from which on the log has the entry ``position + 1``, if it has that entry at all.

    It is that of the batch with the entry, or of one that is a little earlier.

    Raises:
        LogError: as ``engine.read``.
    """
    found = await _last_before(engine, lambda head: head.first <= position + 1)
    return FIRST if found is None else found.offset


async def find_start(engine: Engine, entries: int) -> tuple[int, int]:
    """Return the offset to read the last entries from, and the position of the last one; 0 if there is none.

    Args:
        entries: how many are wanted; all if there are fewer.

    Raises:
        LogError: as ``engine.read``.
    """
    found = await bounds(engine)
    if found is None:
        return FIRST, 0
    last = found.last.position
    if last - found.first.position <= entries:
        return FIRST, last
    return await find_position(engine, last - entries), last


async def find_time(engine: Engine, at: float) -> int:
    """Return an offset from which on the log has all batches that were written at a time or later.

    It is that of a batch which was written ``MARGIN_SECONDS`` before, or a little earlier.

    Args:
        at: epoch seconds.

    Raises:
        LogError: as ``engine.read``.
    """
    found = await _last_before(engine, lambda head: head.at < at - MARGIN_SECONDS)
    return FIRST if found is None else found.offset


async def bounds(engine: Engine) -> Bounds | None:
    """Return the first and the last batch of a log; ``None`` if it has none.

    Raises:
        LogError: as ``engine.read``.
    """
    first = await _batch_from(engine, FIRST)
    last = await _last_before(engine, lambda _: True, is_checked=False)
    if first is None or last is None:
        return None
    return Bounds(_mark(first, first.head.first), _mark(last, last.head.first + len(last.head.own) - 1))


async def _last_before(engine: Engine, is_before: IsBefore, *, is_checked: bool = True) -> _Found | None:
    """Return the last batch that is before something; ``None`` if not even the first one is."""
    low = await _batch_from(engine, FIRST)
    if low is None or not is_before(low.head):
        return None
    high: int | None = None  # no batch from there on is before it
    high_term, step = "", 1
    for _ in range(MAX_PROBES):
        middle = low.offset + step if high is None else (low.offset + high) // 2
        if middle == low.offset:
            break
        found = await _batch_from(engine, middle)
        if found is None or (high is not None and found.offset >= high):
            high = middle
            if near := await _if_near(engine, low, high, is_before):
                return near
        elif not is_before(found.head):
            high, high_term = found.offset, found.head.term
        # Terms do not come back: a leader whose later batch was seen had not been replaced before.
        elif not is_checked or found.head.term == high_term or await _is_run_before(engine, found, is_before):
            low, step = found, step * _GROWTH
        else:
            high = found.offset
    return low


async def _if_near(engine: Engine, low: _Found, high: int, is_before: IsBefore) -> _Found | None:
    """Return the last batch before something if only a few messages are left to look at, else ``None``."""
    messages = await engine.read(low.offset, limit_bytes=LOOK_BYTES, limit=LOOK_MESSAGES)
    if messages and messages[-1].offset < high and not _is_end(messages):
        return None
    for found in filter(None, map(_batch_of, messages)):
        if found.offset >= high or not is_before(found.head):
            break
        if found.head.first >= low.head.first:
            low = found
    return low


async def _is_run_before(engine: Engine, found: _Found, is_before: IsBefore) -> bool:
    """Return whether a batch and those after it are before something; not if there are too few after it."""
    messages = await engine.read(found.offset, limit_bytes=LOOK_BYTES, limit=LOOK_MESSAGES)
    batches = filter(None, map(_batch_of, messages))
    return not _is_end(messages) and all(is_before(each.head) for each in batches)


async def _batch_from(engine: Engine, start: int) -> _Found | None:
    """Return the first batch at an offset or later."""
    limit = 1
    while messages := await engine.read(start, limit_bytes=LOOK_BYTES, limit=limit):
        for found in filter(None, map(_batch_of, messages)):
            return found
        start, limit = messages[-1].offset + 1, 2 * LOOK_MESSAGES
    return None


def _batch_of(stored: Stored) -> _Found | None:
    try:
        head = head_of(stored.data)
    except ValueError:
        return None
    return _Found(stored.offset, head) if head.kind == "batch" else None


def _is_end(messages: list[Stored]) -> bool:
    """Return whether a look was ended by the end of the log."""
    return len(messages) < LOOK_MESSAGES and sum(len(each.data) for each in messages) < LOOK_BYTES


def _mark(found: _Found, position: int) -> Mark:
    head = found.head
    return Mark(found.offset, position, head.at, head.written_bytes, head.gateway, head.term)
