"""Reports beside events: in turn with the entries, bounded, and once for a slow client."""

import asyncio
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from celery_gateway.errors import OverLimit
from celery_gateway.events.filter import Filter
from celery_gateway.pipeline.clock import Clock
from celery_gateway.pipeline.reporting import Reporting
from celery_gateway.state.worker_roster import Roster
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.stream.framing import FORMATS
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.limits import Limits
from celery_gateway.stream.reports import REPORTS_BYTES
from celery_gateway.stream.statistics_reports import StatisticsRequest
from celery_gateway.stream.subscription import Subscription
from tests.support.virtual_time import run

pytestmark = pytest.mark.unit

Message = dict[str, Any]
FRAMING = FORMATS["ndjson"]
_COUNTS = (
    *("waiting", "lost", "received", "started", "succeeded", "failed", "retried", "revoked"),
    "rejected",
)


def virtual_epoch() -> float:
    """Return epoch seconds that pass as the loop's time does."""
    return 1_795_000_000.0 + asyncio.get_running_loop().time()


class FakeStatistics:
    """Statistics that a test sets: a number for each name."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.reads = 0
        self.padding = ""
        self.always_may_have_changed = False
        self._before: dict[str, int] | None = None
        self.names: list[Any] = []
        self.other: dict[str, Any] | None = None
        self.total: dict[str, Any] = {}
        self.head: dict[str, float | None] = {}
        self.is_changed = False

    def may_have_changed(self, now: float) -> bool:
        return self.always_may_have_changed or self.values != self._before

    def read(self, now: float, make: Callable[[dict[str, Any]], Any]) -> Iterator[None]:
        self.reads += 1
        before, values = self._before or {}, dict(self.values)
        names = []
        for name, value in values.items():
            if before.get(name) != value:
                names.append(make(_item(name, value) | {"padding": self.padding}))
            yield
        self.is_changed = self._before is None or before != values
        self._before, self.names = values, names
        self.total = _item(None, sum(self._before.values()))
        self.head = {"window": 60.0, "time": now, "since": now}


def _item(name: str | None, value: int) -> dict[str, Any]:
    counts = dict.fromkeys(_COUNTS, 0)
    return {"name": name, "running": value} | counts


class Lab:
    """A hub, workers and statistics, in virtual time."""

    def __init__(self, memory_bytes: int = 64 << 20) -> None:
        self.limits = Limits(memory_bytes=memory_bytes)
        self.hub = Hub(limits=self.limits)
        self.workers = WorkerTable()
        self.statistics = FakeStatistics()
        self.clock = 0
        self.reporting = Reporting(self.workers, Roster(self.workers), Clock(virtual_epoch), self.limits)

    def beat(self, *hostnames: str, type: str = "worker-heartbeat") -> None:
        self.clock += 1
        now = asyncio.get_running_loop().time()
        for hostname in hostnames:
            event = {"type": type, "hostname": hostname, "pid": 1, "clock": self.clock, "freq": 2.0}
            self.workers.on_event(event, now)

    def stream(
        self, *, has_workers: bool = True, key: str = "", interval_seconds: float = 1.0, **options: Any
    ) -> "Client":
        options["client"] = options.pop("name", key or "c")
        return Client(self, has_workers, key, interval_seconds, **options)


class Client:
    """A pushed stream; its transport is full as the test wants it."""

    def __init__(
        self, lab: Lab, has_workers: bool, key: str, interval_seconds: float, **options: Any
    ) -> None:
        self.chunks: list[list[Message]] = []
        self.sizes: list[int] = []
        self.is_aborted = False
        self.subscription: Subscription = lab.hub.subscribe(Filter(), FRAMING, **options)
        request = StatisticsRequest(key, lambda: lab.statistics, interval_seconds) if key else None
        lab.reporting.add(
            self.subscription, workers=(lambda _, json: json) if has_workers else None, statistics=request
        )
        self.subscription.attach(self.write, lambda reason: None, self.abort)

    def write(self, chunk: bytes) -> None:
        self.sizes.append(len(chunk))
        self.chunks.append([json.loads(line) for line in chunk.splitlines()])

    def abort(self) -> None:
        self.is_aborted = True

    @property
    def messages(self) -> list[Message]:
        return [message for chunk in self.chunks for message in chunk]

    @property
    def workers(self) -> list[tuple[str, str]]:
        reported = [each["worker"] for each in self.messages if each["type"] == "gateway-worker"]
        return [(worker["hostname"], worker["status"]) for worker in reported]

    @property
    def statistics(self) -> list[dict[str, int]]:
        reported = [each for each in self.messages if each["type"] == "gateway-statistics"]
        return [{item["name"]: item["running"] for item in each["names"]} for each in reported]


def test_a_slow_client_gets_the_newest_state_once() -> None:
    """Its transport is full while a worker comes and goes, and statistics change."""

    async def main() -> None:
        lab = Lab()
        lab.beat("a", "b")
        lab.statistics.values = {"x": 1, "y": 1}
        client = lab.stream(key="k")
        await asyncio.sleep(1)
        assert client.workers == [("a", "online"), ("b", "online")]
        assert client.statistics == [{"x": 1, "y": 1}]
        client.subscription.pause()
        count = len(client.chunks)
        for number in range(2, 30):
            lab.beat("a", type="worker-offline" if number % 2 else "worker-online")
            lab.beat("b")
            lab.statistics.values["x"] = number
            lab.hub.append({"type": "e", "number": number})
            await asyncio.sleep(2)
        assert len(client.chunks) == count, "its buffer is full"
        assert lab.limits.memory.used < 20_000
        client.subscription.resume()
        await asyncio.sleep(3)
        assert client.workers[2:] == [("a", "offline")]
        assert client.statistics[1:] == [{"x": 29}]
        assert [each["number"] for each in client.messages if each["type"] == "e"] == list(range(2, 30))
        lab.reporting.close()

    run(main())


def test_many_workers_are_listed_in_turns_with_the_entries() -> None:
    async def main() -> None:
        lab = Lab()
        lab.beat(*[f"w{number:04d}" for number in range(5_000)])
        for number in range(20_000):
            lab.hub.append({"type": "e", "number": number, "text": "x" * 200})
        lab.hub.flush()
        other = lab.stream(has_workers=False)
        client = lab.stream(since=0.0)
        await asyncio.sleep(2)
        assert [name for name, _ in client.workers] == [f"w{number:04d}" for number in range(5_000)]
        assert [each["number"] for each in client.messages if each["type"] == "e"] == list(range(20_000))
        assert max(client.sizes) < 3 * REPORTS_BYTES
        kinds = [chunk[0]["type"] for chunk in client.chunks[1:]]
        last = min(len(kinds) - kinds[::-1].index(kind) for kind in ("e", "gateway-worker"))
        assert ("gateway-worker", "gateway-worker") not in set(pairwise(kinds[:last]))
        positions = [lab.hub.position_of(each["id"]) or 0 for each in client.messages]
        assert positions == sorted(positions)
        assert not other.workers
        lab.reporting.close()

    run(main())


def test_streams_with_equal_scopes_read_the_statistics_once() -> None:
    async def main() -> None:
        lab = Lab()
        lab.statistics.values = {f"n{number}": 1 for number in range(50)}
        clients = [lab.stream(has_workers=False, key="k") for _ in range(20)]
        await asyncio.sleep(0.4)
        assert lab.statistics.reads == 1
        late = lab.stream(has_workers=False, key="k")
        for number in range(2, 10):
            lab.statistics.values["n7"] = number
            await asyncio.sleep(1)
        assert lab.statistics.reads <= 18, "each half a second at most"
        await asyncio.sleep(2)
        for client in clients:
            assert len(client.statistics[0]) == 50
            assert all(each.keys() == {"n7"} for each in client.statistics[1:])
            assert client.statistics[-1] == {"n7": 9}
        assert len(late.statistics[0]) == 50
        lab.reporting.close()
        assert not lab.reporting._shares._shared
        assert lab.limits.memory.used <= 21 * 4_000

    run(main())


@pytest.mark.parametrize("is_read", [False, True], ids=["nothing-can-have-changed", "nothing-has-changed"])
def test_a_stream_that_begins_after_the_last_change_gets_its_own_time(is_read: bool) -> None:
    async def main() -> None:
        lab = Lab()
        lab.statistics.values = {"n": 1}
        lab.statistics.always_may_have_changed = is_read
        first = lab.stream(has_workers=False, key="k")
        await asyncio.sleep(50)
        second = lab.stream(has_workers=False, key="k")
        await asyncio.sleep(1)
        (begun,) = (each["time"] for each in first.messages if each["type"] == "gateway-statistics")
        (later,) = (each["time"] for each in second.messages if each["type"] == "gateway-statistics")
        assert 49 <= later - begun <= 51
        lab.reporting.close()

    run(main())


def test_a_long_report_is_divided() -> None:
    async def main() -> None:
        lab = Lab()
        lab.statistics.padding = "x" * 1_000
        lab.statistics.values = {f"n{number}": 1 for number in range(500)} | {"idle": 0}
        client = lab.stream(has_workers=False, key="k")
        await asyncio.sleep(2)
        assert len(client.statistics) > 5 and max(client.sizes) < 2 * REPORTS_BYTES
        parts = [each["done"] for each in client.messages if each["type"] == "gateway-statistics"]
        assert parts == [False] * (len(parts) - 1) + [True]
        found = [name for each in client.statistics for name in each]
        assert sorted(found) == sorted(f"n{number}" for number in range(500)), (
            "each once; none without activity"
        )
        lab.reporting.close()

    run(main())


def test_statistics_that_need_too_much_memory_end_the_stream() -> None:
    async def main() -> None:
        lab = Lab(memory_bytes=300_000)
        lab.statistics.padding = "x" * 1_000
        lab.statistics.values = {f"n{number}": 1 for number in range(500)}
        greedy, other = lab.stream(key="greedy"), lab.stream(has_workers=False)
        await asyncio.sleep(2)
        assert greedy.messages[-1]["type"] == "gateway-close" and greedy.messages[-1]["reason"] == "limit"
        assert greedy.subscription.is_ended and not other.subscription.is_ended
        lab.reporting.close()

    run(main())


def test_an_error_in_a_report_ends_its_own_stream(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        lab = Lab()
        lab.statistics.values = {"x": 1}
        failing, other = lab.stream(key="k"), lab.stream()

        def broken(now: float) -> bool:
            raise ZeroDivisionError

        lab.statistics.may_have_changed = broken  # type: ignore[method-assign]
        lab.beat("a")
        await asyncio.sleep(3)
        assert failing.is_aborted and failing.subscription.is_ended
        assert other.workers == [("a", "online")] and not other.is_aborted
        lab.reporting.close()

    run(main())


@pytest.mark.parametrize("ends", ["close", "end"])
def test_the_reports_of_a_stream_end_with_it(ends: str) -> None:
    async def main() -> None:
        lab = Lab()
        lab.beat("a")
        lab.statistics.values = {"x": 1}
        client = lab.stream(key="k", max_rate=5)
        await asyncio.sleep(1)
        end: Callable[[], None] = (
            client.subscription.close if ends == "close" else lambda: client.subscription.end("drain")
        )
        end()
        count = len(client.chunks)
        lab.beat("b")
        lab.statistics.values = {"x": 2}
        await asyncio.sleep(3)
        assert len(client.chunks) == count
        assert not len(lab.reporting._timer) and lab.limits.memory.used == 0
        assert lab.reporting._watch._handle is None and lab.reporting._timer._handle is None

    run(main())


def test_a_client_may_have_some_different_statistics() -> None:
    async def main() -> None:
        lab = Lab()
        first = lab.stream(has_workers=False, key="0")
        count = 1
        with pytest.raises(OverLimit, match="filters"):
            for count in range(1, 200):
                lab.stream(has_workers=False, key=str(count), name="one")
        assert 40 < count < 60, "half of what there is"
        lab.stream(has_workers=False, key="0", name="one")
        first.subscription.close()
        lab.reporting.close()
        assert lab.limits.filters.used == Filter().cost and not lab.reporting._shares._shared

    run(main())


async def test_a_client_over_its_memory_is_refused() -> None:
    lab = Lab(memory_bytes=6_000)
    with pytest.raises(OverLimit):
        lab.stream()
    assert not len(lab.reporting._timer)
