"""The publisher of the chaos test: numbered events of simulated workers, and the truth about their tasks.

    python -m benchmarks.chaos_publisher URL --rate 300 --seed 7 --truth truth.json

Each event has the next ``number``. Messages are published with confirms. If the connection is lost before the
confirm, the broker may have the message or not, so its numbers are *uncertain*; it is not sent again. Without
a connection no task begins; what the tasks under way have to send is sent later.

The command ``figures`` returns the counts. ``stop`` sends what is due, writes the truth into the file, and
returns the counts.
"""

import argparse
import heapq
import json
import random
import sys
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from celery.events.event import event_exchange
from kombu import Connection

STEP_SECONDS = 0.1
RECONNECT_SECONDS = 0.2
HEARTBEAT_SECONDS = 2.0
BURST_SECONDS = 7.0
"""The interval between two messages with so many events that a gateway processes them in parts."""
BURST_EVENTS = 250
CONFIRM_SECONDS = 10.0
WORKERS, NAMES = 4, 10
EVENTS_A_TASK = 3.3
"""On average."""
CRASH_SECONDS = 12.0
"""The interval between two workers that crash, whose tasks are lost then."""
CRASH_TASKS = 5
DISORDERED, FAILED, RETRIED, ENDLESS, PROGRESSING = 0.1, 0.1, 0.05, 0.01, 0.1
"""Shares of tasks: those whose ``task-received`` comes after their next event, and so on."""


class Publisher:
    """A connection that confirms, and what was published over it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None
        self._channel: Any = None
        self._try_at = 0.0
        self.number = 0
        self.reconnects: list[int] = []  # the next number at each
        self.uncertain: list[int] = []
        self.numbers: dict[str, list[int]] = {}  # of the events of each task and worker

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection; tries to connect now and then."""
        if self._channel is None and time.monotonic() >= self._try_at:
            self._try_at = time.monotonic() + RECONNECT_SECONDS
            with suppress(Exception):  # a broker that stops or starts may raise any error
                self._connect()
        return self._channel is not None

    def send(self, events: list[dict[str, Any]]) -> None:
        """Publish one message. Its numbers are used, whatever happens."""
        for event in events:
            event["number"] = self.number
            self.numbers.setdefault(_subject(event), []).append(self.number)
            self.number += 1
        body = json.dumps(events if len(events) > 1 else events[0]).encode()
        try:
            message = self._channel.prepare_message(
                body, content_type="application/json", content_encoding="utf-8", headers={}
            )
            self._channel.basic_publish(
                message, exchange="celeryev", routing_key="task.multi", confirm_timeout=CONFIRM_SECONDS
            )
        except Exception:
            self.uncertain += [event["number"] for event in events]
            self._drop()

    def _connect(self) -> None:
        connection = Connection(
            self._url, connect_timeout=2, transport_options={"confirm_publish": True, "read_timeout": 10}
        )
        connection.connect()
        channel = connection.channel()
        event_exchange(channel).declare()
        self._connection, self._channel = connection, channel
        self.reconnects.append(self.number)

    def _drop(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        with suppress(Exception):
            connection.collect()


class Cluster:
    """The simulated workers: which events are due when, in the order in which they are sent."""

    def __init__(self, rate: float, seed: int) -> None:
        self._chance = random.Random(seed)
        self._tasks_a_second = rate / EVENTS_A_TASK
        self._owed = 0.0
        self._began = time.time()
        self._heap: list[tuple[float, int, dict[str, Any]]] = []
        self._order = count()
        self._heartbeat_at = self._burst_at = self._crash_at = 0.0
        self._ids = count()
        self.truth: dict[str, dict[str, Any]] = {}

    def begin_tasks(self, now: float, seconds: float) -> None:
        """Plan the events of the tasks that begin in this time, and of the workers."""
        self._owed += self._tasks_a_second * seconds
        while self._owed >= 1:
            self._owed -= 1
            self._plan_task(now + self._chance.uniform(0, seconds))
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + HEARTBEAT_SECONDS
            for worker in range(WORKERS):
                beat = {"freq": HEARTBEAT_SECONDS, "active": 1, "processed": next(self._ids)}
                self._plan(now, now, f"w{worker}", "worker-heartbeat", beat)
        if now >= self._burst_at:
            self._burst_at = now + BURST_SECONDS
            for number in range(BURST_EVENTS):
                self._plan(now, now, "app", "shop-paid", {"order": number})
        if now >= self._crash_at:
            self._crash_at = now + CRASH_SECONDS
            self._plan_crash(now)

    def take(self, now: float | None) -> list[list[dict[str, Any]]]:
        """Return the events that are due, as messages of one worker each; ``None``: all that are planned."""
        by_worker: dict[str, list[dict[str, Any]]] = {}
        while self._heap and (now is None or self._heap[0][0] <= now):
            event = heapq.heappop(self._heap)[2]
            by_worker.setdefault(event["hostname"], []).append(event)
        return list(by_worker.values())

    def _plan_task(self, at: float) -> None:
        chance = self._chance
        number = next(self._ids)
        uid, worker = f"task-{number}", f"w{chance.randrange(WORKERS)}"
        name = f"chaos.task_{chance.randrange(NAMES)}"
        named = _named(uid, name)
        started = at + chance.uniform(0.01, 0.3)
        ended = started + chance.uniform(0.01, 0.7)
        is_late = chance.random() < DISORDERED
        self._plan(at, started + 0.3 if is_late else at, worker, "task-received", named)
        self._plan(started, started, worker, "task-started", {"uuid": uid})
        state, attempt = "STARTED", 1
        if chance.random() < PROGRESSING and not is_late:
            state = "PROGRESS"
            self._plan(started, started, worker, "task-progress", {"uuid": uid, "done": 1, "total": 2})
        if chance.random() < RETRIED and not is_late:
            self._plan(ended, ended, worker, "task-retried", {"uuid": uid, "exception": "Again()"})
            again, attempt, state = ended + 0.05, 2, "STARTED"
            self._plan(again, again, worker, "task-received", named | {"retries": 1})
            self._plan(again + 0.1, again + 0.1, worker, "task-started", {"uuid": uid})
            ended = again + 0.3
        if chance.random() >= ENDLESS:
            is_failed = chance.random() < FAILED
            state = "FAILURE" if is_failed else "SUCCESS"
            outcome = {"exception": "Failed()"} if is_failed else {"result": "None", "runtime": 0.01}
            self._plan(
                ended,
                ended,
                worker,
                f"task-{'failed' if is_failed else 'succeeded'}",
                {"uuid": uid} | outcome,
            )
        self.truth[uid] = {"state": state, "name": name, "attempt": attempt, "worker": f"{worker}@chaos"}

    def _plan_crash(self, at: float) -> None:
        """Plan a worker that starts tasks, crashes, and is started again with the same pid."""
        worker = f"m{next(self._ids)}"
        self._plan(at, at, worker, "worker-online", {"freq": HEARTBEAT_SECONDS})
        for number in range(CRASH_TASKS):
            uid, name = f"{worker}-{number}", "chaos.crash"
            self._plan(at + 0.1, at + 0.1, worker, "task-received", _named(uid, name))
            self._plan(at + 0.2, at + 0.2, worker, "task-started", {"uuid": uid})
            self.truth[uid] = {"state": "LOST", "name": name, "attempt": 1, "worker": f"{worker}@chaos"}
        again = at + 2.0
        self._plan(again, again, worker, "worker-online", {"freq": HEARTBEAT_SECONDS, "clock": 1})

    def _plan(self, at: float, sent: float, worker: str, type: str, fields: dict[str, Any]) -> None:
        clock = round((at - self._began) * 1000) + 1000
        event = {"type": type, "hostname": f"{worker}@chaos", "timestamp": at, "utcoffset": 0}
        event |= {"pid": 100, "clock": clock}
        heapq.heappush(self._heap, (sent, next(self._order), event | fields))


def _subject(event: dict[str, Any]) -> str:
    """Return the task or the worker that an event is about."""
    subject: str = event.get("uuid", event["hostname"])
    return subject


def _named(uid: str, name: str) -> dict[str, Any]:
    about = {"uuid": uid, "name": name, "root_id": uid, "parent_id": None, "args": "()", "kwargs": "{}"}
    return about | {"retries": 0, "eta": None, "expires": None}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=300, help="events a second")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--truth", type=Path, required=True)
    options = parser.parse_args()
    publisher, cluster = Publisher(options.url), Cluster(options.rate, options.seed)
    commands: Queue[str] = Queue()

    def listen() -> None:
        for line in sys.stdin:
            commands.put(line.strip())
        commands.put("stop")

    Thread(target=listen, daemon=True).start()
    word = ""
    while word != "stop":
        began = time.time()
        if publisher.is_connected:
            cluster.begin_tasks(began, STEP_SECONDS)
            _send(publisher, cluster.take(began))
        with suppress(Empty):
            word = commands.get_nowait()
            if word == "stop":
                _finish(publisher, cluster, options.truth)
            figures = {"published": publisher.number, "uncertain": len(publisher.uncertain)}
            print(json.dumps(figures | {"connects": len(publisher.reconnects)}), flush=True)
        time.sleep(max(0.0, began + STEP_SECONDS - time.time()))


def _send(publisher: Publisher, messages: list[list[dict[str, Any]]]) -> None:
    for events in messages:
        while not publisher.is_connected:
            time.sleep(STEP_SECONDS)
        publisher.send(events)


def _finish(publisher: Publisher, cluster: Cluster, truth: Path) -> None:
    _send(publisher, cluster.take(None))
    tasks = {
        uid: {"numbers": publisher.numbers[uid] + publisher.numbers[task["worker"]], "fields": task}
        if task["state"] == "LOST"
        else {"numbers": publisher.numbers[uid], "fields": task}
        for uid, task in cluster.truth.items()
    }
    content = {"published": publisher.number, "uncertain": publisher.uncertain, "tasks": tasks}
    content["reconnects"] = publisher.reconnects[1:]
    truth.write_text(json.dumps(content))


if __name__ == "__main__":
    main()
