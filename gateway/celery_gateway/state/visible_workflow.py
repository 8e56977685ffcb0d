"""A workflow as far as a scope shows it: the counts of its visible tasks. Pure."""

from celery_gateway.state.task_record import Record
from celery_gateway.state.workflow_counts import Tally, WorkflowCounts


class VisibleWorkflow(WorkflowCounts):
    """The visible tasks of a workflow, each as it was when it was set last.

    Attributes:
        id: the root_id.
        number: that of the workflow.
        members: the records of the visible tasks, by key.
    """

    __slots__ = ("id", "number", "members", "_tally", "_values")

    def __init__(self, id: str, number: int) -> None:
        super().__init__()
        self.id = id
        self.number = number
        self.members: dict[str, Record] = {}
        self.tally = self._tally = Tally()
        self._values: dict[str, tuple[str | None, bool, bool]] = {}

    def set(self, record: Record, is_member: bool) -> None:
        """Count a task as it is now, in place of what was counted of it before.

        Args:
            is_member: whether it belongs to the workflow and is visible.
        """
        task = record.task
        before = self._values.pop(record.key, None)
        if before is not None:
            del self.members[record.key]
            self.count_values(*before, -1)
            self._tally.remove(task, before[0])
        if is_member:
            self.members[record.key] = record
            self._values[record.key] = task.state, task.lost is not None, task.sent is None
            self.count(task, 1)
