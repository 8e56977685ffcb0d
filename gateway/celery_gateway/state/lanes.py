"""Many counts in one integer, 32 bits each: so that adding two lists of counts takes one addition.

No sum of counts reaches 2 ** 32: that many events take weeks. Pure.
"""

from array import array

LANE_BYTES = array("I").itemsize


def lanes(counts: "array[int]", first: int = 0) -> int:
    """Return counts as one integer.

    Args:
        first: the position of the first count.
    """
    return int.from_bytes(counts.tobytes(), "little") << (8 * LANE_BYTES * first)


def counts_of(number: int, length: int = 0) -> "array[int]":
    """Return the counts in an integer, up to the last one that is not 0.

    Args:
        length: how many counts there are at least.
    """
    needed = -(-number.bit_length() // (8 * LANE_BYTES))
    counts = array("I")
    counts.frombytes(number.to_bytes(LANE_BYTES * max(length, needed), "little"))
    return counts
