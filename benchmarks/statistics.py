"""The cost of the statistics of names for each event.

    python -m benchmarks.statistics [TASKS]

Prints ``{"with_us": …, "without_us": …, "statistics_us": …}``: CPU microseconds per event of the stages from
decoding to the task table, with and without the statistics, and the difference. A task has four events: sent,
received, started, succeeded; one in ``TASKS_PER_FAILURE`` fails. The two take turns, and a figure is the
median of the rounds.
"""

import gc
import json
import sys
import time
import uuid
from collections.abc import Iterator
from statistics import median

from benchmarks.publish import NAMES, Event, compact
from celery_gateway.events.event import Event as JoinedEvent
from celery_gateway.events.message import Message
from celery_gateway.events.normalize import normalize
from celery_gateway.state.activity import Activity
from celery_gateway.state.attempt import Attempt
from celery_gateway.state.task_record import Record
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_table import WorkerTable

ROUNDS = 9
EVENTS_PER_MESSAGE = 10
TASKS_AT_ONCE = 100
TASKS_PER_FAILURE = 100
TASKS_PER_SECOND = 1_250
BEGIN = 1_795_000_000.0
TRACEBACK = """Traceback (most recent call last):
  File "/usr/lib/python3/site-packages/celery/app/trace.py", line 453, in trace_task
    R = retval = fun(*args, **kwargs)
  File "/srv/shop/tasks.py", line 88, in charge
    raise PaymentTimeout(f"order {order}: no reply")
shop.errors.PaymentTimeout: order 4711: no reply
"""


class NoActivity(Activity):
    """The statistics of nothing."""

    def on_event(
        self, record: Record, attempt: Attempt, event_type: str, event: JoinedEvent, arrived: float
    ) -> None:
        """Count nothing."""

    def on_names(self, record: Record) -> None:
        """Count nothing."""

    def update(self, record: Record) -> None:
        """Count nothing."""

    def remove(self, record: Record) -> None:
        """Count nothing."""


def events(tasks: int) -> Iterator[Event]:
    """Yield the events of tasks, ``TASKS_AT_ONCE`` of which are under way at any time."""
    for start in range(0, tasks, TASKS_AT_ONCE):
        group = [(number, str(uuid.uuid4())) for number in range(start, min(tasks, start + TASKS_AT_ONCE))]
        for step in range(4):
            for number, uid in group:
                yield _event(number, uid, step)


def _event(number: int, uid: str, step: int) -> Event:
    at = BEGIN + number / TASKS_PER_SECOND
    event: Event = {"uuid": uid, "utcoffset": 0, "pid": 1000 + number % 4, "clock": 4 * number + step + 1}
    event |= {"hostname": f"w{number % 4}@web" if step else f"gen{number % 4}@web"}
    event |= {"timestamp": at - 0.2 + step * 0.05}
    if step < 2:
        event |= {"name": NAMES[number % len(NAMES)], "root_id": uid, "parent_id": None}
        event |= {"args": "()", "kwargs": "{}", "retries": 0, "eta": None, "expires": None}
        queued = {"queue": "celery", "exchange": "", "routing_key": "celery"}
        return event | ({"type": "task-received"} if step else {"type": "task-sent"} | queued)
    if step == 2:
        return event | {"type": "task-started"}
    if number % TASKS_PER_FAILURE == 0:
        exception = f"PaymentTimeout('order {number}: no reply')"
        return event | {"type": "task-failed", "exception": exception, "traceback": TRACEBACK}
    return event | {"type": "task-succeeded", "result": "None", "runtime": 0.01 + number % 97 / 1_000}


def main() -> None:
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 12_500
    bodies = [compact(event) for event in events(tasks)]
    messages = [
        Message(b"[%b]" % b",".join(bodies[start : start + EVENTS_PER_MESSAGE]))
        for start in range(0, len(bodies), EVENTS_PER_MESSAGE)
    ]
    gc.collect()
    gc.set_threshold(20_000, 20, 100)  # as in http/server.py
    rounds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2 * ROUNDS):
        is_counted = number % 2 == 0
        rounds[is_counted].append(_seconds(messages, is_counted=is_counted) / len(bodies) * 1e6)
    extra_us = median(a - b for a, b in zip(rounds[True], rounds[False], strict=True))
    costs = {"with_us": median(rounds[True]), "without_us": median(rounds[False])}
    print(json.dumps(costs | {"statistics_us": extra_us}), flush=True)
    sys.stdin.read()


def _seconds(messages: list[Message], *, is_counted: bool) -> float:
    """Return the CPU time of processing all messages with fresh tables."""
    tasks, workers = TaskTable(), WorkerTable()
    if not is_counted:
        tasks.activity = NoActivity()
    step_seconds = EVENTS_PER_MESSAGE / 4 / TASKS_PER_SECOND
    gc.collect()
    began = time.thread_time()
    for number, message in enumerate(messages):
        arrived = BEGIN + 1 + number * step_seconds
        for event in normalize(message, arrived).events:
            tasks.join(event, arrived, workers.on_event(event, arrived, arrived), arrived)
    return time.thread_time() - began


if __name__ == "__main__":
    main()
