"""Load: tasks that change their states while a test reads them; and their states by their events."""

import random
import threading
import time
from collections.abc import Iterator
from itertools import count

from tests.support.publisher import Publisher, received, task_event
from tests.support.transports import Message


class Load:
    """Publishes the events of many tasks at a time, until it is ended.

    Args:
        seed: the same seed gives the same tasks.
    """

    def __init__(self, broker_url: str, events_per_second: int, seed: int) -> None:
        self._publisher = Publisher(broker_url)
        self._rate = events_per_second
        self._random = random.Random(seed)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._prefix = f"{seed}-{time.time_ns()}"
        self._numbers = count()
        self._lives: list[Iterator[Message]] = []

    def start(self) -> None:
        """Start to publish, in a thread."""
        self._thread.start()

    def end(self) -> None:
        """Stop, and close the connection."""
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
        if len(self._lives) < 200:
            self._lives.append(self._life(f"{self._prefix}-{next(self._numbers)}"))
        life = self._random.choice(self._lives)
        try:
            return next(life)
        except StopIteration:
            self._lives.remove(life)
            return self._next()

    def _life(self, uid: str) -> Iterator[Message]:
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
    """Return the state of each task after some events, by uuid."""
    return {event["uuid"]: event["state"] for event in events if event["type"].startswith("task-")}


def position(message: Message) -> int:
    """Return the position of a message in the history."""
    return int(message["id"].partition("-")[2])
