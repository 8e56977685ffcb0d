"""The tasks that are known: by key, in the order in which they became known, by workflow, and by last change.

Pure.
"""

from collections.abc import Iterable, Iterator

from celery_gateway.state.eviction import EvictionOrder
from celery_gateway.state.task_graph import Root, TaskGraph
from celery_gateway.state.task_record import Record, record_key


class TaskIndex:
    """The lookups of a task table.

    Args:
        clusters: the names of the brokers, if they have names.
    """

    def __init__(self, clusters: Iterable[str] = ()) -> None:
        self._clusters = tuple(clusters)
        self._records: dict[str, Record] = {}  # by key, in the order of their numbers
        self._order = EvictionOrder()
        self._graph = TaskGraph(self._records, bool(self._clusters))
        self._queues: set[str] = set()

    @property
    def version(self) -> int:
        """Counts the changes of the table."""
        return self._order.version

    def get(self, key: str) -> Record | None:
        """Return the record with a key; ``None`` if there is none."""
        return self._records.get(key)

    def find(self, uuid: str, cluster: str | None = None) -> list[Record]:
        """Return the records of a uuid: at most one, or at most one for each cluster if none is named."""
        return [record for key in self.keys(uuid, cluster) if (record := self._records.get(key)) is not None]

    def was_evicted(self, uuid: str, cluster: str | None = None) -> bool:
        """Return whether a task that is not known was evicted lately."""
        return any(self.has_evicted(key) for key in self.keys(uuid, cluster) if key not in self._records)

    def has_evicted(self, key: str) -> bool:
        """Return whether a task with this key was evicted lately, whether it is known again or not."""
        return self._order.has_evicted(key)

    def roots(self, root_id: str, cluster: str | None = None) -> list[Root]:
        """Return the workflows of a root id, as ``find`` returns records."""
        return [root for key in self.keys(root_id, cluster) if (root := self._graph.root(key)) is not None]

    def keys(self, id: str, cluster: str | None = None) -> list[str]:
        """Return the keys that a task or workflow of this id can have."""
        if not self._clusters:
            return [id]
        return [record_key(name, id) for name in self._clusters if cluster is None or name == cluster]

    def newest(self) -> Iterator[Record]:
        """Iterate over all records, the newest first. The table must not change meanwhile."""
        return reversed(self._records.values())

    def workflows(self) -> Iterator[Root]:
        """Iterate over all workflows, the newest first. The table must not change meanwhile."""
        return self._graph.newest()

    def queues(self) -> frozenset[str]:
        """Return the names of queues in events: those of all tasks, unless there are too many, and others."""
        return frozenset(self._queues)

    def changed_since(self, version: int) -> list[str]:
        """Return the keys of the tasks that have changed after the table had this version; all for -1."""
        return self._order.changed_since(version)
