"""The state that ``top`` shows: the newest values of a stream, and of the polled lists. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from celery_gateway.cli.terminal import text_of
from celery_gateway.cli.top_numbers import count, number

Message = dict[str, Any]
Sort = Literal["busy", "failed", "waiting", "runtime", "wait", "name"]
SORTS: Final[tuple[Sort, ...]] = ("busy", "failed", "waiting", "runtime", "wait", "name")
QUIET_SECONDS: Final = 20.0
"""A stream has a keep-alive about every 15 s: longer silence means that something hangs."""
DEAD_SECONDS: Final = 45.0
MAX_WORKERS: Final = 10_000
"""As in the gateway."""
_ENDS: Final = ("succeeded", "failed", "retried")
_SHORT_SECONDS: Final = 60.0
"""A window that is shorter by less than this counts as whole: its oldest bucket is a part."""


@dataclass(frozen=True)
class Row:
    """The statistics of the tasks with one name. Durations in seconds; ``None``: not known."""

    name: str
    cluster: str
    running: int
    waiting: int
    ended: int
    """How many attempts ended in the window, retries included."""
    failed: int
    finished: int
    """How many tasks succeeded or failed in the window."""
    per_minute: float | None
    history: tuple[int, ...]
    """The ended attempts of each bucket, oldest first."""
    runtime: tuple[float | None, float | None]
    """p50 and p95."""
    wait: tuple[float | None, float | None]
    last_failure: tuple[str, float] | None
    """The exception, and when (epoch seconds)."""


@dataclass(frozen=True)
class Health:
    """How current the values are.

    Attributes:
        level: ``ok`` only if data came lately and the gateway consumes from each broker.
        text: the reason, for people.
    """

    level: Literal["ok", "waiting", "bad"]
    text: str


@dataclass
class Overview:
    """All that is known. Times are epoch seconds, of this machine unless noted.

    Attributes:
        refused: the parts that the token does not show, such as ``queues``.
        workers: records by cluster and hostname; ``None`` until they are known.
        queues: ``None`` until they are known.
    """

    refused: set[str] = field(default_factory=set)
    workers: dict[tuple[str, str], Message] | None = None
    queues: list[Message] | None = None
    has_statistics: bool = False
    _heard: float | None = None
    _problem: str = ""
    _sources: list[Message] | None = None
    _items: dict[tuple[str, str], Message] = field(default_factory=dict)
    _total: Message | None = None
    _other: Message | None = None
    _is_first: bool = True
    _ahead: float = 0.0
    """By how much the clock of the gateway is ahead of this machine's, in seconds."""
    _counted_since: float | None = None
    """Since when the gateway has counted, on its clock, if that is later than the window began."""

    def on_message(self, message: Message, now: float) -> None:
        """Take over a message of the stream, of any type."""
        self._heard, self._problem = now, ""
        kind = message.get("type")
        if kind == "gateway-open":
            self._is_first = True  # the statistics after it have all names
        elif kind == "gateway-status":
            self._sources = objects(message.get("sources"))
        elif kind == "gateway-statistics":
            self._on_statistics(message, now)
        elif kind == "gateway-worker" and isinstance(message.get("worker"), dict):
            self._put_worker(message["worker"])

    def on_problem(self, text: str) -> None:
        """Record why nothing arrives; the next message clears it."""
        self._problem = text

    def on_workers(self, workers: object) -> None:
        """Take over the records of ``GET /workers``: all of them."""
        self.workers = {}
        for worker in objects(workers):
            self._put_worker(worker)

    def on_queues(self, queues: object) -> None:
        """Take over the list of ``GET /queues``."""
        self.queues = objects(queues)

    def gateway_time(self, now: float) -> float:
        """Return a time of this machine on the clock of the gateway."""
        return now + self._ahead

    def counted_seconds(self, now: float) -> float | None:
        """Return for how long the gateway has counted; ``None`` if it is the whole window."""
        return None if self._counted_since is None else self.gateway_time(now) - self._counted_since

    def health(self, now: float) -> Health:
        """Return how current the values are."""
        if self._heard is None:
            return Health("waiting", self._problem or "connecting")
        age = now - self._heard
        if self._problem:
            return Health("bad" if age > DEAD_SECONDS else "waiting", self._problem)
        if age > QUIET_SECONDS:
            return Health("bad" if age > DEAD_SECONDS else "waiting", f"no data for {age:.0f} s")
        away = [source for source in self._sources or () if source.get("consuming") is not True]
        if away:
            names = ", ".join(text_of(source["cluster"]) for source in away if source.get("cluster"))
            reason = text_of(away[0].get("reason") or "no reason given")
            return Health("bad", f"not connected to the broker{f' {names}' if names else ''}: {reason}")
        if not self._sources:
            return Health("waiting", "waiting for the state of the broker")
        return Health("ok", f"live · heard {max(0.0, age):.0f} s ago")

    def rows(self, sort: Sort, now: float) -> list[Row]:
        """Return a row for each name that runs, waits, or had events in the window."""
        rows = [self._row(item, now) for item in self._items.values()]
        if self._other is not None:
            rows.append(self._row(self._other | {"name": "(all others)"}, now))
        shown = [row for row in rows if row.running or row.waiting or row.ended]
        return sorted(shown, key=_KEYS[sort])

    def total(self, now: float) -> Row | None:
        """Return the row of all names together; ``None`` until it is known."""
        return None if self._total is None else self._row(self._total, now)

    def _on_statistics(self, message: Message, now: float) -> None:
        if self._is_first:
            self._items.clear()
            self._is_first = False
        for item in objects(message.get("names")):
            self._items[text_of(item.get("cluster") or ""), text_of(item.get("name"))] = item
        other, total = message.get("other"), message.get("total")
        self._other = other if isinstance(other, dict) else None
        self._total = total if isinstance(total, dict) else self._total
        self.has_statistics = True
        time = number(message.get("time"))
        self._ahead = 0.0 if time is None else time - now
        since, window = number(message.get("since")), number(message.get("window"))
        if time is None or since is None or window is None or since <= time - window + _SHORT_SECONDS:
            since = None
        self._counted_since = since

    def _put_worker(self, worker: Message) -> None:
        workers = self.workers = {} if self.workers is None else self.workers
        workers[text_of(worker.get("cluster") or ""), text_of(worker.get("hostname"))] = worker
        while len(workers) > MAX_WORKERS:
            del workers[next(iter(workers))]

    def _row(self, item: Message, now: float) -> Row:
        buckets = item.get("buckets")
        buckets = buckets if isinstance(buckets, dict) else {}
        series = [each if isinstance(each, list) else [] for each in (buckets.get(end) for end in _ENDS)]
        length = max(map(len, series))
        padded = [[0] * (length - len(each)) + [count(value) for value in each] for each in series]
        history = tuple(sum(values) for values in zip(*padded, strict=True))
        failed, succeeded = count(item.get("failed")), count(item.get("succeeded"))
        return Row(
            name=text_of(item.get("name")),
            cluster=text_of(item.get("cluster") or ""),
            running=count(item.get("running")),
            waiting=count(item.get("waiting")),
            ended=succeeded + failed + count(item.get("retried")),
            failed=failed,
            finished=succeeded + failed,
            per_minute=_per_minute(history, buckets, self.gateway_time(now)),
            history=history,
            runtime=_percentiles(item.get("runtime")),
            wait=_percentiles(item.get("wait")),
            last_failure=_failure(item.get("last_failure")),
        )


def _high(value: float | None) -> float:
    return -1.0 if value is None else value


_KEYS: Final[dict[Sort, Callable[[Row], tuple[Any, ...]]]] = {
    "busy": lambda row: (-row.ended, -row.running, row.name, row.cluster),
    "failed": lambda row: (-row.failed, -row.ended, row.name, row.cluster),
    "waiting": lambda row: (-row.waiting, -row.ended, row.name, row.cluster),
    "runtime": lambda row: (-_high(row.runtime[1]), row.name, row.cluster),
    "wait": lambda row: (-_high(row.wait[1]), row.name, row.cluster),
    "name": lambda row: (row.name, row.cluster),
}


def objects(value: object) -> list[Message]:
    """Return the JSON objects of a list; none of another value."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _percentiles(value: object) -> tuple[float | None, float | None]:
    if not isinstance(value, dict):
        return None, None
    return number(value.get("p50")), number(value.get("p95"))


def _failure(value: object) -> tuple[str, float] | None:
    if not isinstance(value, dict) or (time := number(value.get("time"))) is None:
        return None
    return text_of(value.get("exception") or "failed"), time


def _per_minute(history: tuple[int, ...], buckets: Message, now: float) -> float | None:
    """Return the rate of the last ``seconds``: of the current bucket, and a part of the one before."""
    seconds, start = number(buckets.get("seconds")), number(buckets.get("start"))
    if not history or not seconds or seconds <= 0 or start is None:
        return None
    passed = (now - (start + seconds * (len(history) - 1))) / seconds
    before = history[-2] if len(history) > 1 else 0
    if passed >= 1.0:  # no statistics since: nothing has changed, so the current bucket is empty
        before, current, passed = (history[-1], 0, min(passed - 1.0, 1.0))
    else:
        current, passed = history[-1], max(passed, 0.0)
    return (current + before * (1.0 - passed)) * 60.0 / seconds
