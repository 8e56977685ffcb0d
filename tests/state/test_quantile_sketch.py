"""Quantiles of durations: within 2 % of those of the sorted durations."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_gateway.state.lanes import counts_of
from celery_gateway.state.quantile_sketch import (
    MAX_BINS,
    MAX_SECONDS,
    MIN_SECONDS,
    bin_of,
    empty,
    middle,
    pack,
    packed_lanes,
    quantiles,
)

pytestmark = pytest.mark.unit

PARTS = (0.01, 0.5, 0.95, 0.99, 1.0)
durations = (
    st.floats(0, MAX_SECONDS) | st.floats(0, 10) | st.sampled_from([0.0, MIN_SECONDS, MAX_SECONDS, 1.0])
)


def counted(seconds: list[float]) -> int:
    counts = empty()
    for each in seconds:
        counts[bin_of(each)] += 1
    return packed_lanes(pack(counts))


@given(st.lists(durations, min_size=1, max_size=200))
def test_quantiles_are_within_two_percent_of_the_exact_ones(seconds: list[float]) -> None:
    ordered = sorted(seconds)
    count, all_found = quantiles(counted(seconds), PARTS)
    assert count == len(seconds)
    for part, found in zip(PARTS, all_found, strict=True):
        exact = ordered[ceil(part * len(ordered)) - 1]
        assert abs(found - exact) <= max(0.02 * exact, MIN_SECONDS), (part, exact, found)


@given(durations)
def test_each_duration_has_a_bin_whose_middle_is_near_it(seconds: float) -> None:
    assert 0 <= bin_of(seconds) < MAX_BINS
    assert abs(middle(bin_of(seconds)) - seconds) <= max(0.02 * seconds, MIN_SECONDS)


@given(st.dictionaries(st.integers(0, MAX_BINS - 1), st.integers(1, (1 << 31) - 1), max_size=30))
def test_packed_counts_are_the_same_and_take_few_bytes(expected: dict[int, int]) -> None:
    counts = empty()
    for bin, count in expected.items():
        counts[bin] = count
    packed = pack(counts)
    assert counts_of(packed_lanes(packed), MAX_BINS) == counts
    doubled = counts_of(2 * packed_lanes(packed))
    assert {bin: count for bin, count in enumerate(doubled) if count} == {
        bin: 2 * count for bin, count in expected.items()
    }
    width = 4 if max(expected.values(), default=0) >= 1 << 16 else 2
    span = max(expected) - min(expected) + 1 if expected else 0
    assert len(packed) <= 3 + width * span
