"""Tasks, messages and attempts of the simulated cluster, and the broker that holds the messages.

A message is in one place at a time: at the broker, in the hands of one process, or settled (acknowledged or
dropped). So a task never runs twice at the same time. Source of fields and order: celery/app/amqp.py.
"""

from collections import deque
from itertools import accumulate
from math import inf
from random import Random
from typing import TYPE_CHECKING

from tests.support.simulated_transport import (
    LATE_SHARE,
    MAX_LATE_SECONDS,
    Event,
    Schedule,
    Sender,
    Trouble,
    Wire,
)

if TYPE_CHECKING:
    from tests.support.simulated_worker import Process

MAX_RETRIES = MAX_REQUEUES = 3
MAX_REPLACEMENTS = 2
FAR_SECONDS = 30 * 86400.0
DROPPED_SHARE = 0.15
"""Of messages that a process gave back: expired or purged before another process gets them."""
UNRECEIVED_SHARE = 0.04
"""Of messages that were just sent."""

# How an attempt ends, in parts of 110; and the switch of `Trouble` that allows it.
_FATES = {
    "succeed": (60, "always"),
    "fail": (9, "always"),
    "time_out": (3, "always"),
    "retry": (14, "retries"),
    "replace": (6, "replaces"),
    "ignore": (3, "ignores"),
    "requeue": (8, "rejects"),
    "reject": (3, "rejects"),
    "terminate": (4, "revokes"),
}


class Chord:
    """How many header tasks have not succeeded yet, and the body that the last of them sends."""

    __slots__ = ("left", "body")

    def __init__(self, left: int, body: "SimulatedTask") -> None:
        self.left = left
        self.body = body


class SimulatedTask:
    """A task and its true history.

    Attributes:
        root_id, parent_id: as Celery sets them, except that a task is never its own parent.
        links: the tasks that it sends when it succeeds.
        reruns_left: how often its id is sent again after a run has ended.
        messages, attempts: all of them, in true order.
        visible_sends: run and retries of each message that a ``task-sent`` reports.
    """

    def __init__(
        self, uuid: str, name: str, *, root_id: str | None = None, parent_id: str | None = None
    ) -> None:
        self.uuid = uuid
        self.name = name
        self.root_id = root_id or uuid
        self.parent_id = parent_id
        self.links: list[SimulatedTask] = []
        self.chord: Chord | None = None
        self.reruns_left = 0
        self.messages: list[Message] = []
        self.attempts: list[Attempt] = []
        self.visible_sends: set[tuple[int, int]] = set()

    def next(self) -> "list[SimulatedTask]":
        """Return the tasks that it sends now that it has succeeded."""
        if self.chord is None:
            return self.links
        self.chord.left -= 1
        if self.chord.left:
            return self.links
        self.chord.body.root_id, self.chord.body.parent_id = self.root_id, self.uuid
        return [*self.links, self.chord.body]

    def floor(self, hostname: str) -> float:
        """Return the earliest arrival of a new attempt's first event.

        Attempts are ordered by the arrival of their first events, so these keep the true order. And a
        ``task-progress`` never arrives within the next attempt on the same hostname: nothing tells the two
        apart if the clock was set between them.
        """
        floor = 0.0
        for attempt in self.attempts:
            at = attempt.progress_at if attempt.process.node.hostname == hostname else 0.0
            floor = max(floor, attempt.first_at, at)
        return floor


class Message:
    """A task message.

    Attributes:
        parent_id: as on the wire, where a retried or replaced task without a parent is its own.
        run: counts the runs. A ``task-sent`` with the same retries as one before it opens a run.
        joined_run: counts the runs, where the message of ``replace()`` stays in the run of the replaced one.
        begins_at: true time before which it is not begun (``eta``).
        is_visible, is_received: a ``task-sent``, a ``task-received`` reports it.
        is_settled: the broker never delivers it again.
    """

    __slots__ = (
        "task", "name", "parent_id", "retries", "run", "joined_run", "begins_at", "eta", "is_late_ack",
        "is_visible", "is_received", "is_settled", "requeues", "replacements",
    )  # fmt: skip

    def __init__(self, task: SimulatedTask, run: int, joined_run: int, *, is_late_ack: bool) -> None:
        self.task = task
        self.name = task.name
        self.parent_id = task.parent_id
        self.run = run
        self.joined_run = joined_run
        self.is_late_ack = is_late_ack
        self.retries = self.requeues = self.replacements = 0
        self.begins_at = 0.0
        self.eta: str | None = None
        self.is_visible = self.is_received = self.is_settled = False

    def again(self, *, is_retry: bool) -> "Message":
        """Return the message that a task sends of itself: a retry (app/task.py), or else its replacement.

        ``replace()`` sets no parent, so the running task becomes it: itself.
        """
        message = Message(self.task, self.run, self.joined_run, is_late_ack=self.is_late_ack)
        message.name, message.retries, message.replacements = self.name, self.retries, self.replacements
        if is_retry:
            message.retries += 1
            message.parent_id = self.parent_id or self.task.uuid
        else:
            message.replacements += 1
            message.name = f"{self.task.name}.part{message.replacements}"
            message.parent_id = self.task.uuid
        return message

    def delay_until(self, at: float, sender: Sender) -> None:
        """Set the ``eta``. Workers begin it at this true time, as if their clocks were the sender's."""
        self.begins_at = at
        self.eta = sender.eta(min(at, FAR_SECONDS))

    def fields(self) -> Event:
        """Return the fields that ``task-sent`` and ``task-received`` have in common."""
        task = self.task
        return {
            "uuid": task.uuid,
            "name": self.name,
            "args": "(1, 2)",
            "kwargs": "{}",
            "root_id": task.root_id,
            "parent_id": self.parent_id,
            "retries": self.retries,
            "eta": self.eta,
            "expires": None,
        }


class Attempt:
    """One process's work on one message.

    Attributes:
        state: as the events of its process report it.
        first_at, progress_at: when its first event and its last ``task-progress`` arrive.
        is_in_hand: its process works on it, or did so when it was killed or exited.
        is_returned: its process lives, but gave the message back before it began (reconnect).
        received, ended: its last ``task-received`` and the event that ends it, if they were sent.
    """

    __slots__ = (
        "message", "process", "state", "first_at", "progress_at", "began_at", "result", "exception",
        "is_in_hand", "is_returned", "received", "ended",
    )  # fmt: skip

    def __init__(self, message: Message, process: "Process") -> None:
        self.message = message
        self.process = process
        self.state = "RECEIVED"
        self.first_at = self.progress_at = self.began_at = 0.0
        self.result: str | None = None
        self.exception: str | None = None
        self.is_in_hand = True
        self.is_returned = False
        self.received: Event | None = None
        self.ended: Event | None = None


class Broker:
    """The queue of messages, and what the processes of a cluster share."""

    def __init__(self, rng: Random, trouble: Trouble) -> None:
        self.rng = rng
        self.trouble = trouble
        self.schedule = Schedule()
        self.wire = Wire(self.schedule, rng, trouble)
        self.clients: list[Sender] = []
        self.consumers: list[Process] = []
        self.has_gossip = rng.random() < 0.5
        self.top_clock = 0
        self._waiting: deque[Message] = deque()
        self._fates = [fate for fate, (_, switch) in _FATES.items() if getattr(trouble, switch, True)]
        self._weights = list(accumulate(_FATES[fate][0] for fate in self._fates))
        self._texts = 0

    def send(self, sender: Sender, message: Message, *, late_seconds: float = 0.0) -> None:
        """Send a message that workers get, and its ``task-sent``, in this order (app/amqp.py)."""
        self.announce(sender, message, late_seconds=late_seconds)
        self.schedule.after(0.002 + self.rng.random() * 0.01, self.offer, message)

    def announce(self, sender: Sender, message: Message, *, late_seconds: float = 0.0) -> None:
        """Send the ``task-sent`` of a message, where its sender does so."""
        task = message.task
        task.messages.append(message)
        message.is_visible = sender.sends_sent
        if message.is_visible:
            task.visible_sends.add((message.run, message.retries))
            fields = message.fields()
            fields.update(queue="celery", exchange="", routing_key="celery")
            name = sender.client_name
            self.wire.send(sender, "task-sent", fields, hostname=name, late_seconds=late_seconds)

    def send_first(self, sender: Sender, message: Message) -> None:
        """Send the first message of a run. It may never reach a worker, or have an ``eta``."""
        random = self.rng.random
        if random() < 0.06:
            is_beyond = self.trouble.unreceived and random() < 0.3  # the history
            message.delay_until(inf if is_beyond else self.schedule.now + random() * 4, sender)
        is_late = self.trouble.late and sender in self.clients and random() < LATE_SHARE
        late_seconds = random() * (MAX_LATE_SECONDS - 0.3) if is_late else 0.0
        if self._is_unreceived(message.task, sender):
            self.announce(sender, message, late_seconds=late_seconds)
        else:
            self.send(sender, message, late_seconds=late_seconds)

    def ended(self, task: SimulatedTask) -> None:
        """Send an id again some time after its run has ended, if it has runs left."""
        if task.reruns_left:
            task.reruns_left -= 1
            self.schedule.after(self.trouble.rerun_seconds + self.rng.random() * 16, self._send_again, task)

    def offer(self, message: Message) -> None:
        """Take a message, and deliver it when a process has room for it."""
        self._waiting.append(message)
        self.pump()

    def give_back(self, message: Message) -> None:
        """Take a message back from a process, to deliver it again unless it was dropped meanwhile."""
        if message.is_settled:
            return
        random = self.rng.random
        is_dropped = self.trouble.unreceived and random() < DROPPED_SHARE
        message.is_settled = is_dropped or not self.trouble.redelivery
        if not message.is_settled:
            self.schedule.after(0.005 + random() * random(), self.offer, message)

    def pump(self) -> None:
        """Deliver messages while a process has room for them."""
        while self._waiting:
            ready = [process for process in self.consumers if process.has_room()]
            if not ready:
                return
            process = ready[int(self.rng.random() * len(ready))]
            process.in_flight += 1
            self.schedule.after(0.001 + self.rng.random() * 0.01, process.receive, self._waiting.popleft())

    def fate(self, message: Message) -> str:
        """Draw how an attempt ends."""
        fate = self.rng.choices(self._fates, cum_weights=self._weights)[0]
        if fate == "retry" and message.retries >= MAX_RETRIES:
            return "fail"
        if fate == "replace" and message.replacements >= MAX_REPLACEMENTS:
            return "succeed"
        if fate == "requeue" and (not message.is_late_ack or message.requeues >= MAX_REQUEUES):
            return "succeed"
        return fate

    def seconds(self) -> float:
        """Draw how long an attempt takes."""
        return self.rng.random() * self.rng.choice((0.02, 0.1, 1.0, 3.0, 12.0))

    def text(self, what: str) -> str:
        """Return a result or an exception that no other event of this history has."""
        self._texts += 1
        return f"{what}({self._texts})"

    def _send_again(self, task: SimulatedTask) -> None:
        last = task.messages[-1]
        run = max(message.run for message in task.messages) + 1
        message = Message(task, run, last.joined_run + 1, is_late_ack=last.is_late_ack)
        self.send_first(self.rng.choice(self.clients), message)

    def _is_unreceived(self, task: SimulatedTask, sender: Sender) -> bool:
        """Draw whether a message never reaches a worker: only if it and all runs before were announced."""
        if not self.trouble.unreceived or not sender.sends_sent or self.rng.random() > UNRECEIVED_SHARE:
            return False
        return all((message.run, 0) in task.visible_sends for message in task.messages)
