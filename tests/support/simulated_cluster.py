"""A seeded simulation of a Celery cluster: the events that a gateway gets, and the truth about each task.

The truth is computed from the true history (who worked on which message, and how that ended), never from the
events. It holds for any reducer that follows these definitions:

- An attempt is one process's work on one message. It begins when a worker receives or discards the message.
- A message that was not begun and comes back to the living process that returned it (reconnect) is the same
  attempt.
- Attempts are ordered by run, then retries, then by the arrival of their first event.
- A run begins with a ``task-sent`` that has the retries of an earlier one, and with whatever comes after
  SUCCESS, FAILURE or REVOKED.

What may happen is listed in `Trouble`. What never happens, since nothing in the events could tell: the first
event of an attempt overtakes the first event of an earlier attempt of its task; an id is sent again within
`Trouble.rerun_seconds` after the end of its run, or after another end; a task runs twice at the same time.
"""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from tests.support.simulated_broker import Attempt, Broker, Chord, Message, SimulatedTask
from tests.support.simulated_transport import EPOCH, Arrival, Counter, Event, Host, Node, Sender, Trouble
from tests.support.simulated_worker import MAX_OUTAGE_SECONDS, Process

__all__ = ["EPOCH", "Arrival", "Event", "History", "Trouble", "Truth", "history"]

READY_STATES = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
SECONDS_PER_TASK = 0.7
MIN_DOWN_SECONDS, MAX_DOWN_SECONDS = 1.0, 8.0
"""How long a worker is down between two lives. All events of a life have arrived before the next begins."""


class Truth(NamedTuple):
    """What is true of a task at the end of a history.

    Attributes:
        is_exact: False with `Trouble.lost`; then only ``final_state`` is meant, and only if it is not None.
        final_state: the state of the last attempt of the last run; PENDING if that has none yet; LOST if
            ``is_lost``; None if nothing can be asked for (only with `Trouble.lost`).
        is_lost: the last attempt's process was killed or exited with the task in hand, no process got it
            again, and a process of the same hostname and pid came up since.
        may_be_lost: ``final_state`` is right, and LOST is, too: the process of the last attempt is gone, but
            the events do not say so (no successor, or one with another pid); or it is gone after it ended the
            task without an event (``Ignore``), which looks the same.
        attempts: of the last run.
        attempts_joined: the same where the message of ``replace()`` continues the run of the replaced task. A
            gateway has to count one of the two. They differ only where ``task-sent`` reports a replacement.
        retries: the most that an event of the last run has; None if the last message is known only by its
            ``task-revoked``, which bears none.
        worker: the hostname of the last attempt's process.
        result, exception: of the last attempt, if it ended so.
        root_id, parent_id: None if no event has them. A task is never its own parent, whatever events report.
        name: of the last message that an event names.
    """

    is_exact: bool
    final_state: str | None
    is_lost: bool
    may_be_lost: bool
    attempts: int
    attempts_joined: int
    retries: int | None
    worker: str | None
    result: str | None
    exception: str | None
    root_id: str | None
    parent_id: str | None
    name: str | None


class History(NamedTuple):
    """A cluster's history.

    Attributes:
        arrivals: the events as they arrive at the gateway.
        truth: by uuid, of all tasks that an event was sent of.
        ended_at: the time of the last arrival.
    """

    arrivals: list[Arrival]
    truth: dict[str, Truth]
    ended_at: float


def history(seed: int, trouble: Trouble = Trouble(), tasks: int = 30) -> History:  # noqa: B008
    """Simulate a cluster.

    Args:
        seed: the same seed, trouble and number of tasks give the same history. It is part of each uuid.
        tasks: how many tasks are sent, about.
    """
    rng = Random(seed)
    cluster = _Cluster(seed, rng, trouble, tasks)
    cluster.broker.schedule.run()
    arrivals, lost = cluster.broker.wire.deliver(rng, trouble)
    known = (task for task in cluster.tasks if task.attempts or task.visible_sends)
    truth = {task.uuid: _truth(task, lost, is_exact=not trouble.lost) for task in known}
    return History(arrivals, truth, arrivals[-1].at)


class _Cluster:
    """Clients, nodes and hosts, and what happens to them."""

    def __init__(self, seed: int, rng: Random, trouble: Trouble, tasks: int) -> None:
        self.rng = rng
        self.trouble = trouble
        self.broker = Broker(rng, trouble)
        self.tasks: list[SimulatedTask] = []
        self._uuid_prefix = f"s{seed}-t"
        self._next_pid = 100
        self._end_seconds = 5.0 + tasks * SECONDS_PER_TASK
        hosts = [Host(f"h{number}", rng, has_skew=trouble.skew) for number in range(rng.randint(1, 3))]
        client_hosts = [Host(f"c{number}", rng, has_skew=trouble.skew) for number in range(2)]
        for number in range(rng.randint(1, 3)):
            self._add_client(client_hosts[number % 2])
        for number in range(rng.randint(1, 4)):
            host = rng.choice(hosts)
            node = Node(f"w{number}@{host.name}", host, rng, trouble, is_needed=number == 0)
            self._at_some_time(1.0, self._start, node)
            for _ in range(rng.randint(0, 3)):
                self._at_some_time(self._end_seconds, self._disturb, node)
        if trouble.steps:
            for host in (*hosts, *client_hosts):
                for _ in range(rng.choice((0, 0, 1, 2))):
                    self._at_some_time(self._end_seconds, host.step, rng)
        self._send_canvases(tasks)

    # Clients

    def _add_client(self, host: Host) -> None:
        sends_sent = self.trouble.sent_events and self.rng.random() < 0.7
        pid, scale = self._new_pid(), self.broker.wire.scale(self.rng)
        self.broker.clients.append(Sender(f"gen{pid}@{host.name}", pid, host, Counter(), scale, sends_sent))

    def _send_canvases(self, tasks: int) -> None:
        kinds = (self._task, self._task, self._task, self._chain, self._group, self._chord)
        while len(self.tasks) < tasks:
            client, canvas = self.rng.choice(self.broker.clients), self.rng.choice(kinds)()
            self._at_some_time(self._end_seconds, self._send, client, canvas)

    def _send(self, client: Sender, tasks: list[SimulatedTask]) -> None:
        is_late_ack = self.rng.random() < 0.5
        for task in tasks:
            self.broker.send_first(client, Message(task, 0, 0, is_late_ack=is_late_ack))

    def _new_task(self, *, root_id: str | None = None, parent_id: str | None = None) -> SimulatedTask:
        number = len(self.tasks)
        name = f"app.task{number % 7}"
        task = SimulatedTask(f"{self._uuid_prefix}{number}", name, root_id=root_id, parent_id=parent_id)
        self.tasks.append(task)
        return task

    def _task(self) -> list[SimulatedTask]:
        """Return a task that may run again, or one that sends others when it ends."""
        task = self._new_task()
        draw = self.rng.random()
        if self.trouble.reruns and draw < 0.4:
            task.reruns_left = self.rng.randint(1, 2)
        elif draw > 0.85:
            for _ in range(self.rng.randint(1, 3)):
                task.links.append(self._new_task(root_id=task.root_id, parent_id=task.uuid))
        return [task]

    def _chain(self) -> list[SimulatedTask]:
        first = last = self._new_task()
        for _ in range(self.rng.randint(1, 3)):
            link = self._new_task(root_id=first.uuid, parent_id=last.uuid)
            last.links.append(link)
            last = link
        return [first]

    def _group(self) -> list[SimulatedTask]:
        """Return a group from a client: each member is its own root."""
        return [self._new_task() for _ in range(self.rng.randint(2, 4))]

    def _chord(self) -> list[SimulatedTask]:
        """Return the header of a chord from a client. The last member that succeeds sends the body."""
        header = self._group()
        chord = Chord(len(header), self._new_task())
        for task in header:
            task.chord = chord
        return header

    # Nodes

    def _start(self, node: Node) -> None:
        """Start a process on a node."""
        before = node.lives[-1] if node.lives else None
        pid = 1 if node.is_container else self._new_pid()
        is_unseen = before is not None and before.pid == pid and not before.reported_processed
        clock = 0
        if not is_unseen and self.rng.random() < 0.5:  # mingle; else the counter shows that the life is new
            clock = max((process.main.counter.value for process in self.broker.consumers), default=0)
        process = Process(self.broker, node, pid, clock)
        for life in node.lives:
            life.is_replaced = life.is_replaced or life.pid == pid
        process.come_up()

    def _disturb(self, node: Node) -> None:
        """Kill or stop the process of a node, or disconnect it from the broker."""
        process = node.lives[-1] if node.lives else None
        if process is None or process.is_gone or process.is_stopping or not process.is_connected:
            return
        kind = self.rng.choice(("kill", "stop", "reconnect"))
        if kind == "reconnect":
            if self.trouble.reconnects and process.can_lose_broker():
                process.lose_broker(self.rng.uniform(0.2, MAX_OUTAGE_SECONDS))
        elif self.trouble.restarts:
            if kind == "stop":
                self._stop(process)
            else:
                process.kill()
                self._restart(node)

    def _stop(self, process: Process) -> None:
        """Stop a process warmly. Its successor may come up before it exits, if that has another pid."""
        node = process.node
        process.stop(returns_early=self.rng.random() < 0.5)
        if not node.is_container and self.rng.random() < 0.5:
            self._at_some_time(MIN_DOWN_SECONDS, self._start, node)
        else:
            self.broker.schedule.after(0.1, self._await_exit, process)
            if self.rng.random() < 0.3:
                self._at_some_time(5.0, self._kill_late, process)

    def _kill_late(self, process: Process) -> None:
        """Kill a process that was stopped and has not exited in time."""
        if not process.is_gone:
            process.kill()

    def _await_exit(self, process: Process) -> None:
        if process.is_gone:
            self._restart(process.node)
        else:
            self.broker.schedule.after(0.5, self._await_exit, process)

    def _restart(self, node: Node) -> None:
        if node.is_needed or self.rng.random() < 0.75:
            seconds = self.rng.uniform(MIN_DOWN_SECONDS, MAX_DOWN_SECONDS)
            self.broker.schedule.after(seconds, self._start, node)

    def _new_pid(self) -> int:
        self._next_pid += self.rng.randint(10, 50)  # a pool has less than ten children
        return self._next_pid

    def _at_some_time(self, seconds: float, action: Callable[..., None], *args: object) -> None:
        self.broker.schedule.after(self.rng.random() * seconds, action, *args)


def _truth(task: SimulatedTask, lost: set[int], *, is_exact: bool) -> Truth:
    """Return the truth about a task. ``lost`` has the ``id()`` of each event that was lost."""
    messages = [message for message in task.messages if message.is_visible or message.is_received]
    tried = {attempt.message for attempt in task.attempts}
    known = [message for message in task.messages if message.is_visible or message in tried]
    run, joined_run = known[-1].run, known[-1].joined_run
    attempts = [attempt for attempt in task.attempts if attempt.message.run == run]
    attempts.sort(key=lambda attempt: (attempt.message.retries, attempt.first_at))
    joined = sum(attempt.message.joined_run == joined_run for attempt in task.attempts)
    last = attempts[-1] if attempts else None
    state = last.state if last else "PENDING"
    is_gone = last is not None and last.process.is_gone and last.ended is None
    is_lost = is_gone and last is not None and last.is_in_hand and last.process.is_replaced
    final_state: str | None = "LOST" if is_lost else state
    if not is_exact and not _is_certain(task, last, lost):
        final_state = None
    return Truth(
        is_exact=is_exact,
        final_state=final_state,
        is_lost=is_lost,
        may_be_lost=is_gone and not is_lost,
        attempts=len(attempts),
        attempts_joined=joined,
        retries=_retries(messages, known[-1]),
        worker=last.process.node.hostname if last else None,
        result=last.result if last else None,
        exception=last.exception if last else None,
        root_id=task.root_id if messages else None,
        parent_id=task.parent_id if messages else None,
        name=messages[-1].name if messages else None,
    )


def _retries(messages: list[Message], last: Message) -> int | None:
    """Return the most retries of a run's messages that events report; None if the last is not among them."""
    return (
        max(message.retries for message in messages if message.joined_run == last.joined_run)
        if last in messages
        else None
    )


def _is_certain(task: SimulatedTask, last: Attempt | None, lost: set[int]) -> bool:
    """Return whether the last state can be known although events were lost.

    It has to be a ready state. Delivered are: the last attempt's ``task-received``, the first event of each
    attempt (without it an attempt seems to begin late), and the end of each run.
    """
    if last is None or last.state not in READY_STATES or last.received is None:
        return False
    firsts = (attempt.received or attempt.ended for attempt in task.attempts)
    ends = (attempt.ended for attempt in task.attempts if attempt.state in READY_STATES)
    return not any(id(event) in lost for event in (*firsts, *ends))
