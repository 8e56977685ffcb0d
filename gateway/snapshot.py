"""A snapshot: all tasks that match and all workers, at one position of the stream, for streams to begin with.

It is read in pages, as fast as its client takes them, while events go on coming in. A task that changes after
it was given is given again; the last page is made in one go with the position that the stream goes on from
(see ``scan``).
"""

from collections.abc import Callable, Iterable

from gateway import control
from gateway.scan import Scan
from gateway.subscription import NO_RESUME, Page
from gateway.tasks import Record

RECORDS_A_PAGE = 200
"""How many tasks are looked at for a page: a millisecond of work."""


class Snapshot:
    """Reads a scan as ``gateway-snapshot`` messages.

    Args:
        scan: of the tasks.
        view: a task's record encoded.
        workers: gives all workers, each encoded.
        settle: has the hub hand out all there is; returns the position of the newest entry.
        id_of: a position as clients see it.
    """

    def __init__(
        self,
        scan: Scan,
        view: Callable[[Record], bytes],
        workers: Callable[[], Iterable[bytes]],
        settle: Callable[[], int],
        id_of: Callable[[int], bytes],
    ) -> None:
        self._scan = scan
        self._view = view
        self._workers = workers
        self._settle = settle
        self._id_of = id_of
        self.reads = 0

    def read(self) -> Page | None:
        """Return the next page, if any task matched."""
        records, done = self._scan.take(RECORDS_A_PAGE)
        self.reads += 1
        if not records and not done:
            return None
        position = self._settle()
        id = self._id_of(position) if done else self._id_of(position) + NO_RESUME
        tasks = [self._view(record) for record in records]
        message = control.snapshot(id, tasks, self._workers() if done else (), done)
        return Page(message, id, position if done else None)
