"""The authors of the soak test: publish numbered events at a steady rate, and reconnect after restarts.

    python -m benchmarks.soak_authors URL --rate 3000

A number is used when its event is written to a connection, even if the connection is about to fail: the
event may or may not arrive. Without a connection nothing is published. The command ``figures`` returns the
counts. ``stop`` returns them after the broker has accepted everything.
"""

import argparse
import json
import sys
import time
from contextlib import suppress
from queue import Empty, Queue
from threading import Thread
from typing import Any

from benchmarks.soak_account import APPS, NAMES, PAID_EVERY, ROOTS, WALK_EVENTS, WORKER
from tests.support.raw_publisher import Properties, RawPublisher

STEP_SECONDS = 0.01
RECONNECT_SECONDS = 0.3
WALK_BATCH_EVENTS = 10
"""Events per message of a worker; Celery's prefork workers send lists."""
WALK_TYPES = ("task-received", "task-started", "task-succeeded")
PROPERTIES = Properties()


class Author:
    """One author: a connection to the broker, and its next number."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self.number = 0
        self.connects = 0
        self._url = url
        self._publisher: RawPublisher | None = None
        self._try_at = 0.0

    def send(self, count: int) -> None:
        """Publish this number of events, if the broker is connected."""
        if self._publisher is None and not self._connected():
            return
        assert self._publisher is not None
        events = [self._event(self.number + offset) for offset in range(count)]
        self.number += count
        size = WALK_BATCH_EVENTS if self.name == WORKER else 1
        groups = [events[first : first + size] for first in range(0, count, size)]
        bodies = [json.dumps(group if size > 1 else group[0]).encode() for group in groups]
        try:
            self._publisher.send((body, PROPERTIES) for body in bodies)
        except OSError:
            self._drop()

    def finish(self) -> None:
        """Wait until the broker has accepted everything, if it is connected."""
        if self._publisher is not None:
            with suppress(Exception):
                self._publisher.finish()

    def _connected(self) -> bool:
        if time.monotonic() < self._try_at:
            return False
        self._try_at = time.monotonic() + RECONNECT_SECONDS
        # A broker that stops or starts may raise any error: retry.
        with suppress(Exception):
            self._publisher = RawPublisher(self._url, timeout_seconds=5)
            self.connects += 1
        return self._publisher is not None

    def _drop(self) -> None:
        if self._publisher is not None:
            self._publisher.drop()
            self._publisher = None

    def _event(self, number: int) -> dict[str, Any]:
        event = {"hostname": self.name, "number": number, "timestamp": time.time(), "utcoffset": 0, "pid": 1}
        if self.name != WORKER:
            kind = "task-progress" if number % PAID_EVERY else "shop-paid"
            about = {"name": f"soak.task_{number % NAMES}", "root_id": f"{self.name}-{number % ROOTS}"}
            return event | about | {"type": kind, "uuid": f"{self.name}-{number}", "parent_id": None}
        task, step = divmod(number, WALK_EVENTS)
        event |= {"type": WALK_TYPES[step], "uuid": f"{self.name}-{task}", "clock": number}
        if step == 0:
            event |= {
                "name": f"soak.walk_{task % NAMES}",
                "root_id": f"{self.name}-{task}",
                "parent_id": None,
            }
            event |= {"args": "()", "kwargs": "{}", "retries": 0, "eta": None, "expires": None}
        return event


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=3000, help="events a second, of all authors together")
    options = parser.parse_args()
    authors = [Author(options.url, name) for name in (*APPS, WORKER)]
    told: Queue[str] = Queue()

    def listen() -> None:
        for line in sys.stdin:
            told.put(line.strip())
        told.put("stop")

    Thread(target=listen, daemon=True).start()
    each = options.rate * STEP_SECONDS / len(authors)
    owed, due_at, word = 0.0, time.monotonic(), ""
    while word != "stop":
        ahead = due_at - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        elif ahead < -1:  # events of an outage are not sent later
            due_at = time.monotonic()
        due_at += STEP_SECONDS
        owed += each
        for author in authors:
            author.send(int(owed))
        owed -= int(owed)
        with suppress(Empty):
            word = told.get_nowait()
            if word == "stop":
                for author in authors:
                    author.finish()
            ends = {author.name: author.number for author in authors}
            connects = sum(author.connects for author in authors)
            print(json.dumps({"ends": ends, "connects": connects}), flush=True)


if __name__ == "__main__":
    main()
