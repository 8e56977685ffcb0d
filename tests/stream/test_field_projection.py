"""Field projections: events with fewer fields for some clients; what is shared, and what is freed."""

import asyncio
import gc
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.events.event import encode, pick
from celery_gateway.events.fields import Fields
from celery_gateway.events.filter import Filter
from celery_gateway.stream import framing
from celery_gateway.stream.framing import FORMATS, projected_framing
from celery_gateway.stream.hub import Hub
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_NAMES = st.sampled_from(["id", "type", "a", "b", "\u2028", "\x85", "c"])


@pytest.mark.slow
@settings(deadline=None, max_examples=tries(200))
@given(st.dictionaries(_NAMES, _VALUES), st.frozensets(_NAMES))
def test_a_projection_has_the_same_bytes_cached_or_not(
    event: dict[str, object], fields: frozenset[str]
) -> None:
    json = encode(event)
    assert framing._project_cached(json, Fields(fields)) == pick(json, fields)


def test_equal_projections_are_one_object_that_is_freed_with_its_last_client() -> None:
    gc.collect()
    before = len(framing._projections)
    kept = [projected_framing(FORMATS["sse"], Fields(frozenset({"name", "state"})), 0) for _ in range(3)]
    assert kept[0] is kept[1] is kept[2]
    names = [f"field-{number}" for number in range(2_000)]
    others = [projected_framing(FORMATS["sse"], Fields(frozenset({name})), 0) for name in names]
    assert len(framing._projections) == before + 2_001
    kept.clear()
    others.clear()
    gc.collect()
    assert len(framing._projections) == before


def test_longer_field_names_have_a_higher_cost() -> None:
    short = projected_framing(FORMATS["sse"], Fields(frozenset({"name"})), 0)
    names = frozenset({str(number) * 1_000 for number in range(50)})
    long = projected_framing(FORMATS["sse"], Fields(names), 0)
    assert FORMATS["sse"].cost == 0 < short.cost < 10
    assert long.cost >= 50 * 1_000 // 500


async def test_a_hundred_projections_cost_less_than_a_hundred_times_one() -> None:
    """Each event is decoded once for all projections."""

    async def cpu_seconds(how_many: int) -> float:
        hub = Hub()
        written = 0

        def write(data: bytes) -> None:
            nonlocal written
            written += 1

        for number in range(how_many):
            projection = projected_framing(FORMATS["sse"], Fields(frozenset({"name", f"field-{number}"})), 0)
            hub.subscribe(Filter(), projection).attach(write, lambda reason: None, lambda: None)
        while len(hub.scheduler):  # noqa: ASYNC110
            await asyncio.sleep(0)
        fields = {f"field-{number}": "x" * 20 for number in range(60)}
        began = time.thread_time()
        for number in range(50):
            hub.append({"type": "task-received", "name": f"{number}", **fields})
        hub.flush()
        assert written == 2 * how_many
        hub.close()
        return time.thread_time() - began

    one = min([await cpu_seconds(1) for _ in range(5)])
    assert min([await cpu_seconds(100) for _ in range(3)]) < 60 * one
