"""Removing the oldest entries of a shared log."""

import time
from typing import NamedTuple

from celery_gateway.log.engine import FIRST, Engine, LogError, LogGone
from celery_gateway.log.search import bounds, find_position, find_time


class Trimmed(NamedTuple):
    """The position of the first entry, before and after."""

    before: int
    after: int


async def trim_log(
    engine: Engine, *, position: int | None = None, age_seconds: float | None = None
) -> Trimmed | None:
    """Remove the entries before a position, or older than an age.

    A few batches more may stay (see ``search``), and the last one always does.

    Args:
        engine: the log, not open; it is closed in the end.
        position: of the first entry to keep.
        age_seconds: by this machine's clock.

    Returns:
        What was removed; ``None`` if there is no log.

    Raises:
        LogError: the server cannot be used, or cannot remove entries; or the position is beyond the end.
    """
    try:
        await engine.open(creates=False)
        await engine.trim(FIRST)  # it removes nothing, and fails at a server that cannot remove entries
        before = await bounds(engine)
        if before is None:
            return Trimmed(0, 0)
        if position is not None and position > before.last.position:
            raise LogError(
                f"the log ends at position {before.last.position}, before {position}. To remove all of it, "
                "delete it: celery-gateway log delete"
            )
        if position is not None:
            offset = await find_position(engine, position - 1)
        else:
            offset = await find_time(engine, time.time() - (age_seconds or 0.0))
        await engine.trim(offset)
        after = await bounds(engine)
        return Trimmed(before.first.position, (after or before).first.position)
    except LogGone:
        return None
    finally:
        await engine.close()
