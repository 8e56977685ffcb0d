"""Which tasks a request selects: by its filter and its criteria, within the scope.

Rules: what is not visible is compared with the scope alone, so that the time of a request does not depend on
its texts or numbers. A request whose conditions read a hidden field is refused.
"""

from collections.abc import Iterable
from itertools import chain

from celery_gateway.events.event import PARENT_ID_POSITIONS, ROOT_ID_POSITIONS
from celery_gateway.events.filter import Filter
from celery_gateway.http.fair_share import FairShare
from celery_gateway.http.json_response import JSONBuilder
from celery_gateway.http.state_responses import NUMBER_BYTES
from celery_gateway.http.visible import Visible
from celery_gateway.state.criteria import Criteria
from celery_gateway.state.task_record import Record

RECORDS_PER_STEP = 100
RECORDS_PER_LOOK = 10
"""How many records are matched between two looks at the clock: a costly filter takes 0.1 ms."""
SEARCHED_BYTES_PER_LOOK = 64 << 10
"""How many bytes of records a text is searched in between two looks at the clock."""
REFERENCE_BYTES = 8


class TaskSelection:
    """The tasks that a request selects.

    Args:
        visible: what the client may see.

    Raises:
        Forbidden: the filter or the criteria read a hidden field.
    """

    def __init__(self, visible: Visible, filter: Filter, criteria: Criteria) -> None:
        visible.check_shown(criteria.reads(), "compared")
        self._tasks = visible.pipeline.tasks
        self._is_visible = visible.filter_of_records
        self._filter = visible.restrict(filter)
        self._has_filter = self._filter != Filter()
        self._fits = criteria.matcher(visible.hidden)
        self._searches = bool(criteria.text)
        # A text that is the id of a visible task is taken for this id.
        found = visible.tasks(criteria.text, None) if criteria.text else []
        self._only = frozenset(record.key for record in found)

    @property
    def is_everything(self) -> bool:
        """Whether every task of the table is selected."""
        return not self._has_filter and self._fits is None

    def matches(self, record: Record) -> bool:
        """Return whether a record is in the table, visible and selected."""
        return (
            self._tasks.get(record.key) is record
            and (not self._has_filter or self._filter.matches(record.keys()))
            and (self._fits is None or self._fits(record.task))
            and (not self._only or record.key in self._only)
        )

    async def candidates(self, share: FairShare, builder: JSONBuilder) -> list[Record]:
        """Return all records that may be selected, the newest first.

        Args:
            share: the request's share of time.
            builder: is charged for the memory of the list.

        Raises:
            OverLimit: there is no memory for it.
        """
        tasks, lookups = self._tasks, self._filter.lookups
        if self._only:
            found = [record for key in self._only if (record := tasks.get(key)) is not None]
            return sorted(found, key=lambda record: -record.number)
        if lookups is None or any(field in PARENT_ID_POSITIONS for field, _ in lookups):
            # (A parent that was evicted, or is not known yet, has no record with children.)
            builder.charge_scratch(REFERENCE_BYTES * tasks.statistics().known)
            return list(tasks.newest())
        by_number: dict[int, Record] = {}
        for field, value in lookups:
            related: Iterable[Record] = ()
            if field in ROOT_ID_POSITIONS:
                related = chain.from_iterable(root.members.values() for root in tasks.roots(value))
            else:
                related = tasks.find(value)
            # Only visible ones are charged: an error must not show how many others there are.
            related = tuple(related if self._is_visible is None else filter(self._is_visible, related))
            builder.charge_scratch(NUMBER_BYTES * len(related))
            for index, each in enumerate(related):
                by_number[each.number] = each
                if index % RECORDS_PER_STEP == 0:
                    await share.checkpoint()
        # Nearly sorted already, so that it takes a millisecond.
        return [by_number[number] for number in sorted(by_number, reverse=True)]

    def look_bytes(self, record: Record) -> int:
        """Return how much of ``SEARCHED_BYTES_PER_LOOK`` the comparison with a record takes."""
        return record.size_bytes if self._searches else SEARCHED_BYTES_PER_LOOK // RECORDS_PER_LOOK
