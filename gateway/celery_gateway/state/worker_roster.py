"""All workers, encoded for snapshots: each after a change, and once a second. Pure.

An event changes one worker, which is encoded again. A status also changes with time (a worker becomes
silent), so all are encoded again once in ``REFRESH_SECONDS`` while snapshots are read. ``prepare`` does both
in small steps. ``GET /workers`` does not use this: it encodes the workers that it returns.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from math import inf

from celery_gateway.events.event import encode
from celery_gateway.events.matcher import Matcher
from celery_gateway.state.worker import worker_keys
from celery_gateway.state.worker_status import WorkerKey
from celery_gateway.state.worker_table import WorkerTable

REFRESH_SECONDS = 1.0
WORKERS_AT_ONCE = 50
"""About half a millisecond of work."""


class Roster:
    """The encoded workers of a table."""

    def __init__(self, workers: WorkerTable) -> None:
        self._workers = workers
        self._encoded: dict[WorkerKey, bytes] = {}
        self._order: list[tuple[str, str, WorkerKey]] = []
        self._all: tuple[bytes, ...] | None = ()
        self._due: list[WorkerKey] = []
        self._refreshed_at = -inf

    def prepare(self, now: float, time: float) -> bool:
        """Encode some workers; return whether all are up to date.

        Args:
            now: on the clock of the table.
            time: epoch seconds of ``now``.
        """
        if not self._due and now - self._refreshed_at >= REFRESH_SECONDS:
            self._refreshed_at = now
            keys = self._workers.keys()
            self._due = [*self._encoded.keys() - keys, *keys]
        self._encode_some(WORKERS_AT_ONCE, now, time)
        return not self._due and not self._workers.changed

    def visible(self, now: float, time: float, visible: Matcher) -> Sequence[bytes]:
        """Return the workers that pass a filter, as ``all`` does."""
        self.all(now, time)
        return [
            self._encoded[key]
            for cluster, hostname, key in self._order
            if visible.matches(worker_keys(hostname, cluster or None))
        ]

    def all(self, now: float, time: float) -> Sequence[bytes]:
        """Return all workers, alive or not, by cluster and hostname, as of now. Cheap after ``prepare``."""
        while not self.prepare(now, time):
            pass
        if self._all is None:
            self._all = tuple([self._encoded[key] for _, _, key in self._order])
        return self._all

    def find(self, key: WorkerKey) -> bytes | None:
        """Return a worker as it was encoded last; ``None`` if it is not known."""
        return self._encoded.get(key)

    def encode_again(self, key: WorkerKey, now: float, time: float) -> None:
        """Encode a worker as of now."""
        self._workers.changed.discard(key)
        worker = self._workers.get(key, now, time)
        before = self._encoded.get(key)
        position = (key[0] or "", key[1], key)
        if worker is None:
            if before is not None:
                del self._encoded[key]
                del self._order[bisect_left(self._order, position)]
                self._all = None
            return
        encoded = encode(worker)
        if encoded != before:
            self._encoded[key] = encoded
            self._all = None
            if before is None:
                insort(self._order, position)

    def _encode_some(self, count: int, now: float, time: float) -> None:
        changed = self._workers.changed
        while count and (self._due or changed):
            count -= 1
            self.encode_again(self._due.pop() if self._due else changed.pop(), now, time)
