"""The tree of one workflow, read in steps and consistent as of one moment.

Rules: the members are frozen in steps within the request's fair share of time. Members that change meanwhile
are frozen again; after ``STEPS_TO_CATCH_UP`` the steps become larger, so that the work ends.
"""

import asyncio
from itertools import islice

from celery_gateway.events.fields import Fields
from celery_gateway.http.fair_share import FairShare
from celery_gateway.http.json_response import JSONBuilder
from celery_gateway.http.state_responses import NUMBER_BYTES
from celery_gateway.http.task_selection import RECORDS_PER_STEP, REFERENCE_BYTES
from celery_gateway.http.visible import Visible
from celery_gateway.state.task_graph import Root
from celery_gateway.state.workflow import Workflow

RECORDS_PER_LARGE_STEP = 500
RECORDS_PER_LAST_STEP = 5_000
STEPS_TO_CATCH_UP = 200
"""This many more than an unchanging table takes."""
SAMPLE_RECORDS = 50

_TEXTS = frozenset({"args", "kwargs", "result", "exception", "traceback", "custom", "attempts"})


async def read_workflow(
    workflow: Workflow,
    root: Root,
    visible: Visible,
    share: FairShare,
    builder: JSONBuilder,
) -> bytes | None:
    """Add a workflow to a response.

    Args:
        workflow: empty.
        root: has its members.
        visible: what the client may see.

    Returns:
        The position that the workflow is as of; ``None`` if all its tasks were evicted meanwhile, or are not
        visible.

    Raises:
        OverLimit: there is no memory for it.
    """
    try:
        if not workflow.is_restricted:  # else an error would show how many tasks are not visible
            builder.reserve(_estimate(root, workflow.fields))
        charge = _Charge(workflow, builder)
        await _freeze(workflow, root, visible, share, builder, charge)
        id = visible.pipeline.hub.id
        if not workflow.total:
            return None
        for piece in workflow.pieces():
            charge.update()
            builder.add(piece)
            await share.checkpoint()
        return id
    finally:
        _free(workflow)


async def _freeze(
    workflow: Workflow,
    root: Root,
    visible: Visible,
    share: FairShare,
    builder: JSONBuilder,
    charge: "_Charge",
) -> None:
    """Freeze all members that may be visible, as of the moment when this returns."""
    tasks = visible.pipeline.tasks
    own_cluster = next(iter(root.members.values())).task.cluster
    version = tasks.version
    keys = visible.member_keys(root)
    small_steps = STEPS_TO_CATCH_UP + len(keys) // RECORDS_PER_STEP
    if not workflow.is_restricted:
        builder.charge_scratch(REFERENCE_BYTES * len(keys))
    next_index = 0
    while True:
        small_steps -= 1
        step = RECORDS_PER_STEP
        if small_steps <= 0:
            step = RECORDS_PER_LARGE_STEP if small_steps > -STEPS_TO_CATCH_UP else RECORDS_PER_LAST_STEP
        for key in keys[next_index : next_index + step]:
            record = tasks.get(key)
            if record is not None and record.task.cluster == own_cluster:
                workflow.add(record)
        next_index += step
        charge.update()
        if next_index < len(keys):
            await share.checkpoint()
            continue
        if tasks.version == version:  # nothing has changed since the pass started
            return
        await share.checkpoint()
        keys, next_index, version = tasks.changed_since(version), 0, tasks.version


class _Charge:
    """Keeps the charge of a response in line with the size of a workflow."""

    def __init__(self, workflow: Workflow, builder: JSONBuilder) -> None:
        self._workflow = workflow
        self._builder = builder
        self._charged_bytes = 0

    def update(self) -> None:
        self._builder.charge_scratch(self._workflow.size_bytes - self._charged_bytes)
        self._charged_bytes = self._workflow.size_bytes


def _estimate(root: Root, fields: Fields) -> int:
    """Return about how many bytes a workflow takes while it is read."""
    sample = [record.size_bytes for record in islice(root.members.values(), SAMPLE_RECORDS)]
    has_texts = any(field in fields for field in _TEXTS)
    return len(root.members) * (sum(sample) // len(sample) if has_texts and sample else 2 * NUMBER_BYTES)


def _free(workflow: Workflow) -> None:
    """Free a workflow's memory in steps: a hundred thousand objects take 20 ms."""
    if workflow.free():
        asyncio.get_running_loop().call_soon(_free, workflow)
