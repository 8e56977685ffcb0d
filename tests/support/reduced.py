"""The state that the gateway derives from the events of a simulated cluster, compared with the truth."""

import json
from collections.abc import Iterator

import msgspec

from celery_gateway.events.event import Event
from celery_gateway.events.fields import Fields
from celery_gateway.state.process import Process
from celery_gateway.state.task import view
from celery_gateway.state.task_record import Record
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.transitions import UNASSIGNED_STATES
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.state.workflow import Workflow
from tests.support.simulated_cluster import EPOCH, Arrival, History, Truth


class Reducer:
    """The gateway's stages from normalized to joined events, connected as in `pipeline.pipeline`."""

    def __init__(self) -> None:
        self.tasks = TaskTable(max_tasks=1_000_000, max_bytes=1 << 40)
        self.workers = WorkerTable()
        self._next_tick = 0.0

    def on_arrival(self, arrival: Arrival) -> Iterator[Event]:
        """Record an event; yield the joined events that go into the stream now."""
        now, arrived, event = arrival.at, EPOCH + arrival.at, dict(arrival.event)
        while self._next_tick <= now:
            yield from self.tick(self._next_tick)
            self._next_tick += 0.5
        process = self.workers.on_event(event, now, arrived)
        yield from self.tasks.join(event, now, process, arrived)
        yield from self._lost(now)

    def view(self, record: Record) -> bytes:
        """Return a record as GET /tasks/{uuid} has it."""
        return view(record.task, record.child_ids, record.current_run())

    def tick(self, now: float) -> Iterator[Event]:
        """Yield the events that go into the stream because time has passed."""
        yield from self.tasks.release(now)
        yield from self._lost(now)

    def _lost(self, now: float) -> Iterator[Event]:
        for process, reason, successor in self.workers.find_gone(now):
            yield from self.tasks.mark_lost(process, reason, 1e9 + now, successor)
        yield from self.tasks.mark_lost_late(1e9 + now)


def reduce(history: History) -> Reducer:
    """Return the reducer after a whole history."""
    reducer = Reducer()
    for arrival in history.arrivals:
        for _ in reducer.on_arrival(arrival):
            pass
    for _ in reducer.tick(history.ended_at + 2.0):
        pass
    return reducer


def records(true: History, case: str) -> Iterator[str]:
    """Yield the task events of a stream, each with the record after it, as lines of JSON.

    Of events that go into the stream together, since the first ones waited, only the last has a record.
    """
    reducer = Reducer()
    for arrival in true.arrivals:
        events = [event for event in reducer.on_arrival(arrival) if event["type"].startswith("task-")]
        for number, event in enumerate(events, 1):
            record = reducer.tasks.get(event["uuid"])
            assert record is not None
            is_last = not any(later["uuid"] == event["uuid"] for later in events[number:])
            record_json = json.loads(reducer.view(record)) if is_last else None
            yield json.dumps({"case": case, "event": event, "record": record_json}) + "\n"


def differences(history: History, reducer: Reducer) -> Iterator[str]:
    """Yield the differences between the records and the truth, one line each."""
    for uuid, truth in history.truth.items():
        record = reducer.tasks.get(uuid)
        if not truth.is_exact and (record is None or truth.attempts_joined > 1):
            continue  # with events missing, one attempt can be taken for another
        if record is None:
            yield f"{uuid}: not known"
            continue
        for what, found, right in _compared(record, truth):
            if found not in right:
                yield f"{uuid}: {what} is {found!r}, not {' or '.join(map(repr, right))}"


def _compared(record: Record, truth: Truth) -> Iterator[tuple[str, object, tuple[object, ...]]]:
    task = record.task
    if truth.final_state is not None:
        states = (truth.final_state, "LOST") if truth.may_be_lost else (truth.final_state,)
        process = None if record.current is None else record.current.process
        if process is not None and process.stopping_at is not None:
            states += ("RECEIVED",)  # a worker that stops returns messages that it has not started
        # Progress of a retry that overtakes the end of the attempt before it may count as that one's.
        yield "state", task.state, (*states, "STARTED") if "PROGRESS" in states else states
    if not truth.is_exact:
        return
    # After replace() the task-sent events may arrive in any order: which run began is not certain.
    first = truth.attempts if truth.attempts == truth.attempts_joined else min(1, truth.attempts)
    yield "attempt", task.attempt, tuple(range(first, truth.attempts_joined + 1))
    if truth.retries is not None:
        yield "retries", task.retries, (truth.retries,)
    yield "worker", task.worker, (truth.worker,)
    yield "result", task.result, (truth.result,)
    yield "exception", task.exception, (truth.exception,)
    if task.state != "REVOKED":  # the worker that discards a message does not name it
        yield "name", task.name, (truth.name,)
    yield "root_id", task.root_id, (truth.root_id,)
    yield "parent_id", task.parent_id, (truth.parent_id,)
    yield "lost", task.lost is not None, (task.state == "LOST",)


def inconsistencies(reducer: Reducer) -> Iterator[str]:
    """Yield the differences of workflows and processes from their tasks, one line each."""
    records = list(reducer.tasks.newest())
    by_root: dict[str, list[Record]] = {}
    assigned: dict[object, set[str]] = {}
    for record in records:
        if record.task.root_id is not None:
            by_root.setdefault(record.task.root_id, []).append(record)
        for attempt in record.kept():
            process = attempt.process
            if process is not None and process.gone_at is None and attempt.state not in UNASSIGNED_STATES:
                assigned.setdefault(process, set()).add(record.key)
    for root_id, members in by_root.items():
        (root,) = reducer.tasks.roots(root_id)
        workflow = Workflow(root_id, Fields(frozenset()))
        for record in members:
            workflow.add(record)
        tree = msgspec.json.decode(b"".join(workflow.pieces()) + b"}")
        found = (len(root.members), root.unready, root.lost, root.unsent == 0)
        right = (
            tree["total"],
            tree["total"] - tree["ready"],
            tree["counts"].get("LOST", 0),
            tree["sent_events"],
        )
        if found != right:
            yield f"{root_id}: the root has {found}, its tasks {right}"
    for process, keys in assigned.items():
        assert isinstance(process, Process)
        if {record.key for record in process.assigned if isinstance(record, Record)} != keys:
            yield f"{process.key}: has {process.assigned}, not {keys}"
