"""`since=` after the wall clock was set: no event is missed without a gap."""

import random
from datetime import UTC, datetime
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.http.stream_query import parse_since
from celery_gateway.stream import hub as hub_module
from celery_gateway.stream.history import Entry, History, Moment
from celery_gateway.stream.hub import Hub
from tests.stream.test_hub import EVERYTHING, Reader
from tests.stream.test_hub import NDJSON_FRAMING as FRAMING
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

HOUR = 3600.0
START = 1_795_234_871.0


class Clocks:
    """A monotonic clock, and a wall clock that can be set; in place of the module `time`."""

    def __init__(self) -> None:
        self.passed = 1_000.0  # monotonic time
        self.ahead = START - self.passed

    def monotonic(self) -> float:
        return self.passed

    def time(self) -> float:
        return self.passed + self.ahead


class Taken(NamedTuple):
    position: int
    wall: float  # wall time of its arrival, as the clock was set then
    monotonic: float


class Log:
    """A history, and the times of its entries."""

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.history = History(max_bytes=max_bytes)
        self.clocks = Clocks()
        self.taken: list[Taken] = []

    def append(self) -> None:
        position = self.history.position + 1
        self.history.append(
            Entry(self.history.id_of(position), (), None, b"{}", self.clocks.monotonic()), self.clocks.time()
        )
        self.taken.append(Taken(position, self.clocks.time(), self.clocks.monotonic()))

    def since(self, moment: float) -> int:
        return self.history.position_since(Moment(moment), self.clocks.monotonic(), self.clocks.time())


steps = st.lists(
    st.tuples(
        st.floats(0.001, 50),  # seconds until the next entry
        st.one_of(st.just(0.0), st.sampled_from([HOUR, -HOUR, 1.5, -1.5, 1e8, -1e8]), st.floats(-100, 100)),
    ),
    min_size=1,
    max_size=40,
)


@settings(deadline=None, max_examples=tries(60))
@given(steps=steps, kept=st.integers(1, 40), data=st.data())
def test_all_entries_since_a_time_are_returned_or_reported_as_evicted(
    steps: list[tuple[float, float]], kept: int, data: st.DataObject
) -> None:
    log = Log(max_bytes=kept * Entry(b"", (), None, b"{}").size_bytes)
    for seconds, step in steps:
        log.clocks.passed += seconds
        log.clocks.ahead += step
        log.append()
    walls = [each.wall for each in log.taken]
    wanted = data.draw(st.sampled_from(walls)) + data.draw(st.sampled_from([0.0, -0.5, -HOUR, -20.0]))
    matching = [each.position for each in log.taken if each.wall >= wanted]
    position = log.since(wanted)
    first = min(matching)
    if first > log.history.evicted:
        assert position < first
    else:
        assert position == log.history.evicted > 0, "the hub reports a gap then"


@settings(deadline=None)
@given(gaps=st.lists(st.floats(0.001, 50), min_size=1, max_size=40), data=st.data())
def test_the_position_is_exact_while_the_clock_is_not_set(gaps: list[float], data: st.DataObject) -> None:
    log = Log()
    for seconds in gaps:
        log.clocks.passed += seconds
        log.append()
    number = data.draw(st.integers(0, len(gaps) - 1))
    wall = log.taken[number].wall
    assert log.since(wall + 0.0005) == number + 1
    assert log.since(wall - 0.0005) == number
    assert log.since(log.taken[-1].wall + 1) == len(gaps)
    assert log.since(0) == 0


@pytest.mark.slow
def test_the_number_of_clock_readings_is_bounded() -> None:
    log = Log()
    rng = random.Random(1)
    for _ in range(5_000):
        log.clocks.passed += 1
        log.clocks.ahead += rng.uniform(-100, 100)
        log.append()
    assert len(log.history._readings) <= 1_000
    for wall in (log.taken[0].wall, log.taken[-1].wall):
        first = next(each.position for each in log.taken if each.wall >= wall)
        assert log.since(wall) < first


STEPS = [HOUR, -HOUR, 10.0, -10.0, -3.0, 1e8, -1e8]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("first", [0, 2, 4, 5, 14])
async def test_a_client_gets_all_events_since_a_moment_or_an_age(
    monkeypatch: pytest.MonkeyPatch, step: float, first: int
) -> None:
    """Five events, a step of the clock, ten events; the client asks for the events since one of them."""
    clocks = Clocks()
    monkeypatch.setattr(hub_module, "time", clocks)
    hub = Hub()
    moments = []
    for number in range(15):
        clocks.passed += 1
        if number == 5:
            clocks.ahead += step
        hub.append({"type": "a", "number": number})
        moments.append(clocks.time())
    hub.flush()
    wanted = parse_since(datetime.fromtimestamp(moments[first], UTC).isoformat())
    assert numbers_since(hub, wanted) >= set(range(first, 15))
    # An age counts monotonic time, however the wall clock was set.
    assert numbers_since(hub, clocks.time() - 9.5) == set(range(5, 15))
    assert numbers_since(hub, clocks.time() - 11.5) == set(range(3, 15))
    assert numbers_since(hub, 0) == set(range(15))


def numbers_since(hub: Hub, since: float | None) -> set[int]:
    subscription = hub.subscribe(EVERYTHING, FRAMING, since=since)
    reader = Reader(subscription)
    reader.drain()
    subscription.close()
    assert reader.controls[0]["resume"] == "resumed"
    return set(reader.numbers)
