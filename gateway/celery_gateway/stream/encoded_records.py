"""Encoded records that several snapshots share, whatever their filters.

Rules:

- A record is encoded once for all snapshots that encode it the same (``view_key``), while two or more of them
  are read at the same time.
- The memory is charged to the budget of all clients. When the cache is full, or the last snapshot has ended,
  it is cleared.
"""

from collections.abc import Callable, Hashable

from celery_gateway.state.task_record import Record
from celery_gateway.stream.limits import Limits

MAX_CACHED_BYTES = 4 << 20
OVERHEAD_BYTES = 500
"""Memory of a cached record beside its encoded form, by estimate."""


class EncodedRecords:
    """A cache of encoded records.

    Args:
        limits: what it is charged to.
    """

    def __init__(self, limits: Limits) -> None:
        self._encoded: dict[tuple[Hashable, str], tuple[tuple[int, int], bytes]] = {}
        self._size_bytes = 0
        self._readers = 0
        self._memory = limits.memory.reserve(None)

    @property
    def size_bytes(self) -> int:
        """Memory of the cache, by estimate."""
        return self._size_bytes

    def enter(self) -> None:
        """Count a snapshot that begins."""
        self._readers += 1

    def leave(self) -> None:
        """Count a snapshot that has ended."""
        self._readers -= 1
        if not self._readers:
            self._clear()

    def encode(self, record: Record, view: Callable[[Record], bytes], view_key: Hashable) -> bytes:
        """Return a record, encoded.

        Args:
            view: encodes it.
            view_key: equal for all functions that encode a record the same.
        """
        if self._readers < 2 and not self._encoded:
            return view(record)
        key, version = (view_key, record.key), (record.version, len(record.children or ()))
        cached = self._encoded.get(key)
        if cached is not None and cached[0] == version:
            return cached[1]
        encoded = view(record)
        if self._size_bytes > MAX_CACHED_BYTES:
            self._clear()
        size_bytes = self._size_bytes + len(encoded) + OVERHEAD_BYTES
        if self._memory.resize(size_bytes):
            self._encoded[key] = version, encoded
            self._size_bytes = size_bytes
        return encoded

    def _clear(self) -> None:
        self._encoded.clear()
        self._size_bytes = 0
        self._memory.release()
