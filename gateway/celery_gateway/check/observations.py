"""What is known of the workers, from what they send and what they answer, and what it proves. Pure.

- A worker sends heartbeats without ``-E``, too (celery/worker/consumer/events.py: the group ``worker``), and
  each says how many tasks it has accepted (``processed``). If that grows, and no event of a task comes, its
  task events are off: ``task-started`` is sent right after the count (celery/worker/request.py). That some
  are ``active`` proves nothing, they may have begun before we listened.
- ``-E`` is not in the configuration that a worker shows: ``worker_send_task_events`` there says on for sure,
  but not off. Nothing else that a worker can be asked without changing it knows (``enable_events`` answers
  whether they were on, and switches them on). So an idle worker that was not configured to is not known.
- ``task_send_sent_event`` is the client's; the workers' configuration is that of the same app, mostly. A
  ``task-received`` without a ``task-sent`` alone proves nothing: it may have been sent before we listened.
"""

from collections.abc import Mapping
from typing import Any, Literal

from gateway.check.step import Step, TaskEvents, WorkerReport, found, passed
from gateway.event import Event

GRACE_SECONDS = 1.5
"""How long after a count grew events may still be on their way: they are buffered, heartbeats are not."""
SHOWN = 5
_WORKERS_TASK_EVENTS = frozenset(
    f"task-{word}"
    for word in ("received", "started", "succeeded", "failed", "retried", "revoked", "rejected", "cancelled")
)
"""Those of the worker itself; a task's own (``Task.send_event``) come without ``-E``, too."""


class _Worker:
    def __init__(self) -> None:
        self.heartbeats = self.task_events = 0
        self.answers = False
        self.conf: Mapping[str, Any] | None = None
        self.first_processed: int | None = None
        self.last_processed = 0
        self.grown_at: float | None = None  # when it was first seen to have grown

    def counted(self, processed: Any, now: float) -> None:
        if type(processed) is not int:
            return
        if self.first_processed is None or processed < self.first_processed:  # a new one of the same name
            self.first_processed = processed
            self.grown_at = None
        elif processed > self.first_processed and self.grown_at is None:
            self.grown_at = now
        self.last_processed = processed

    @property
    def processed(self) -> int:
        return self.last_processed - (self.first_processed or 0)

    def events(self, now: float) -> TaskEvents:
        if self.task_events:
            return "on"
        if self.grown_at is not None:
            return "off" if now - self.grown_at >= GRACE_SECONDS else "unknown"
        if self.conf is not None and self.conf.get("worker_send_task_events") is True:
            return "on"
        return "unknown"


class Evidence:
    """Collects; ``now`` are seconds of any clock that only goes forward."""

    def __init__(self, exchange: str) -> None:
        self._exchange = exchange
        self._workers: dict[str, _Worker] = {}
        self._sent: set[str] = set()
        self._received: set[str] = set()
        self._other_task_events = False
        self.first_event = ""
        self.refused = 0  # messages that could not be read
        self.unasked = ""  # why the workers could not be asked, if so

    def saw(self, event: Event, now: float) -> None:
        """Take note of an event."""
        event_type, hostname = event["type"], str(event.get("hostname", ""))
        if not self.first_event:
            self.first_event = f"{event_type} from {hostname}"
        if event_type == "worker-offline":
            self._workers.pop(hostname, None)
        elif event_type in ("worker-online", "worker-heartbeat"):
            worker = self._worker(hostname)
            worker.heartbeats += 1
            worker.counted(event.get("processed"), now)
        elif event_type == "task-sent":  # from a client, whose hostname is none of a worker
            self._sent.add(str(event.get("uuid")))
        elif event_type in _WORKERS_TASK_EVENTS:
            self._worker(hostname).task_events += 1
            if event_type == "task-received":
                self._received.add(str(event.get("uuid")))

    def configured(self, hostname: str, conf: Mapping[str, Any]) -> None:
        """Take note of a worker's answer to ``conf``."""
        worker = self._worker(hostname)
        worker.answers = True
        if "task_send_sent_event" in conf:
            worker.conf = conf

    def counted(self, hostname: str, stats: Mapping[str, Any], now: float) -> None:
        """Take note of a worker's answer to ``stats``: it counts tasks by name."""
        worker = self._worker(hostname)
        worker.answers = True
        total = stats.get("total")
        if isinstance(total, Mapping):
            worker.counted(sum(n for n in total.values() if type(n) is int), now)

    def workers(self, now: float) -> list[WorkerReport]:
        """Return what is known of each worker, by name."""
        return [
            WorkerReport(name, worker.events(now), worker.heartbeats > 0, worker.answers, worker.processed)
            for name, worker in sorted(self._workers.items())
        ]

    def missing(self, now: float) -> str:
        """Return what is still waited for, in words; ``""`` when all is known."""
        if not self._workers:
            return "a worker"
        if self._other_exchange():
            return ""
        if any(worker.events(now) == "unknown" for worker in self._workers.values()):
            return "a worker to run a task"
        if not self.first_event:
            return "the first event"
        if any(not worker.heartbeats for worker in self._workers.values()):
            return "heartbeats of all workers"
        if self._sent_events() == "unknown":
            return "a client to send a task"
        return ""

    def steps(self, now: float, seconds: float, has_exchange: bool) -> list[Step]:
        """Return the verdicts, after so many seconds of watching."""
        if not self._workers:
            return [self._no_workers(seconds)]
        workers = self._workers_step()
        if other := self._other_exchange():
            return [workers, other]
        if not has_exchange:
            return [workers, self._no_exchange()]
        steps = [workers, self._refused_form(), self._task_events(now), self._sent_events_step()]
        return [step for step in (*steps, *self._first_event(seconds)) if step]

    def _worker(self, hostname: str) -> _Worker:
        return self._workers.setdefault(hostname, _Worker())

    def _confs(self) -> list[Mapping[str, Any]]:
        return [worker.conf for worker in self._workers.values() if worker.conf is not None]

    def _no_workers(self, seconds: float) -> Step:
        did = "sent an event" if self.unasked else "answered or sent an event"
        why = f" (they could not be asked: {self.unasked})" if self.unasked else ""
        return found(
            "workers",
            "no-workers",
            f"no worker {did} within {seconds:g} s{why}",
            "Start one on this broker and vhost: celery -A proj worker -E; if one runs, compare its broker "
            "with this URL: celery -A proj report | grep broker_url",
        )

    def _workers_step(self) -> Step:
        names = list(self._workers)
        return passed("workers", f"{len(names)} {'is' if len(names) == 1 else 'are'} there: {_list(names)}")

    def _other_exchange(self) -> Step | None:
        others = {str(conf.get("event_exchange", self._exchange)) for conf in self._confs()}
        if not others or self._exchange in others or self.first_event:
            return None
        name = min(others)
        return found(
            "exchange",
            "exchange-other",
            f"the workers send their events to the exchange {name}, not to {self._exchange}",
            f"Give the gateway the workers' event_exchange: --exchange {name}",
        )

    def _no_exchange(self) -> Step:
        return found(
            "exchange",
            "exchange-missing",
            f"{_list(list(self._workers))} answered, but there is no exchange {self._exchange}: none ever "
            "sent an event here",
            "Start the workers with -E, and without --without-heartbeat: celery -A proj worker -E",
        )

    def _refused_form(self) -> Step | None:
        forms = {str(conf.get("event_serializer", "json")) for conf in self._confs()} - {"json", "msgpack"}
        if not forms and (self.first_event or not self.refused):
            return None
        return found(
            "events",
            "events-refused",
            f"the workers write their events as {min(forms, default='something unknown')}, and only json and "
            "msgpack are read, which cannot carry code",
            "Set event_serializer = 'json' in the configuration of Celery's app, and restart the workers.",
        )

    def _task_events(self, now: float) -> Step:
        by: dict[TaskEvents, list[str]] = {"on": [], "off": [], "unknown": []}
        for name, worker in sorted(self._workers.items()):
            by[worker.events(now)].append(name)
        if by["off"]:
            count = sum(self._workers[name].processed for name in by["off"])
            return found(
                "task-events",
                "task-events-off",
                f"{_list(by['off'])} began {count} task{'s' * (count != 1)} while we watched, and sent "
                "no task events",
                "Start the workers with -E or worker_send_task_events = True; until they restart this does: "
                f"celery -A proj control enable_events -d {','.join(by['off'])}",
            )
        if by["unknown"]:
            why = f" (they could not be asked: {self.unasked})" if self.unasked else ""
            set_off = ": worker_send_task_events is not set" if self._confs() else why
            return found(
                "task-events",
                "task-events-unknown",
                f"{_list(by['unknown'])} ran no task while we watched; task events are on only if started "
                f"with -E{set_off}",
                "Run a task and check again; or ask, which switches them on if they are off: "
                f"celery -A proj control enable_events -d {','.join(by['unknown'])} "
                "('already enabled': they were on)",
            )
        return passed("task-events", f"on: {_list(by['on'])}")

    def _sent_events(self) -> Literal["on", "off", "unknown"]:
        if self._sent:
            return "on"
        settings = [conf["task_send_sent_event"] is True for conf in self._confs()]
        if settings:
            return "on" if all(settings) else "off"
        return "unknown"

    def _sent_events_step(self) -> Step:
        state = self._sent_events()
        if state == "on":
            return passed("sent-events", "on: clients tell of the tasks that they send")
        remedy = (
            "Set task_send_sent_event = True where tasks are sent from (the app's configuration): without it "
            "a task is first seen when a worker has it, and its queue is not known."
        )
        count = len(self._received)
        seen = f"{count} task{'s' * (count != 1)} came to a worker without task-sent"
        if state == "off":
            what = "task_send_sent_event is off in the workers' configuration" + f"; {seen}" * (count > 0)
            return found("sent-events", "sent-events-off", what, remedy)
        what = f"{seen if count else 'nobody sent a task'}, and no worker told its configuration"
        return found("sent-events", "sent-events-unknown", what, remedy)

    def _first_event(self, seconds: float) -> list[Step]:
        silent = sorted(name for name, worker in self._workers.items() if not worker.heartbeats)
        if not self.first_event:
            return [
                found(
                    "events",
                    "no-events",
                    f"{_list(silent)} answered, but no event came within {seconds:g} s, not even a heartbeat",
                    "Start the workers without --without-heartbeat, or run a task and check again; if still "
                    "nothing comes, look into their logs.",
                )
            ]
        steps = [passed("events", f"the first was {self.first_event}")]
        if silent:
            steps.append(
                found(
                    "heartbeats",
                    "heartbeats-off",
                    f"{_list(silent)} sent no heartbeat within {seconds:g} s",
                    "Start the workers without --without-heartbeat: /workers cannot tell whether they live.",
                )
            )
        return steps


def _list(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
