"""Which tasks belong together: the workflows by root, and the children by parent.

- A task belongs to the workflow of its ``root_id``, and is a child of its ``parent_id``. It may become known
  before either of them.
- The children of a parent that is not known, or no longer known, are kept as orphans. A parent that becomes
  known adopts them.
- A workflow exists as long as one of its tasks is known.

Pure.
"""

from collections.abc import Iterator, Mapping

from celery_gateway.state.task_record import Record, record_key
from celery_gateway.state.text_size import text_bytes
from celery_gateway.state.workflow_counts import TALLY_MEMBERS, Tally, WorkflowCounts

ROOT_BYTES = 400
CHILDREN_BYTES = 290
"""The size of a workflow, and of the children of a task. (Measured: tests/state/test_sizes.py.)"""
MAX_UNNUMBERED = 10_000
"""With so many workflows without a position, those that have ended are removed."""


class Root(WorkflowCounts):
    """A workflow: the tasks with one root_id.

    Attributes:
        id: the root_id.
        number: numbers the workflows in the order in which they became known.
        members: the records of its tasks, by key.
        strangers: the members without an ``Origin``, if there are scopes: only a custom event has given them
            this root. ``None`` if there was none.
    """

    __slots__ = ("id", "number", "members", "strangers")

    def __init__(self, id: str, number: int = 0) -> None:
        super().__init__()
        self.id = id
        self.number = number
        self.members: dict[str, Record] = {}
        self.strangers: dict[str, Record] | None = None

    def add(self, record: Record) -> None:
        """Add a task."""
        record.root = self
        self.members[record.key] = record
        self.count(record.task, 1)
        if self.tally is None and len(self.members) >= TALLY_MEMBERS:
            self.tally = Tally(member.task for member in self.members.values())

    def set_stranger(self, record: Record, is_stranger: bool) -> None:
        """Set whether a member is among ``strangers``."""
        if is_stranger:
            if self.strangers is None:
                self.strangers = {}
            self.strangers[record.key] = record
        elif self.strangers is not None:
            self.strangers.pop(record.key, None)


class TaskGraph:
    """The workflows, and the children of tasks.

    Args:
        records: all records by key, those of the task table.
        has_clusters: tasks have the name of their broker as ``cluster``.

    Attributes:
        size_bytes: the size of the workflows and of the children, by estimate.
        unnumbered: the workflows whose numbers are not yet positions, by the key of their first task.
    """

    def __init__(self, records: Mapping[str, Record], has_clusters: bool) -> None:
        self._records = records
        self._has_clusters = has_clusters
        self._roots: dict[str, Root] = {}  # by key, in the order of their numbers
        self._number = 0
        self._keeps_unnumbered = False
        self.unnumbered: dict[str, Root] = {}
        self._orphans: dict[str, dict[str, Record]] = {}  # by the key of the parent
        self.size_bytes = 0

    def root(self, key: str) -> Root | None:
        """Return the workflow with a key; ``None`` if none of its tasks is known."""
        return self._roots.get(key)

    def newest(self) -> Iterator[Root]:
        """Iterate over all workflows, the newest first. The graph must not change meanwhile."""
        return reversed(self._roots.values())

    def keep_unnumbered(self) -> None:
        """From now on, keep new workflows in ``unnumbered`` until ``set_number``."""
        self._keeps_unnumbered = True

    def set_number(self, key: str, position: int) -> None:
        """Number a workflow by the position of the event that has made it known.

        Args:
            key: of the task of that event. Nothing happens if it has made no workflow known.
            position: only grows from call to call.
        """
        root = self.unnumbered.pop(key, None)
        if root is None or not root.members:
            return
        root.number = self._number = position
        root_key = self._key_beside(next(iter(root.members.values())), root.id)
        if self._roots.pop(root_key, None) is root:  # to the end: they are in the order of their numbers
            self._roots[root_key] = root

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
            self._number += 1
            root = self._roots[key] = Root(root_id if owner is None else owner.task.uuid, self._number)
            self.size_bytes += ROOT_BYTES
            if self._keeps_unnumbered:
                self._keep_unnumbered(record, root)
        task.root_id = root.id
        root.add(record)
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

    def _keep_unnumbered(self, record: Record, root: Root) -> None:
        if len(self.unnumbered) >= MAX_UNNUMBERED:
            self.unnumbered = {key: each for key, each in self.unnumbered.items() if each.members}
        self.unnumbered[record.key] = root

    def _leave_root(self, record: Record) -> None:
        root, record.root = record.root, None
        if root is None:
            return
        del root.members[record.key]
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
