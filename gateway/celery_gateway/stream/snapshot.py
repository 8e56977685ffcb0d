"""A snapshot: all tasks that match and all workers, at one position of the stream, for streams to begin with.

It is read in pages, as fast as its client takes them, while events go on coming in. A task that changes after
it was given is given again; the last page is made in one go with the position that the stream goes on from
(see ``scan``).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from gateway import control
from gateway.hub import Hub
from gateway.index import Matcher
from gateway.scan import Scan
from gateway.subscription import NO_RESUME, Page
from gateway.tasks import Record, Tasks

RECORDS_AT_ONCE = 200
"""How many tasks are looked at at a time: a few milliseconds of work at most."""
PAGE_BYTES = 256 << 10
"""About how long a message gets; readers of WebSockets often take no more than 1 MiB."""


class Snapshot:
    """Reads a scan as ``gateway-snapshot`` messages.

    Args:
        tasks: the table.
        filter: which tasks are wanted.
        view: a task's record encoded.
        workers: gives all workers, each encoded.
        hub: whose stream it is.
        follows: whether another filter of the stream becomes its own.
    """

    def __init__(
        self,
        tasks: Tasks,
        filter: Matcher,
        view: Callable[[Record], bytes],
        workers: Callable[[], Iterable[bytes]],
        hub: Hub,
        *,
        follows: bool = True,
    ) -> None:
        self._tasks = tasks
        self._scan = Scan(tasks, filter)
        self._view = view
        self._workers = workers
        self._hub = hub
        self._follows = follows
        self._pages: deque[Page] = deque()
        self.reads = 0

    def read(self) -> Page | None:
        """Return the next page, if there is one already."""
        self.reads += 1
        if not self._pages:
            records, done = self._scan.take(RECORDS_AT_ONCE)
            self._pages.extend(self._pages_of(map(self._view, records), done))
        return self._pages.popleft() if self._pages else None

    def refilter(self, filter: Matcher) -> None:
        """Begin anew if the stream's new filter is for it, too."""
        if self._follows:
            self._scan = Scan(self._tasks, filter)
            self._pages.clear()

    def _pages_of(self, tasks: Iterable[bytes], done: bool) -> Iterator[Page]:
        """Give the messages that tell of some tasks, and when it is done, of the workers."""
        position = self._hub.settle() if done else None
        id = self._hub.id if done else self._hub.id + NO_RESUME
        chunks: list[tuple[Sequence[bytes], Sequence[bytes]]] = [(chunk, ()) for chunk in _chunks(tasks)]
        if done:
            first, *others = list(_chunks(self._workers())) or [()]
            last = chunks.pop()[0] if chunks else ()
            chunks += [(last, first), *(((), chunk) for chunk in others)]
        for number, (of_tasks, of_workers) in enumerate(chunks, 1):
            is_last = done and number == len(chunks)
            own_id = id if is_last or not done else id + NO_RESUME
            message = control.snapshot(own_id, of_tasks, of_workers, is_last)
            yield Page(message, own_id, position if is_last else None)


def _chunks(items: Iterable[bytes]) -> Iterator[Sequence[bytes]]:
    """Give encoded things together, as many as make a message."""
    chunk: list[bytes] = []
    size_bytes = 0
    for item in items:
        chunk.append(item)
        size_bytes += len(item)
        if size_bytes >= PAGE_BYTES:
            yield chunk
            chunk, size_bytes = [], 0
    if chunk:
        yield chunk
