"""The memory of the statistics that streams report is charged, also while they are read."""

import gc
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import pytest

from celery_gateway.errors import OverLimit
from celery_gateway.state.activity_report import ActivityReader
from celery_gateway.stream import statistics_reports
from celery_gateway.stream.limits import Limits
from celery_gateway.stream.statistics_reports import SharedStatistics
from tests.state.test_activity import Shop, events_of

pytestmark = pytest.mark.unit

NAMES = 500
SPARE_BYTES = 100_000
"""What a read takes beside the items."""


@pytest.fixture(scope="module")
def shop() -> Shop:
    shop = Shop()
    for number in range(NAMES):
        shop.receive(*events_of(f"u{number}", f"shop.name-{number}"))
    return shop


@pytest.fixture(autouse=True)
def each_read_is_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics_reports, "READ_SECONDS", 0.0)


class Lab:
    """Shared statistics of a shop whose clock is set."""

    def __init__(self, shop: Shop, window: float = 3_600.0, memory_bytes: int = 64 << 20) -> None:
        self.limits = Limits(memory_bytes=memory_bytes)
        self.at = 0.0
        self.shared = SharedStatistics(
            ActivityReader(shop.tasks.activity, window),
            lambda: (self.at, shop.now),
            self.limits.memory.reserve("c"),
            self.limits.filters.reserve("c"),
        )

    def read(self) -> Iterator[int]:
        """Read the statistics; yield what is charged after each step."""
        self.at += 10
        while not self.shared.refresh(self.at):
            yield self.limits.memory.used
        yield self.limits.memory.used


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("window", [60.0, 3_600.0])
def test_what_statistics_take_is_charged(shop: Shop, window: float) -> None:
    *_, _ = Lab(shop, window).read()  # what is made once for all is made
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    lab = Lab(shop, window)
    charged = [0]
    for now in lab.read():
        charged.append(now)
        assert tracemalloc.get_traced_memory()[0] - before < 1.2 * now + SPARE_BYTES
    assert all(now - earlier < 5_000 for earlier, now in pairwise(charged)), "with each item"
    gc.collect()
    held_bytes = tracemalloc.get_traced_memory()[0] - before
    assert 0.7 * charged[-1] < held_bytes < 1.2 * charged[-1]


def test_an_item_that_changes_is_charged_once(shop: Shop) -> None:
    lab = Lab(shop)
    *_, first = lab.read()
    shop.receive(*events_of("new", "shop.name-0"))
    *_, second = lab.read()
    assert abs(second - first) < 100
    assert len(lab.shared.items) == NAMES
    lab.shared.release()
    assert lab.limits.memory.used == 0


def test_a_read_without_memory_is_repeated(shop: Shop) -> None:
    lab = Lab(shop)
    *_, needed_bytes = lab.read()
    lab = Lab(shop, memory_bytes=2 * needed_bytes)  # a client may have a half of it
    other = lab.limits.memory.reserve("other")
    other.grow(needed_bytes)
    for _ in range(2):
        with pytest.raises(OverLimit):
            list(lab.read())
        assert lab.limits.memory.used == needed_bytes
        assert not len(lab.shared.items)
    other.release()
    *_, charged = lab.read()
    assert (charged, len(lab.shared.items)) == (needed_bytes, NAMES)
