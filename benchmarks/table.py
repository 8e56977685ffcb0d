"""The cost of the table of tasks alone: reading the events, joining names, and keeping the state.

    python -m benchmarks.table [EVENTS]

Prints ``{"normalize_us": …, "join_us": …, "state_us": …}``: CPU microseconds an event, in messages of ten.
Joining is what the same table costs when nothing of an event is kept but its names. The state includes the
table of workers, which gives the process that an event is from.
"""

import gc
import json
import sys
import time

import gateway.tasks
from benchmarks.publish import compact, events
from gateway.attempt import Attempt, Attempts
from gateway.event import Event
from gateway.message import Message
from gateway.normalize import normalize
from gateway.process import Process
from gateway.task import Task
from gateway.tasks import Tasks
from gateway.workers import Workers

ROUNDS = 5
_ATTEMPT = Attempt(1, 0, 0, 0.0)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    bodies = [compact(event) for event in events(count, 5000)]
    messages = [Message(b"[%b]" % b",".join(bodies[start : start + 10])) for start in range(0, count, 10)]
    gc.collect()
    gc.set_threshold(20_000, 20, 100)  # as the server does
    seconds: dict[str, list[float]] = {"normalize": [], "join": [], "table": []}
    keep_state = gateway.tasks.apply
    for _ in range(ROUNDS):
        for what, apply in (("join", _keep_nothing), ("table", keep_state)):
            gateway.tasks.apply = apply
            tasks, workers = Tasks(), Workers()
            began = time.thread_time()
            normalized = [event for message in messages for event in normalize(message, 0.0).events]
            read = time.thread_time()
            for event in normalized:
                tasks.join(event, 0.0, workers.hear(event, 0.0) if what == "table" else None)
            seconds["normalize"].append(read - began)
            seconds[what].append(time.thread_time() - read)
    normalize_us, join_us, table_us = (min(rounds) / count * 1e6 for rounds in seconds.values())
    costs = {"normalize_us": normalize_us, "join_us": join_us, "state_us": table_us - join_us}
    print(json.dumps(costs), flush=True)
    sys.stdin.read()


def _keep_nothing(
    task: Task, attempts: Attempts, event: Event, process: Process | None, now: float
) -> tuple[Attempt, int]:
    return _ATTEMPT, 0


if __name__ == "__main__":
    main()
