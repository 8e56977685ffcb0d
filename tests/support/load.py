"""Load: tasks that walk through their states while a test looks; and what it makes of their events."""

import random
import threading
import time
from collections.abc import Iterator
from itertools import count

from tests.publisher import Publisher, received, task_event
from tests.transports import Message


class Load:
    """Tasks that walk through their states, many at a time, until told to end."""

    def __init__(self, broker_url: str, events_per_second: int, seed: int) -> None:
        self._publisher = Publisher(broker_url)
        self._rate = events_per_second
        self._random = random.Random(seed)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._prefix = f"{seed}-{time.time_ns()}"
        self._numbers = count()
        self._walks: list[Iterator[Message]] = []

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ending.set()
        self._thread.join()
        self._publisher.close()

    def _run(self) -> None:
        began, sent = time.monotonic(), 0
        while not self._ending.is_set():
            batch = [self._next() for _ in range(10)]
            self._publisher.send(batch)
            sent += len(batch)
            self._ending.wait(max(0.0, began + sent / self._rate - time.monotonic()))

    def _next(self) -> Message:
        if len(self._walks) < 200:
            self._walks.append(self._walk(f"{self._prefix}-{next(self._numbers)}"))
        walk = self._random.choice(self._walks)
        try:
            return next(walk)
        except StopIteration:
            self._walks.remove(walk)
            return self._next()

    def _walk(self, uid: str) -> Iterator[Message]:
        name = self._random.choice(["a.one", "a.two", "b.one"])
        for retries in range(3):
            yield received(uid, name) | {"retries": retries, "timestamp": time.time()}
            yield task_event("task-started", uid)
            for step in range(self._random.randrange(3)):
                yield task_event("task-progress", uid, current=step, total=3)
            if self._random.random() < 0.8:
                break
            yield task_event("task-retried", uid, exception="Busy()", traceback="…")
        if self._random.random() < 0.9:  # the others never end
            yield task_event("task-succeeded", uid, result="None", runtime=0.1)


def states(events: list[Message]) -> dict[str, str]:
    """The state of each task after some events."""
    return {event["uuid"]: event["state"] for event in events if event["type"].startswith("task-")}


def position(message: Message) -> int:
    return int(message["id"].partition("-")[2])
