"""Quantiles of durations from counts in logarithmic bins (as DDSketch, Masson et al., VLDB 2019).

- A bin has the durations of one range. The bounds of a range differ by ``GAMMA``, so its middle differs by at
  most ``ERROR`` from each duration in it, relative to the duration.
- Durations below ``MIN_SECONDS`` are in one bin, and count as 0. Longer ones than ``MAX_SECONDS`` are no
  durations: wrong clocks have caused them.
- The bins of several sketches are added to merge them. The number of bins is bounded: ``MAX_BINS``.

While a sketch grows it is an array of counts. It is kept as bytes (``pack``), and read as ``lanes``. Pure.
"""

from array import array
from bisect import bisect_left
from itertools import accumulate
from math import ceil, log
from struct import Struct

from celery_gateway.state.lanes import counts_of, lanes
from celery_gateway.state.task_fields import MAX_DURATION_SECONDS

ERROR = 0.019
"""The maximum relative error of a quantile, without the rounding of numbers."""
GAMMA = (1 + ERROR) / (1 - ERROR)
MIN_SECONDS = 1e-4
MAX_SECONDS = MAX_DURATION_SECONDS
SCALE = 1 / log(GAMMA)
OFFSET = -log(MIN_SECONDS) * SCALE + 1
"""The number of a bin is ``int(log(seconds) * SCALE + OFFSET)``, and 0 below ``MIN_SECONDS``."""
MAX_BINS = int(log(MAX_SECONDS) * SCALE + OFFSET) + 1

_HEAD = Struct("<cH")
_TYPES = (("B", 1 << 8), ("H", 1 << 16), ("I", 1 << 32))
"""Codes of arrays with the limit of their numbers."""


def bin_of(seconds: float) -> int:
    """Return the number of the bin of a duration, from 0 to ``MAX_SECONDS`` seconds."""
    return 0 if seconds < MIN_SECONDS else int(log(seconds) * SCALE + OFFSET)


def middle(bin: int) -> float:
    """Return the duration in seconds that stands for a bin."""
    return 0.0 if bin == 0 else MIN_SECONDS * GAMMA ** (bin - 1) * 2 * GAMMA / (GAMMA + 1)


def empty() -> "array[int]":
    """Return the counts of all bins of a sketch without durations."""
    return array("I", bytes(4 * MAX_BINS))


def pack(counts: "array[int]") -> bytes:
    """Return counts as bytes, without the empty bins at both ends; no bytes for no counts."""
    raw = counts.tobytes()
    first = (len(raw) - len(raw.lstrip(b"\0"))) // 4
    end = (len(raw.rstrip(b"\0")) + 3) // 4
    if first >= end:
        return b""
    used = counts[first:end]
    highest = max(used)
    code = next(code for code, limit in _TYPES if highest < limit)
    return _HEAD.pack(code.encode(), first) + array(code, used).tobytes()


def packed_lanes(packed: bytes) -> int:
    """Return packed counts as ``lanes``, by bin."""
    if not packed:
        return 0
    code, first = _HEAD.unpack_from(packed)
    return lanes(array("I", array(code.decode(), packed[_HEAD.size :])), first)


def quantiles(bins: int, parts: tuple[float, ...]) -> tuple[int, list[float]]:
    """Return the number of durations, and quantiles in seconds, by nearest rank.

    Args:
        bins: the counts by bin, as ``lanes``; there is at least one duration.
        parts: each above 0 and at most 1.
    """
    sums = list(accumulate(counts_of(bins)))
    total = sums[-1]
    return total, [middle(bisect_left(sums, ceil(part * total))) for part in parts]
