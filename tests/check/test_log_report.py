"""What ``check`` and ``log`` find out about a shared log, here of the engine in memory."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from celery_gateway.check.log_report import LogReport, duration_text, log_report, size_text
from celery_gateway.check.log_trim import trim_log
from celery_gateway.check.rabbitmq_log_probe import version_step
from celery_gateway.log.batch import Head, Line, encode
from celery_gateway.log.engine import LogError
from celery_gateway.log.memory_log import MemoryLog, MemoryServer

pytestmark = pytest.mark.unit

LINE = Line(b'{"type":"task-started"}', 1)


class Log:
    """A log and what is written to it; times are in seconds before now."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.engine: MemoryLog = self.server.engine()
        self.position = 0
        self.written = 0

    async def open(self) -> "Log":
        await self.engine.open()
        return self

    def write(self, kind: str, term: str, gateway: str, *, ago: float = 0.0, first: int = 0) -> None:
        self.engine.append(encode(Head(kind, term, gateway, time.time() - ago, first=first)))

    def batch(self, term: str, gateway: str, count: int, *, ago: float = 0.0) -> None:
        """Append a batch at the end."""
        self.written += 100 * count
        head = Head("batch", term, gateway, time.time() - ago, first=self.position + 1)
        head.written_bytes = self.written
        self.engine.append(encode(head, [LINE] * count))
        self.position += count

    async def report(self) -> LogReport | None:
        return await log_report(self.server.engine())

    @asynccontextmanager
    async def leader(self, term: str, gateway: str) -> AsyncIterator[None]:
        """A leader that is alive."""

        async def beat() -> None:
            while True:
                await asyncio.sleep(0.05)
                self.batch(term, gateway, 0)

        task = asyncio.create_task(beat())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celery_gateway.check.log_report.LEADER_SECONDS", 0.2)


async def test_a_log_that_does_not_exist_is_not_created() -> None:
    log = Log()
    assert await log.report() is None
    assert await log.report() is None, "the first report has created it"
    assert await trim_log(log.server.engine(), position=1) is None


async def test_an_empty_log(is_fast: None) -> None:
    log = await Log().open()
    report = await log.report()
    assert report and (report.first, report.last, report.entries, report.leader) == (0, 0, 0, "")
    log.write("claim", "aa", "g1")
    log.batch("aa", "g1", 0)
    report = await log.report()
    assert report and (report.first, report.last, report.entries, report.bytes) == (0, 0, 0, 0)


async def test_bounds_and_leader() -> None:
    log = await Log().open()
    log.write("claim", "aa", "g1", ago=100)
    log.batch("aa", "g1", 10, ago=90)
    log.batch("aa", "g1", 5, ago=30)
    async with log.leader("aa", "g1"):
        report = await log.report()
    assert report and (report.first, report.last, report.entries) == (1, 15, 15)
    assert report.bytes == 500  # of what follows the first batch, whose own size is not known
    assert 89 < report.first_seconds < 95 and report.last_seconds < 5
    assert (report.leader, report.term) == ("g1", "aa")


async def test_a_leader_that_writes_no_more_does_not_lead(is_fast: None) -> None:
    log = await Log().open()
    log.write("claim", "aa", "g1")
    log.batch("aa", "g1", 10)
    waited: list[str] = []
    report = await log_report(log.server.engine(), waited.append)
    assert report and (report.leader, report.term, report.last) == ("", "aa", 10)
    assert waited


async def test_batches_of_a_replaced_leader_do_not_count() -> None:
    log = await Log().open()
    log.write("claim", "aa", "g1")
    log.batch("aa", "g1", 10)
    log.write("claim", "bb", "g2")
    log.batch("bb", "g2", 3)
    log.engine.append(encode(Head("batch", "aa", "g1", time.time(), first=11), [LINE] * 7))
    async with log.leader("bb", "g2"):
        report = await log.report()
    assert report and (report.leader, report.last) == ("g2", 13)


async def test_the_lag_of_each_gateway() -> None:
    log = await Log().open()
    log.write("claim", "aa", "g1")
    log.batch("aa", "g1", 10)
    log.write("seen", "aa", "slow", first=4, ago=3)
    log.write("seen", "aa", "quick", first=10)
    log.write("seen", "aa", "g1", first=10)  # before it began to lead
    log.batch("aa", "g1", 5)
    async with log.leader("aa", "g1"):
        report = await log.report()
    assert report
    by_name = {each.name: each for each in report.readers}
    assert set(by_name) == {"slow", "quick"}
    assert (by_name["quick"].position, by_name["quick"].lag) == (10, 0)
    assert (by_name["slow"].position, by_name["slow"].lag) == (4, 6)
    assert 2.9 < by_name["slow"].seconds < 30


async def test_a_log_of_a_later_version(is_fast: None) -> None:
    log = await Log().open()
    log.engine.append(encode(Head("batch", "aa", "g1", time.time(), first=1, version=99), [LINE]))
    with pytest.raises(LogError, match=r"later version .* Use the version"):
        await log.report()


async def test_trimming_by_position_and_age(is_fast: None) -> None:
    log = await Log().open()
    log.write("claim", "aa", "g1", ago=1_000)
    for ago in range(1_000, 0, -10):
        log.batch("aa", "g1", 10, ago=ago)

    async def first_after(**before: float) -> int:
        trimmed = await trim_log(log.server.engine(), **before)  # type: ignore[arg-type]
        report = await log.report()
        assert trimmed and report and trimmed.after == report.first
        return trimmed.after

    assert await first_after(position=1) == 1
    assert 100 < await first_after(position=205) <= 201  # batches are removed, or stay, as a whole
    assert 700 < await first_after(age_seconds=200) <= 801
    with pytest.raises(LogError, match=r"ends at position 1000, before 1001\."):
        await trim_log(log.server.engine(), position=1_001)
    assert 801 < await first_after(age_seconds=0) <= 991  # the last batch stays


def test_versions_of_rabbitmq() -> None:
    for product, version in (
        ("RabbitMQ", "3.9.0"),
        ("RabbitMQ", "4.2.1"),
        ("LavinMQ", "2.1.0"),
        ("RabbitMQ", ""),
    ):
        assert version_step(product, version) is None
    step = version_step("RabbitMQ", "3.8.35")
    assert step and (step.status, step.finding) == ("failed", "log-too-old")


def test_sizes_and_durations() -> None:
    assert [size_text(size) for size in (0, 1_023, 1_536, 64 << 20, 3 << 40)] == [
        "0 bytes",
        "1023 bytes",
        "1.5 KiB",
        "64.0 MiB",
        "3.0 TiB",
    ]
    assert [duration_text(seconds) for seconds in (0, 89, 90, 5_399, 5_400, 86_400, 259_200)] == [
        "0 s",
        "89 s",
        "2 min",
        "90 min",
        "2 h",
        "24 h",
        "3.0 d",
    ]
