"""Workers of the simulated cluster: the lives of their processes, and what each does with a message.

Sources of the order of events: celery/worker/request.py, strategy.py, heartbeat.py and celery/app/task.py.
"""

from math import inf

from tests.support.simulated_broker import Attempt, Broker, Message, SimulatedTask
from tests.support.simulated_transport import Counter, Event, Node, Sender

HEARTBEAT_SECONDS = 2.0
MAX_OUTAGE_SECONDS = 2.0
MAX_LAG_SECONDS = 0.3
"""How long the main process may take to report an end that a child has reached."""

_SOFTWARE = {"sw_ident": "py-celery", "sw_ver": "5.7.0", "sw_sys": "Linux"}
_SILENT_REVOKE_SHARE, _REVOKE_SHARE = 0.02, 0.03
_FOLLOWED = frozenset({"succeed", "retry", "replace", "ignore"})
"""Ends that the child has settled before the main process reports them: nothing is delivered again."""
_ENDED_BY_MAIN = frozenset({"time_out", "terminate"})


class Process:
    """One life of a worker: its main process and the children of its pool.

    Attributes:
        idle: children without work. With a pool of threads they are the main process on other connections.
        running: attempts that have begun, with their children. A child may be through already.
        reserved, held: attempts that wait for a child, and for their ``eta``.
        in_flight: how many messages are on their way from the broker.
        reported_processed: the ``processed`` of its last worker event.
        is_replaced: a process of the same hostname and pid came up after it was gone.
    """

    def __init__(self, broker: Broker, node: Node, pid: int, clock: int) -> None:
        rng, wire = broker.rng, broker.wire
        self.broker = broker
        self.node = node
        self.pid = pid
        self.main = Sender(node.hostname, pid, node.host, Counter(clock), wire.scale(rng), node.sends_sent)
        self.idle: list[Sender] = []
        for number in range(1, node.concurrency + 1):
            counter = self.main.counter if node.has_threads else Counter(clock)
            child_pid = pid if node.has_threads else pid + number
            child = Sender(node.hostname, child_pid, node.host, counter, wire.scale(rng), node.sends_sent)
            self.idle.append(child)
        self.running: dict[Attempt, Sender] = {}
        self.reserved: list[Attempt] = []
        self.held: list[Attempt] = []
        self.in_flight = self.processed = self.reported_processed = 0
        self.is_connected = True
        self.is_stopping = self.is_gone = self.is_replaced = False

    # Its life

    def come_up(self) -> None:
        self.node.lives.append(self)
        self._send_worker_event("worker-online")
        self.broker.schedule.background(HEARTBEAT_SECONDS, self._heartbeat)
        self.broker.consumers.append(self)
        self.broker.pump()

    def kill(self) -> None:
        """End by SIGKILL: nothing is sent any more, and the broker takes back what was not acknowledged."""
        self._stop_consuming()
        self.is_gone = True
        for attempt in (*self.running, *self.reserved, *self.held):
            self.broker.give_back(attempt.message)

    def stop(self, *, returns_early: bool) -> None:
        """End by SIGTERM: running tasks go on to their end; the rest goes back, at once or at the exit.

        There are no heartbeats in that time (worker/heartbeat.py).
        """
        self._send_worker_event("worker-offline")
        self._stop_consuming()
        self.is_stopping = True
        if returns_early:
            self._return_waiting()
        self.advance()

    def lose_broker(self, seconds: float) -> None:
        """Reconnect after some seconds. Events wait; messages that were not begun go back to the queue."""
        self._send_worker_event("worker-offline")
        self._stop_consuming()
        self.is_connected = False
        self.main.last_at = max(self.main.last_at, self.broker.schedule.now + seconds)
        for attempt in (*self.reserved, *self.held):
            attempt.is_in_hand, attempt.is_returned = False, True
        self._return_waiting()
        self.broker.schedule.after(seconds, self._reconnect)

    def can_lose_broker(self) -> bool:
        """Return whether no message would be delivered again while the attempt at it goes on."""
        return all(attempt.message.is_settled for attempt in self.running)

    def has_room(self) -> bool:
        return len(self.running) + len(self.reserved) + self.in_flight < self.node.limit

    def _reconnect(self) -> None:
        self.is_connected = True
        self._send_worker_event("worker-online")
        self.broker.consumers.append(self)
        self.broker.pump()

    def _stop_consuming(self) -> None:
        if self in self.broker.consumers:
            self.broker.consumers.remove(self)

    def _return_waiting(self) -> None:
        waiting = (*self.reserved, *self.held)
        self.reserved.clear()
        self.held.clear()
        for attempt in waiting:
            self.broker.give_back(attempt.message)

    def _heartbeat(self) -> None:
        if self.is_gone or self.is_stopping:
            return
        if self.is_connected:
            if self.broker.has_gossip:
                self.main.counter.value = max(self.main.counter.value, self.broker.top_clock)
            self._send_worker_event("worker-heartbeat")
            self.broker.top_clock = max(self.main.counter.value, self.broker.top_clock)
        self.broker.schedule.background(HEARTBEAT_SECONDS, self._heartbeat)

    def _send_worker_event(self, event_type: str) -> None:
        self.reported_processed = self.processed
        fields = {
            "freq": HEARTBEAT_SECONDS,
            "active": len(self.running),
            "processed": self.processed,
            "loadavg": [0.1, 0.2, 0.3],
            **_SOFTWARE,
        }
        self.broker.wire.send(self.main, event_type, fields)

    # Its work

    def receive(self, message: Message) -> None:
        """Take a message from the broker (worker/strategy.py)."""
        self.in_flight -= 1
        if self not in self.broker.consumers:
            self.broker.offer(message)
            return
        attempt = self._open(message)
        is_revoked = self.broker.trouble.revokes and self.broker.rng.random() < _SILENT_REVOKE_SHARE
        if is_revoked and self._has_nothing_open(attempt):
            self._discard(attempt)
            return
        message.is_received = True
        attempt.received = self._send(attempt, "task-received", message.fields())
        seconds = message.begins_at - self.broker.schedule.now
        if seconds <= 0:
            self.reserved.append(attempt)
            self.advance()
            return
        self.held.append(attempt)
        if message.begins_at < inf:
            self.broker.schedule.after(seconds, self._come_due, attempt)

    def advance(self) -> None:
        """Begin what can be begun. A process that stops exits when nothing runs any more."""
        if not self.is_stopping:
            while self.reserved and self.idle:
                self._begin(self.reserved.pop(0))
            self.broker.pump()
        elif not self.running:
            self.is_gone = True
            self._return_waiting()

    def _open(self, message: Message) -> Attempt:
        """Return the attempt at a message: a new one, unless it is back at the process that returned it."""
        attempts = message.task.attempts
        last = attempts[-1] if attempts else None
        if last is not None and last.is_returned and last.message is message and last.process is self:
            last.is_in_hand, last.is_returned = True, False
            return last
        attempt = Attempt(message, self)
        attempts.append(attempt)
        return attempt

    def _has_nothing_open(self, attempt: Attempt) -> bool:
        """Return whether no other attempt of this process lacks its end: an end would be taken for its."""
        attempts = attempt.message.task.attempts
        return all(other.ended or other is attempt or other.process is not self for other in attempts)

    def _first_running(self, task: SimulatedTask) -> Attempt | None:
        """Return the first attempt at a task here whose end is not reported yet."""
        return next((attempt for attempt in task.attempts if attempt in self.running), None)

    def _come_due(self, attempt: Attempt) -> None:
        if attempt in self.held and not self.is_gone:
            self.held.remove(attempt)
            self.reserved.append(attempt)
            self.advance()

    def _begin(self, attempt: Attempt) -> None:
        broker, message = self.broker, attempt.message
        if broker.trouble.revokes and broker.rng.random() < _REVOKE_SHARE:
            self._discard(attempt)
            return
        child = self.running[attempt] = self.idle.pop(int(broker.rng.random() * len(self.idle)))
        self.processed += 1
        message.is_settled = not message.is_late_ack
        attempt.state, attempt.began_at = "STARTED", broker.schedule.now
        self._send(attempt, "task-started", {"uuid": message.task.uuid})
        child.last_at = max(child.last_at, attempt.first_at)  # only the order shows whose progress it is
        fate, seconds = broker.fate(message), broker.seconds()
        if broker.trouble.progress and broker.rng.random() < 0.3:
            for step in (1, 2, 3):
                broker.schedule.after(seconds * step / 3.1, self._report_progress, attempt, child, step)
        end = self._end if fate in _ENDED_BY_MAIN else self._leave
        broker.schedule.after(seconds, end, attempt, fate)

    def _report_progress(self, attempt: Attempt, child: Sender, step: int) -> None:
        if not self.is_gone:
            fields = {"uuid": attempt.message.task.uuid, "current": step, "total": 3}
            self.broker.wire.send(child, "task-progress", fields)
            attempt.progress_at = child.last_at
            attempt.state = "PROGRESS"

    def _leave(self, attempt: Attempt, fate: str) -> None:
        """End the attempt in the child, which sends what follows. The main process reports the end later."""
        if self.is_gone:
            return
        broker = self.broker
        if fate in _FOLLOWED:
            attempt.message.is_settled = True
            self._follow(attempt, self.running[attempt], fate)
        lag = 0.001
        if broker.trouble.races and broker.rng.random() < 0.3:
            lag = broker.rng.random() * MAX_LAG_SECONDS
        broker.schedule.after(lag, self._end, attempt, fate)

    def _follow(self, attempt: Attempt, child: Sender, fate: str) -> None:
        broker, message = self.broker, attempt.message
        if fate == "succeed":
            for task in message.task.next():
                broker.send_first(child, Message(task, 0, 0, is_late_ack=broker.rng.random() < 0.5))
        elif fate == "retry":
            retry = message.again(is_retry=True)
            if broker.rng.random() < 0.6:
                retry.delay_until(broker.schedule.now + broker.rng.random() * 3, child)
            is_unreceived = broker.trouble.unreceived and broker.rng.random() < 0.1
            (broker.announce if is_unreceived else broker.send)(child, retry)
        elif fate == "replace":
            replacement = message.again(is_retry=False)
            if child.sends_sent and (replacement.run, replacement.retries) in message.task.visible_sends:
                replacement.run += 1
            broker.send(child, replacement)

    def _end(self, attempt: Attempt, fate: str) -> None:
        """End the attempt in the main process, which reports it."""
        if self.is_gone:
            return
        if fate == "retry" and self._first_running(attempt.message.task) is not attempt:
            self.broker.schedule.after(0.01, self._end, attempt, fate)  # two task-retried look the same
            return
        self.idle.append(self.running.pop(attempt))
        attempt.is_in_hand = False
        _REPORTS[fate](self, attempt)
        message = attempt.message
        message.is_settled = fate != "requeue"
        if attempt.state in ("SUCCESS", "FAILURE", "REVOKED"):
            self.broker.ended(message.task)
        elif fate == "requeue":
            message.requeues += 1
            self.broker.give_back(message)
        self.advance()

    def _discard(self, attempt: Attempt) -> None:
        """Discard a revoked task before it begins."""
        attempt.is_in_hand, attempt.message.is_settled = False, True
        self._report_revoked(attempt)
        self.broker.ended(attempt.message.task)

    # What it reports

    def _send(self, attempt: Attempt, event_type: str, fields: Event) -> Event:
        is_first = not attempt.first_at
        floor = attempt.message.task.floor(self.node.hostname) if is_first else 0.0
        event = self.broker.wire.send(self.main, event_type, fields, floor=floor)
        if is_first:
            attempt.first_at = self.main.last_at
        return event

    def _send_end(self, attempt: Attempt, event_type: str, state: str, **fields: object) -> None:
        attempt.state = state
        attempt.ended = self._send(attempt, event_type, {"uuid": attempt.message.task.uuid, **fields})

    def _report_succeeded(self, attempt: Attempt) -> None:
        attempt.result = self.broker.text("result")
        runtime = self.broker.schedule.now - attempt.began_at
        self._send_end(attempt, "task-succeeded", "SUCCESS", result=attempt.result, runtime=runtime)

    def _report_failed(self, attempt: Attempt) -> None:
        self._report_exception(attempt, "task-failed", "FAILURE", self.broker.text("ValueError"))

    def _report_timed_out(self, attempt: Attempt) -> None:
        """Report it twice, as Celery 5.7 does."""
        exception = self.broker.text("TimeLimitExceeded")
        self._report_exception(attempt, "task-failed", "FAILURE", exception)
        self._report_exception(attempt, "task-failed", "FAILURE", exception)

    def _report_retried(self, attempt: Attempt) -> None:
        self._report_exception(attempt, "task-retried", "RETRY", self.broker.text("KeyError"))

    def _report_exception(self, attempt: Attempt, event_type: str, state: str, exception: str) -> None:
        attempt.exception = exception
        self._send_end(attempt, event_type, state, exception=exception, traceback=f"Traceback: {exception}")

    def _report_nothing(self, attempt: Attempt) -> None:
        """Report nothing: ``Ignore``, and ``replace()``, which raises it."""

    def _report_requeued(self, attempt: Attempt) -> None:
        self._send_end(attempt, "task-rejected", "REJECTED", requeue=True)

    def _report_rejected(self, attempt: Attempt) -> None:
        """Report a failure first, as Celery 5.7 does, or only the rejection, as 5.6 did."""
        if self.broker.rng.random() < 0.5:
            self._report_failed(attempt)
            fields = {"uuid": attempt.message.task.uuid, "requeue": False}
            self._send(attempt, "task-rejected", fields)
        else:
            self._send_end(attempt, "task-rejected", "REJECTED", requeue=False)

    def _report_revoked(self, attempt: Attempt, *, terminated: bool = False) -> None:
        is_expired = not terminated and self.broker.rng.random() < 0.3
        signum = 15 if terminated else None
        fields = {"terminated": terminated, "signum": signum, "expired": is_expired}
        self._send_end(attempt, "task-revoked", "REVOKED", **fields)

    def _report_terminated(self, attempt: Attempt) -> None:
        self._report_revoked(attempt, terminated=True)


_REPORTS = {
    "succeed": Process._report_succeeded,
    "fail": Process._report_failed,
    "time_out": Process._report_timed_out,
    "retry": Process._report_retried,
    "replace": Process._report_nothing,
    "ignore": Process._report_nothing,
    "requeue": Process._report_requeued,
    "reject": Process._report_rejected,
    "terminate": Process._report_terminated,
}
