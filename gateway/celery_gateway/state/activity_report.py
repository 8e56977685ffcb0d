"""The activity of the names that a scope shows, in a window of time that ends now.

Rules:

- A filter is compared with the name and the cluster of what is counted, and all other values are missing.
  So a scope with a condition on another field shows nothing.
- The names beyond the limit are shown only where everything is: they may be anybody's.
- What can be computed only from hidden fields is ``None``, or left out.
- The total has exactly the names that are shown.

Each name is read as of one moment; between two of them events may be counted. Pure.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

from celery_gateway.events.event import FILTER_FIELDS, ORIGIN_FIELDS, Keys
from celery_gateway.events.matcher import Matcher
from celery_gateway.state.activity import Activity
from celery_gateway.state.duration_history import SLOT_SECONDS, Durations
from celery_gateway.state.lanes import counts_of, lanes
from celery_gateway.state.name_activity import KINDS, LOST_NOW, RUNNING, WAITING, NameActivity
from celery_gateway.state.quantile_sketch import quantiles
from celery_gateway.state.time_buckets import BUCKET_SECONDS, bucket_count, level_of

Item = dict[str, Any]
ITEM_FIELDS: Final = (
    *("name", "cluster", "running", "waiting", "lost", *KINDS),
    *("buckets", "runtime", "wait", "last_failure"),
)
SERIES: Final = ("succeeded", "failed", "retried")
"""The kinds that an item has by bucket."""
PARTS: Final = (0.5, 0.95, 0.99)
_RUNTIME_FIELDS: Final = frozenset({"runtime"})
_WAIT_FIELDS: Final = frozenset({"sent", "received", "started", "eta", "queued_seconds"})
_NAME, _CLUSTER = FILTER_FIELDS.index("name"), FILTER_FIELDS.index("cluster")
_ORIGIN_NAME: Final = len(FILTER_FIELDS) + ORIGIN_FIELDS.index("name")
_KEYS: Final = len(FILTER_FIELDS) + len(ORIGIN_FIELDS)


@lru_cache(maxsize=4_000)
def name_keys(name: str | None, cluster: str | None) -> Keys:
    """Return the values of a name that filters and scopes compare."""
    keys: list[str | None] = [None] * _KEYS
    keys[_NAME] = keys[_ORIGIN_NAME] = name
    keys[_CLUSTER] = cluster
    return tuple(keys)


class Window:
    """A window of time that ends now.

    Attributes:
        level: that of its buckets and slots.
        bucket_seconds: the length of a bucket.
        count: how many buckets it has.
        first, last: the numbers of its buckets: their begin divided by their length.
        first_slot: when its first slot of durations begins.
    """

    __slots__ = ("level", "bucket_seconds", "count", "first", "last", "first_slot")

    def __init__(self, seconds: float, now: float) -> None:
        self.level = level_of(seconds)
        self.bucket_seconds = BUCKET_SECONDS[self.level]
        self.last = int(now) // self.bucket_seconds
        self.count = bucket_count(seconds)
        self.first = self.last - self.count + 1
        slot_seconds = SLOT_SECONDS[self.level]
        self.first_slot = int(now - seconds) // slot_seconds * slot_seconds


class _Sums:
    """What names are in a window: the counts now; those by bucket and kind, as ``lanes``; the durations."""

    __slots__ = ("now", "counts", "durations")

    def __init__(self) -> None:
        self.now = [0, 0, 0]
        self.counts = 0
        self.durations = (Durations(0, 0.0), Durations(0, 0.0))

    def add(self, other: "_Sums") -> None:
        self.now = [mine + theirs for mine, theirs in zip(self.now, other.now, strict=True)]
        self.counts += other.counts
        runtimes, waits = (
            Durations(mine.bins + theirs.bins, max(mine.longest, theirs.longest))
            for mine, theirs in zip(self.durations, other.durations, strict=True)
        )
        self.durations = runtimes, waits

    @property
    def is_empty(self) -> bool:
        return not self.counts and not any(self.now)


class ActivityReader:
    """Reads the activity of the visible names, again and again.

    Args:
        window_seconds: the length of the window, 60 to 86,400 s.
        visible: what is shown; ``None``: everything.
        hidden: fields that are not shown.

    Attributes:
        names: what ``make`` has returned for the names that have changed since the last read, or at the first
            one for all with any activity; those that have ended most come first. One whose activity has left
            the window has zeros.
        other: the names beyond the limit; ``None`` if there are none, or if they are not shown.
        total: all names that are shown, and ``other``.
        is_changed: anything has changed since the last read.
        head: ``window``, ``time``, ``since``, and ``complete``: all tasks of the window have counts by name.
    """

    def __init__(
        self,
        activity: Activity,
        window_seconds: float,
        *,
        visible: Matcher | None = None,
        hidden: frozenset[str] = frozenset(),
    ) -> None:
        self._activity = activity
        self._seconds = window_seconds
        self._visible = visible
        self._hidden = hidden
        self._version = -1
        self._window: Window | None = None  # of the last read
        self.names: list[Any] = []
        self.other: Item | None = None
        self.total: Item = {}
        self.is_changed = False
        self.head: dict[str, float | bool | None] = {}

    def may_have_changed(self, now: float) -> bool:
        """Return whether the next read can find a change.

        Args:
            now: epoch seconds on the gateway's clock; also of ``read``.
        """
        window = self._window
        return (
            window is None
            or self._activity.version != self._version
            or Window(self._seconds, now).last != window.last
        )

    def read(self, now: float, make: Callable[[Item], Any] = lambda item: item) -> Iterator[None]:
        """Read the names, one in each step; the attributes are set after the last step.

        A read that ends before changes nothing: the next one finds the same changes.

        Args:
            make: is called with each item, which can be several kB, and returns what is kept of it.
        """
        activity, before, version = self._activity, self._window, self._version
        newest, window = activity.version, Window(self._seconds, now)
        total, found, is_changed = _Sums(), [], before is None
        for name in tuple(activity.names()):
            if self._visible is not None and not self._visible.matches(name_keys(name.name, name.cluster)):
                continue
            sums = _read(name, window)
            total.add(sums)
            if (
                not sums.is_empty
                if before is None
                else name.version > version or _has_left(name, before, window)
            ):
                is_changed = True
                item = self._item(name, sums, window)
                ended = item["succeeded"] + item["failed"] + item["revoked"]
                found.append((-ended, name.name or "", name.cluster or "", make(item)))
            yield
        self.other = None
        other = activity.other
        sums = _read(other, window)
        if self._visible is None:
            total.add(sums)
            if not sums.is_empty:
                self.other = self._item(other, sums, window)
            if before is not None and (other.version > version or _has_left(other, before, window)):
                is_changed = True
        found.sort(key=lambda each: each[:3])
        self.names = [made for *_, made in found]
        self.total = self._item(None, total, window)
        self._version, self._window = newest, window
        self.is_changed = is_changed
        since = None if activity.since is None else round(activity.since, 3)
        self.head = {
            "window": self._seconds,
            "time": round(now, 3),
            "since": since,
            "complete": sums.is_empty,
        }

    def _item(self, name: NameActivity | None, sums: _Sums, window: Window) -> Item:
        """Return an item; without a name that of the total."""
        hidden = self._hidden
        item: Item = {"name": None if name is None else name.name}
        if name is not None and name.cluster is not None:
            item["cluster"] = name.cluster
        item |= {"running": sums.now[RUNNING], "waiting": sums.now[WAITING], "lost": sums.now[LOST_NOW]}
        flat = counts_of(sums.counts, window.count * len(KINDS))
        by_kind = {kind: flat[number :: len(KINDS)].tolist() for number, kind in enumerate(KINDS)}
        item |= {kind: sum(counts) for kind, counts in by_kind.items()}
        item["buckets"] = {
            "seconds": float(window.bucket_seconds),
            "start": float(window.first * window.bucket_seconds),
            **{kind: by_kind[kind] for kind in SERIES},
        }
        item["runtime"] = _summary(sums.durations[0]) if hidden.isdisjoint(_RUNTIME_FIELDS) else None
        item["wait"] = _summary(sums.durations[1]) if hidden.isdisjoint(_WAIT_FIELDS) else None
        failure = None if name is None or name is self._activity.other else name.last_failure
        if failure is not None:
            failure = failure._replace(time=round(failure.time, 3))
        item["last_failure"] = None if failure is None else _without(failure._asdict(), hidden)
        return item


def _read(name: NameActivity, window: Window) -> _Sums:
    """Return what a name is in a window."""
    sums = _Sums()
    sums.now = name.now[:3]
    counts = name.buckets.read(window.level, window.first, window.last)
    current = min(int(name.opened) // window.bucket_seconds, window.last) - window.first
    if current >= 0:
        for kind, count in enumerate(name.counts, current * len(KINDS)):
            counts[kind] += count
    sums.counts = lanes(counts)
    sums.durations = name.durations.read(window.level, window.first_slot, name.slot)
    return sums


def _has_left(name: NameActivity, before: Window, window: Window) -> bool:
    """Return whether activity of a name has left the window since an earlier one."""
    if window.first > before.first:
        last = min(window.first - 1, before.last)
        if any(name.buckets.read(window.level, before.first, last)):
            return True
        if before.first <= int(name.opened) // window.bucket_seconds <= last and any(name.counts):
            return True
    return name.durations.has_between(window.level, before.first_slot, window.first_slot)


def _summary(durations: Durations) -> dict[str, float] | None:
    bins, longest = durations
    if not bins:
        return None
    count, found = quantiles(bins, PARTS)
    p50, p95, p99 = (round(min(seconds, longest), 6) for seconds in found)
    return {"count": count, "p50": p50, "p95": p95, "p99": p99, "max": longest}


def _without(values: dict[str, Any], hidden: frozenset[str]) -> dict[str, Any]:
    return {field: value for field, value in values.items() if field not in hidden}
