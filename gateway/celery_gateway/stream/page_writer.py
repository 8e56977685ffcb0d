"""Pages of a snapshot: encoded tasks and workers as ``gateway-snapshot`` messages of limited size. Pure."""

from collections.abc import Iterable, Iterator, Sequence

from celery_gateway.stream.cursor import Framing
from celery_gateway.stream.initial_snapshot import NO_RESUME, SnapshotPage
from celery_gateway.stream.messages import snapshot_message


class PageWriter:
    """Writes encoded tasks and workers as pages.

    Args:
        page_bytes: about how large a page may be; a single task or worker may be larger.

    Attributes:
        page_bytes: the same.
    """

    __slots__ = ("page_bytes", "_framing")

    def __init__(self, framing: Framing, page_bytes: int) -> None:
        self.page_bytes = page_bytes
        self._framing = framing

    def write(
        self, id: bytes, tasks: Sequence[bytes], workers: Sequence[bytes] = (), position: int | None = None
    ) -> SnapshotPage:
        """Return one page.

        Args:
            id: the id of the newest entry.
            position: its position, for the last page of the snapshot; ``None`` for the others, whose id
                cannot be resumed from.
        """
        is_last = position is not None
        id = id if is_last else id + NO_RESUME
        message = snapshot_message(id, tasks, workers, is_last)
        return SnapshotPage(self._framing.batch([self._framing.control(id, message)]), position)

    def write_all(
        self, id: bytes, tasks: Iterable[bytes], workers: Iterable[bytes], position: int | None
    ) -> Iterator[SnapshotPage]:
        """Yield as many pages as the tasks and the workers need; with a position, the last page has it.

        Args:
            id, position: see ``write``.
        """
        last_tasks: Sequence[bytes] | None = None
        for chunk in self._split(tasks):
            if last_tasks is not None:
                yield self.write(id, last_tasks)
            last_tasks = chunk
        if position is None:
            if last_tasks is not None:
                yield self.write(id, last_tasks)
            return
        last_workers: Sequence[bytes] | None = None
        for chunk in self._split(workers):
            if last_workers is not None:
                yield self.write(id, last_tasks or (), last_workers)
                last_tasks = None
            last_workers = chunk
        yield self.write(id, last_tasks or (), last_workers or (), position)

    def _split(self, items: Iterable[bytes]) -> Iterator[Sequence[bytes]]:
        """Yield as many items at a time as fit into a page."""
        chunk: list[bytes] = []
        size_bytes = 0
        for item in items:
            if chunk and size_bytes + len(item) > self.page_bytes:
                yield chunk
                chunk, size_bytes = [], 0
            chunk.append(item)
            size_bytes += len(item) + 1
        if chunk:
            yield chunk
