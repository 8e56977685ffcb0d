"""Which tasks belong together: the workflows by root, and the children by parent.

- A task belongs to the workflow of its ``root_id``, and is a child of its ``parent_id``. It may become known
  before either of them.
- The children of a parent that is not known, or no longer known, are kept as orphans. A parent that becomes
  known adopts them.
- A workflow exists as long as one of its tasks is known.

Pure.
"""

from collections.abc import Mapping

from celery_gateway.state.task import Task
from celery_gateway.state.task_record import Record, record_key
from celery_gateway.state.text_size import text_bytes
from celery_gateway.state.transitions import READY_STATES

ROOT_BYTES = 370
CHILDREN_BYTES = 290
"""The size of a workflow, and of the children of a task. (Measured: tests/state/test_sizes.py.)"""


class Root:
    """A workflow: the tasks with one root_id.

    Attributes:
        id: the root_id.
        members: the records of its tasks, by key.
        unready: how many tasks have not ended.
        lost: how many of those are lost.
        unsent: of how many tasks no ``task-sent`` has arrived.
        strangers: the members without an ``Origin``, if there are scopes: only a custom event has given them
            this root. ``None`` if there was none.
    """

    __slots__ = ("id", "members", "unready", "lost", "unsent", "strangers")

    def __init__(self, id: str) -> None:
        self.id = id
        self.members: dict[str, Record] = {}
        self.unready = self.lost = self.unsent = 0
        self.strangers: dict[str, Record] | None = None

    def set_stranger(self, record: Record, is_stranger: bool) -> None:
        """Set whether a member is among ``strangers``."""
        if is_stranger:
            if self.strangers is None:
                self.strangers = {}
            self.strangers[record.key] = record
        elif self.strangers is not None:
            self.strangers.pop(record.key, None)

    def count(self, task: Task, by: int) -> None:
        """Add a task to the counts (``by`` 1), or remove it (-1)."""
        self.unready += by * (task.state not in READY_STATES)
        self.lost += by * (task.lost is not None)
        self.unsent += by * (task.sent is None)


class TaskGraph:
    """The workflows, and the children of tasks.

    Args:
        records: all records by key, those of the task table.
        has_clusters: tasks have the name of their broker as ``cluster``.

    Attributes:
        size_bytes: the size of the workflows and of the children, by estimate.
    """

    def __init__(self, records: Mapping[str, Record], has_clusters: bool) -> None:
        self._records = records
        self._has_clusters = has_clusters
        self._roots: dict[str, Root] = {}
        self._orphans: dict[str, dict[str, Record]] = {}  # by the key of the parent
        self.size_bytes = 0

    def root(self, key: str) -> Root | None:
        """Return the workflow with a key; ``None`` if none of its tasks is known."""
        return self._roots.get(key)

    def root_of(self, record: Record) -> Root | None:
        """Return the workflow of a task; ``None`` if its root is not known."""
        root_id = record.task.root_id
        return None if root_id is None else self._roots.get(self._key_beside(record, root_id))

    def adopt_orphans(self, record: Record) -> None:
        """Give a task that has become known its children."""
        if self._orphans:
            record.children = self._orphans.pop(record.key, None)

    def set_root(self, record: Record, root_id: str) -> int:
        """Move a task to the workflow of a root; return by how many bytes its record has grown."""
        task = record.task
        grown = text_bytes(root_id)
        if task.root_id is not None:
            grown -= text_bytes(task.root_id)
            self._leave_root(record)
        key = self._key_beside(record, root_id)
        root = self._roots.get(key)
        if root is None:
            owner = self._records.get(key)
            root = self._roots[key] = Root(root_id if owner is None else owner.task.uuid)
            self.size_bytes += ROOT_BYTES
        task.root_id = root.id
        root.members[record.key] = record
        root.count(task, 1)
        return grown

    def set_parent(self, record: Record, parent_id: str) -> tuple[Record | None, int]:
        """Move a task below a parent.

        Returns:
            The record of the parent, ``None`` if it is not known; and by how many bytes the record of the
            task has grown.
        """
        task = record.task
        grown = text_bytes(parent_id)
        if task.parent_id is not None:
            grown -= text_bytes(task.parent_id)
            self._leave_parent(record)
        key = self._key_beside(record, parent_id)
        parent = self._records.get(key)
        task.parent_id = parent_id if parent is None else parent.task.uuid
        siblings = self._orphans.get(key) if parent is None else parent.children
        if siblings is None:
            siblings = {}
            self.size_bytes += CHILDREN_BYTES
            if parent is None:
                self._orphans[key] = siblings
            else:
                parent.children = siblings
        siblings[record.key] = record
        return parent, grown

    def remove(self, record: Record) -> None:
        """Remove a task that is no longer among the records. Its children become orphans."""
        self._leave_root(record)
        self._leave_parent(record)
        if record.children:
            self._orphans[record.key] = record.children
        elif record.children is not None:
            self.size_bytes -= CHILDREN_BYTES

    def _key_beside(self, record: Record, id: str) -> str:
        """Return the key of another id in the cluster of a record."""
        return record_key(record.task.cluster, id) if self._has_clusters else id

    def _leave_root(self, record: Record) -> None:
        root = self.root_of(record)
        if root is None or root.members.pop(record.key, None) is None:
            return
        root.count(record.task, -1)
        root.set_stranger(record, False)
        if not root.members:
            del self._roots[self._key_beside(record, root.id)]
            self.size_bytes -= ROOT_BYTES

    def _leave_parent(self, record: Record) -> None:
        parent_id = record.task.parent_id
        if parent_id is None:
            return
        key = self._key_beside(record, parent_id)
        parent = self._records.get(key)
        siblings = self._orphans.get(key) if parent is None else parent.children
        if siblings is not None:
            siblings.pop(record.key, None)
            if parent is None and not siblings:
                del self._orphans[key]
                self.size_bytes -= CHILDREN_BYTES
