"""Snapshots: all matching tasks and all workers as of one position, for streams to begin with.

Rules:

- A snapshot is read in pages, as fast as its client reads them, while new events arrive.
- First it reads pages of tasks, in the order in which the tasks became known. Equal snapshots share these
  pages (``snapshot_pages``). Its place is a number, so a snapshot that waits costs nearly nothing.
- Then it reads what has changed since the oldest of these pages, in passes (``scan``), so nothing is stale.
- The last pages are made in one step, with all workers and the position where the stream continues.
- A filter with ids that lead to few tasks needs no pages: these tasks are looked up.
"""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterator, Sequence
from time import perf_counter

from celery_gateway.errors import OverLimit
from celery_gateway.events.event import PARENT_ID_POSITIONS, ROOT_ID_POSITIONS
from celery_gateway.events.matcher import Matcher
from celery_gateway.state.scan import Scan
from celery_gateway.state.task_record import Record
from celery_gateway.state.task_table import TaskTable
from celery_gateway.stream.cursor import Framing
from celery_gateway.stream.encoded_records import EncodedRecords
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.initial_snapshot import SnapshotPage
from celery_gateway.stream.limits import Limits
from celery_gateway.stream.page_writer import PageWriter
from celery_gateway.stream.snapshot_pages import PageSet, SnapshotPages, TaskBits

PASS_TASKS = 200
"""How many changed tasks are matched at a time, at first (see ``scan``)."""
READ_SECONDS = 0.001
"""A read without a result ends after this time."""
PAGE_BYTES = 256 << 10
"""About how large a page may be; many WebSocket clients accept at most 1 MiB."""
FEW_TASKS = 2_000
"""If the ids in the filter lead to at most so many tasks, these are looked up."""
SNAPSHOT_BYTES = 2_000
COST_BYTES = 500
"""What a client is charged for each snapshot, and for each unit of the cost of its filter."""
PAGED_BYTES = 128
"""Memory of the record of which tasks a page had, by estimate."""
PENDING_BYTES = 16
"""Memory of a task that is to be read again, by estimate."""


class Snapshots:
    """Makes snapshots, and has what they share.

    Args:
        tasks: the table of tasks.
        hub: the hub of their streams.
        workers: returns all workers, each encoded.
        prepare_workers: encodes some of them; returns whether ``workers`` is cheap now.
        limits: what the snapshots are charged to.
    """

    def __init__(
        self,
        tasks: TaskTable,
        hub: Hub,
        workers: Callable[[], Sequence[bytes]],
        prepare_workers: Callable[[], bool],
        limits: Limits,
    ) -> None:
        self.tasks = tasks
        self.hub = hub
        self.workers = workers
        self.prepare_workers = prepare_workers
        self.limits = limits
        self.pages = SnapshotPages(tasks, hub, limits)
        self.records = EncodedRecords(limits)

    @property
    def shared_bytes(self) -> int:
        """Memory of what snapshots share, by estimate."""
        return self.pages.size_bytes + self.records.size_bytes

    def begin(
        self,
        filter: Matcher,
        framing: Framing,
        view: Callable[[Record], bytes],
        view_key: Hashable = None,
        *,
        client: str = "",
        follows_filter: bool = True,
        page_bytes: int = PAGE_BYTES,
        workers: Callable[[], Sequence[bytes]] | None = None,
        visible: Matcher | None = None,
    ) -> "Snapshot":
        """Return a snapshot as of the time when it will have been read.

        Args:
            filter: which tasks are wanted.
            framing: how the pages are written.
            view: encodes a record.
            view_key: equal for all functions that encode a record the same.
            client: the address of the client, to charge it.
            follows_filter: when the stream gets another filter, the snapshot gets it, too.
            page_bytes: about how large a page may be; a single record may be larger.
            workers: returns the workers that the client may see, each encoded; ``None``: all.
            visible: the filter of the client's scope, beside that of the request; ``None``: all is visible.

        Raises:
            OverLimit: the limits do not allow it now.
        """
        return Snapshot(
            self,
            filter,
            framing,
            view,
            view_key,
            client,
            follows_filter,
            page_bytes,
            workers or self.workers,
            visible,
        )


class Snapshot:
    """One client's snapshot, read as ``gateway-snapshot`` messages. Made by ``Snapshots.begin``; ``close``
    it."""

    def __init__(
        self,
        shared: Snapshots,
        filter: Matcher,
        framing: Framing,
        view: Callable[[Record], bytes],
        view_key: Hashable,
        client: str,
        follows_filter: bool,
        page_bytes: int,
        workers: Callable[[], Sequence[bytes]],
        visible: Matcher | None,
    ) -> None:
        self._shared = shared
        self._filter = filter
        self._framing = framing
        self._view = view
        self._view_key = view_key
        self._follows_filter = follows_filter
        self._workers = workers
        self._visible = visible
        self._writer = PageWriter(framing, page_bytes)
        self._memory = shared.limits.memory.reserve(client)
        self._own_bytes = SNAPSHOT_BYTES + COST_BYTES * filter.cost
        self._memory.grow(self._own_bytes)
        try:
            self._place = shared.limits.quotas.find(client).reserve("snapshots")
        except OverLimit:
            self._memory.release()
            raise
        shared.records.enter()
        self._is_closed = False
        self._pages: PageSet | None = None  # while it reads pages of tasks
        self._restart()
        self.read_count = 0

    def _restart(self) -> None:
        self._leave_pages()
        self._scan: Scan | None = None  # after the pages of tasks
        self._ready: Iterator[SnapshotPage] | None = None
        self._ready_bytes = 0
        self._after: float = -1  # the number of the last task that was read
        self._end: float = -1  # the number of the last task to read
        self._version = -1  # of the table, when the oldest page was made
        self._evicted = 0
        self._paged: list[TaskBits] = []

    def read(self) -> SnapshotPage | None:
        """Return the next page, or ``None`` if there is none yet.

        Raises:
            OverLimit: it needs more memory than the client may have.
        """
        self.read_count += 1
        if self._ready is not None:
            page = next(self._ready, None)
            if page is not None:
                return page
            self._ready, self._ready_bytes = None, 0
        if self._scan is None:
            page = self._read_pages()
            if page is not None or self._scan is None:
                return page
        return self._read_changes(self._scan)

    def refilter(self, filter: Matcher) -> None:
        """Begin again with another filter, if it follows that of the stream.

        The next ``read`` raises ``OverLimit`` if the filter costs too much.
        """
        if self._follows_filter:
            self._restart()
            self._filter = filter
            self._own_bytes = SNAPSHOT_BYTES + COST_BYTES * filter.cost
            self._memory.resize(self._own_bytes)

    def close(self) -> None:
        """Release what it uses. May be called again."""
        if not self._is_closed:
            self._is_closed = True
            self._restart()
            self._memory.release()
            self._place.release()
            self._shared.records.leave()

    def _read_pages(self) -> SnapshotPage | None:
        """Return the next page of tasks, if there is one in ``READ_SECONDS``; after the last one make the
        scan."""
        deadline = perf_counter() + READ_SECONDS
        shared = self._shared.pages
        if self._pages is None:
            self._charge()
            self._evicted = shared.evicted
            if _leads_to_few(self._shared.tasks, self._filter):
                self._scan = Scan(self._shared.tasks, self._filter, visible=self._visible)
                return None
            self._version, self._end = shared.list_tasks()
            self._pages = shared.enter(
                self._filter, self._framing, self._view, self._view_key, self._writer.page_bytes
            )
        while True:
            page = shared.read(self._pages, self._after)
            self._after = page.end
            self._version = min(self._version, page.version)
            self._evicted = min(self._evicted, page.evicted)
            if page.tasks is not None:
                self._paged.append(page.tasks)
            is_last = self._after >= self._end
            if is_last:
                self._leave_pages()
                self._scan = Scan(
                    self._shared.tasks,
                    self._filter,
                    version=self._version,
                    was_returned=self._was_paged,
                    visible=self._visible,
                )
            if page.chunk:
                self._charge()
                return SnapshotPage(page.chunk, None)
            if is_last or perf_counter() >= deadline:
                return None

    def _read_changes(self, scan: Scan) -> SnapshotPage | None:
        """Return the next page of changed tasks; at the end of the scan, with all workers and the
        position."""
        shared = self._shared
        if not shared.prepare_workers():
            return None
        records, is_done = scan.read(PASS_TASKS)
        tasks = [shared.records.encode(record, self._view, self._view_key) for record in records]
        workers: Sequence[bytes] = ()
        position = None
        if is_done:
            position = shared.hub.flush()
            workers = self._workers()
        self._ready_bytes = sum(map(len, tasks)) + 8 * len(workers)
        self._charge()
        self._ready = self._writer.write_all(shared.hub.id, tasks, workers, position)
        return next(self._ready, None)

    def _leave_pages(self) -> None:
        if self._pages is not None:
            pages, self._pages = self._pages, None
            self._shared.pages.leave(pages)

    def _was_paged(self, record: Record) -> bool:
        """Return whether a page of tasks had this task, which may not match any more."""
        at = bisect_right(self._paged, record.number, key=lambda tasks: tasks[0]) - 1
        if at >= 0:
            first, bits = self._paged[at]
            if bits >> (record.number - first) & 1:
                return True
        # Perhaps as another record, which was evicted meanwhile. A task may be sent once more than needed.
        return self._evicted != self._shared.pages.evicted and self._shared.tasks.has_evicted(record.key)

    def _charge(self) -> None:
        """Charge the client for its memory.

        Raises:
            OverLimit: it may not have so much.
        """
        pending = 0 if self._scan is None else self._scan.key_count
        size_bytes = PAGED_BYTES * len(self._paged) + PENDING_BYTES * pending + self._ready_bytes
        if not self._memory.resize(self._own_bytes + size_bytes):
            raise self._memory.over_limit(self._own_bytes + size_bytes)


def _leads_to_few(tasks: TaskTable, filter: Matcher) -> bool:
    """Return whether the ids in a filter lead to few tasks."""
    lookups = filter.lookups
    if lookups is None or any(field in PARENT_ID_POSITIONS for field, _ in lookups):
        return False
    count = 0
    for field, value in lookups:
        count += len(tasks.keys(value))
        if field in ROOT_ID_POSITIONS:
            count += sum(len(root.members) for root in tasks.roots(value))
    return count <= FEW_TASKS
