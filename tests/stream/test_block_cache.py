"""The cache of blocks and the index of offsets, against models that keep everything."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.stream.block_cache import MIN_BLOCKS, Block, BlockCache
from celery_gateway.stream.history import Entry
from celery_gateway.stream.offset_index import MAX_PAIRS, STEP_ENTRIES, OffsetIndex
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

DRAWN = settings(deadline=None, max_examples=tries(200), derandomize=True)


def block(after: int, count: int) -> Block:
    entries = [Entry(b"t-%d" % (after + at), (), None, b"x" * 100) for at in range(1, count + 1)]
    return Block(after, entries, [(after + 1, float(after))], 2 * after)


@DRAWN
@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(1, 10)), max_size=60),
    st.integers(0, 60_000),
    st.data(),
)
def test_the_blocks_that_were_used_last_stay(
    added: list[tuple[int, int]], max_bytes: int, data: st.DataObject
) -> None:
    cache = BlockCache(max_bytes)
    kept: list[Block] = []  # the one used last at the end
    for after, count in added:
        new = block(after, count)
        cache.add(new)
        kept = [each for each in kept if each.after != after] + [new]
        while sum(each.size_bytes for each in kept) > max_bytes and len(kept) > MIN_BLOCKS:
            kept.pop(0)
        assert (len(cache), cache.size_bytes) == (len(kept), sum(each.size_bytes for each in kept))
        position = data.draw(st.integers(0, 210))
        begun = [each for each in kept if each.after <= position]
        nearest = max(begun, key=lambda each: each.after, default=None)
        found = cache.find(position)
        if nearest is not None and position < nearest.last:
            assert found is nearest
            kept.remove(nearest)
            kept.append(nearest)
        else:
            assert found is None


def test_a_time_is_found_in_the_block_that_has_it_and_the_time_before() -> None:
    cache = BlockCache(1 << 20)
    entries = block(10, 6).entries
    cache.add(Block(10, entries, [(11, 5.0), (13, 7.0), (15, 7.0), (16, 9.0)], 99))
    assert [cache.since(at) for at in (4.0, 5.0, 5.5, 7.0, 7.5, 9.0, 9.5)] == [
        *(None, None, 12),
        *(12, 15, 15, None),
    ]


@DRAWN
@given(st.lists(st.tuples(st.integers(1, 20_000), st.integers(0, 3)), max_size=60), st.integers(1, 21_000))
def test_the_index_has_an_offset_at_or_before_a_position(added: list[tuple[int, int]], position: int) -> None:
    index = OffsetIndex()
    offsets = {}
    for first, late in added:
        # Offsets and times grow with positions.
        offsets.setdefault(first, (first * 10, first + late / 10))
        index.add(first, *offsets[first])
    found = index.before(position, 2_000)
    if found is not None:
        assert position - 2_000 <= found // 10 <= position
    elif any(position - (2_000 - STEP_ENTRIES) <= first <= position for first in offsets):
        raise AssertionError("a batch close to it was thinned out without another one")
    at = index.before_time(float(position), 2_000)
    assert at is None or at / 10 <= position


def test_the_index_is_bounded() -> None:
    index = OffsetIndex()
    for number in range(3 * MAX_PAIRS):
        index.add(1 + number * STEP_ENTRIES, number, float(number))
    assert len(index) <= MAX_PAIRS
    assert index.before(1, 10) == 0
    assert index.before(3 * MAX_PAIRS * STEP_ENTRIES, 10_000) == 3 * MAX_PAIRS - 1
