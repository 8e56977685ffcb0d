"""Counts and durations by time: those of a window are those of a list of everything, added up."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.state.duration_history import SLOT_SECONDS, SLOTS, DurationHistory
from celery_gateway.state.lanes import lanes
from celery_gateway.state.quantile_sketch import bin_of, empty
from celery_gateway.state.time_buckets import BUCKET_SECONDS, BUCKETS, TimeBuckets, bucket_count, level_of

pytestmark = pytest.mark.unit

BEGIN = 1_795_000_000 // 8_640 * 8_640
gaps = st.one_of(
    st.integers(0, 40), st.integers(0, 2_000), st.integers(0, 100_000), st.just(10), st.just(8_640)
)
windows = st.sampled_from([60.0, 61.0, 300.0, 600.0, 601.0, 3_600.0, 7_200.0, 21_600.0, 50_000.0, 86_400.0])


@given(st.lists(st.tuples(gaps, st.integers(0, 2)), max_size=60), gaps, windows)
def test_the_counts_of_a_window_are_those_of_its_buckets(
    steps: list[tuple[int, int]], until: int, window: float
) -> None:
    buckets, time, events = TimeBuckets(3), BEGIN, []
    for gap, kind in steps:
        time += gap
        events.append((time, kind))
        counts = [0, 0, 0]
        counts[kind] = 2
        buckets.add(time // 10 * 10, counts)
    level, seconds = level_of(window), BUCKET_SECONDS[level_of(window)]
    last = (time + until) // seconds
    first = last - bucket_count(window) + 1
    found = buckets.read(level, first, last)
    expected = [
        2 * sum(at // seconds == number and of == kind for at, of in events)
        for number in range(first, last + 1)
        for kind in range(3)
    ]
    assert list(found) == expected
    assert len(found) <= 3 * BUCKETS
    assert window <= len(found) // 3 * seconds < window + seconds


def test_a_window_has_about_sixty_buckets_at_most() -> None:
    assert [bucket_count(window) for window in (60, 600, 3_600, 21_600, 86_400)] == [6, 60, 60, 60, 60]


@settings(max_examples=200)
@given(
    st.lists(st.tuples(gaps, st.integers(0, 1), st.floats(0, 100)), max_size=60),
    st.integers(0, 100_000),
    st.integers(0, len(SLOT_SECONDS) - 1),
)
def test_the_durations_of_a_window_are_those_of_its_slots(
    steps: list[tuple[int, int, float]], until: int, level: int
) -> None:
    history, time, slot, all_of = DurationHistory(), BEGIN, BEGIN, []
    for gap, kind, seconds in steps:
        time += gap
        begin = time // SLOT_SECONDS[0] * SLOT_SECONDS[0]
        if begin != slot:
            history.close(slot, begin)
            slot = begin
        history.add(kind, seconds)
        all_of.append((time, kind, seconds))
    length = SLOT_SECONDS[level]
    first = (time + until - SLOTS * length) // length * length
    for _ in range(2):  # the second time from the cache
        found = history.read(level, first, slot)
        for kind in (0, 1):
            expected = [seconds for at, of, seconds in all_of if of == kind and at >= first]
            bins = empty()
            for seconds in expected:
                bins[bin_of(seconds)] += 1
            assert found[kind] == (lanes(bins), max(expected, default=0.0))


def test_old_slots_are_dropped() -> None:
    history = DurationHistory()
    for minute in range(3 * 1_440):
        history.add(0, 1.0)
        history.close(BEGIN + 60 * minute, BEGIN + 60 * minute + 60)
    slots = history.size_bytes
    for minute in range(3 * 1_440, 4 * 1_440):
        history.add(0, 1.0)
        history.close(BEGIN + 60 * minute, BEGIN + 60 * minute + 60)
    assert history.size_bytes <= slots
    while history.drop_oldest():
        pass
    assert history.size_bytes == 0
