"""The cost of the task table alone: decoding the events, joining names, and keeping the state.

    python -m benchmarks.table [EVENTS]

Prints ``{"normalize_us": …, "join_us": …, "state_us": …}``: CPU microseconds per event, in messages of ten.
Joining is the cost of the same table when it keeps only names. The state includes the worker table, which
provides the process of an event. The statistics of names are measured by ``statistics``.
"""

import gc
import json
import sys
import time

from benchmarks.publish import UNSTAMPED, compact, events
from benchmarks.statistics import NoActivity
from celery_gateway.events.event import Event
from celery_gateway.events.message import Message
from celery_gateway.events.normalize import normalize
from celery_gateway.state import task_table
from celery_gateway.state.attempt import Attempt, Attempts
from celery_gateway.state.process import Process
from celery_gateway.state.task import Task
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_table import WorkerTable

ROUNDS = 5
ARRIVED = UNSTAMPED + 0.01
_ATTEMPT = Attempt(1, 0, 0, 0.0)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    bodies = [compact(event) for event in events(count, 5000)]
    messages = [Message(b"[%b]" % b",".join(bodies[start : start + 10])) for start in range(0, count, 10)]
    gc.collect()
    gc.set_threshold(20_000, 20, 100)  # as in http/server.py
    seconds: dict[str, list[float]] = {"normalize": [], "join": [], "table": []}
    keep_state = task_table.apply
    for _ in range(ROUNDS):
        for what, apply in (("join", _keep_nothing), ("table", keep_state)):
            task_table.apply = apply
            tasks, workers = TaskTable(), WorkerTable()
            tasks.activity = NoActivity()
            began = time.thread_time()
            normalized = [event for message in messages for event in normalize(message, 0.0).events]
            read = time.thread_time()
            for event in normalized:
                tasks.join(event, 0.0, workers.on_event(event, 0.0) if what == "table" else None, ARRIVED)
            seconds["normalize"].append(read - began)
            seconds[what].append(time.thread_time() - read)
    normalize_us, join_us, table_us = (min(rounds) / count * 1e6 for rounds in seconds.values())
    costs = {"normalize_us": normalize_us, "join_us": join_us, "state_us": table_us - join_us}
    print(json.dumps(costs), flush=True)
    sys.stdin.read()


def _keep_nothing(
    task: Task,
    attempts: Attempts,
    event: Event,
    process: Process | None,
    now: float,
    arrived: float | None,
) -> tuple[Attempt, int]:
    return _ATTEMPT, 0


if __name__ == "__main__":
    main()
