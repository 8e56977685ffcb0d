"""What the observations of workers prove: the last steps of a preflight. Pure.

- ``task_send_sent_event`` is a setting of the client. The workers' configuration is mostly that of the same
  app, so it is used if no ``task-sent`` has arrived.
- A ``task-received`` without a ``task-sent`` proves nothing: the task may have been sent before the check.
"""

import json
import shlex
from typing import Any, Literal

from celery_gateway.broker.redis_channels import options_for
from celery_gateway.check.observations import Observations
from celery_gateway.check.step import Step, TaskEvents, found, passed

SHOWN_NAMES = 5


class WorkerFindings:
    """The findings about workers and their events.

    Args:
        exchange: Celery's ``event_exchange``.
        database: of a Redis.
    """

    def __init__(self, observations: Observations, exchange: str, database: str = "0") -> None:
        self._observations = observations
        self._exchange = exchange
        self._database = database

    def missing(self, now: float) -> str:
        """Return what is still missing for a complete result, in words; ``""`` if nothing is."""
        workers = self._observations.workers.values()
        if not workers:
            return "a worker"
        if self._other_exchange():
            return ""
        if any(worker.task_events_state(now) == "unknown" for worker in workers):
            return "a worker to run a task"
        if not self._observations.first_event:
            return "the first event"
        if any(not worker.heartbeats for worker in workers):
            return "heartbeats of all workers"
        if self._sent_events_state() == "unknown":
            return "a client to send a task"
        return ""

    def steps(self, now: float, seconds: float, has_exchange: bool) -> list[Step]:
        """Return the steps about workers.

        Args:
            seconds: how long the workers were observed.
            has_exchange: whether the event exchange exists.
        """
        observations = self._observations
        if not observations.workers:
            return [self._events_elsewhere() if observations.misrouted else self._no_workers(seconds)]
        names = list(observations.workers)
        verb = "is" if len(names) == 1 else "are"
        workers = passed("workers", f"{len(names)} {verb} online: {_list(names)}")
        if other := self._other_exchange():
            return [workers, other]
        if not has_exchange:
            return [workers, self._no_exchange()]
        steps = [workers, self._refused_format(), self._task_events(now), self._sent_events()]
        return [step for step in (*steps, *self._first_event(seconds)) if step]

    def _could_not_ask(self) -> str:
        refusal = self._observations.refusal
        return f" (they could not be asked: {refusal})" if refusal else ""

    def _no_workers(self, seconds: float) -> Step:
        action = "sent an event" if self._observations.refusal else "replied or sent an event"
        return found(
            "workers",
            "no-workers",
            f"no worker {action} within {seconds:g} s{self._could_not_ask()}",
            "Start one on this broker and vhost: celery -A proj worker -E. If one is running, compare its "
            "broker with this URL: celery -A proj report | grep broker_url",
        )

    def _events_elsewhere(self) -> Step:
        channel, hostname = next(iter(self._observations.misrouted.items()))
        options, database = options_for(channel, self._exchange, self._database)
        remedies = [_option(name, value) for name, value in options.items()]
        if database != self._database:
            remedies.insert(0, f"the database {database} at the end of the URL")
        return found(
            "events",
            "events-elsewhere",
            f"no worker sends events to the gateway's channel, but {hostname} sends them to {channel}",
            "If these are your workers, use their settings for the gateway (Celery's broker_url and "
            f"broker_transport_options): {' '.join(remedies)}",
        )

    def _other_exchange(self) -> Step | None:
        confs, first_event = self._observations.confs(), self._observations.first_event
        others = {str(conf.get("event_exchange", self._exchange)) for conf in confs}
        if not others or self._exchange in others or first_event:
            return None
        name = min(others)
        return found(
            "exchange",
            "exchange-other",
            f"the workers send their events to the exchange {name}, not to {self._exchange}",
            f"Use the workers' event_exchange for the gateway: --exchange {name}",
        )

    def _no_exchange(self) -> Step:
        return found(
            "exchange",
            "exchange-missing",
            f"{_list(list(self._observations.workers))} replied, but there is no exchange {self._exchange}: "
            "no worker has sent an event here yet",
            "Start the workers with -E, and without --without-heartbeat: celery -A proj worker -E",
        )

    def _refused_format(self) -> Step | None:
        observations = self._observations
        formats = {str(conf.get("event_serializer", "json")) for conf in observations.confs()}
        formats -= {"json", "msgpack"}
        if not formats and (observations.first_event or not observations.refused):
            return None
        return found(
            "events",
            "events-refused",
            f"the workers send their events as {min(formats, default='an unknown format')}; only json and "
            "msgpack are read, because they cannot contain code",
            "Set event_serializer = 'json' in the configuration of the Celery app, and restart the workers.",
        )

    def _task_events(self, now: float) -> Step:
        workers = self._observations.workers
        by_state: dict[TaskEvents, list[str]] = {"on": [], "off": [], "unknown": []}
        for name, worker in sorted(workers.items()):
            by_state[worker.task_events_state(now)].append(name)
        if off := by_state["off"]:
            count = sum(workers[name].processed for name in off)
            return found(
                "task-events",
                "task-events-off",
                f"{_list(off)} began {count} task{'s' * (count != 1)} during the check, and sent no task "
                "events",
                "Start the workers with -E or worker_send_task_events = True. To switch them on until the "
                f"next restart: celery -A proj control enable_events -d {','.join(off)}",
            )
        if unknown := by_state["unknown"]:
            confs = self._observations.confs()
            reason = ": worker_send_task_events is not set" if confs else self._could_not_ask()
            return found(
                "task-events",
                "task-events-unknown",
                f"{_list(unknown)} ran no task during the check; task events are on only if started with "
                f"-E{reason}",
                "Run a task and check again. Or run this command, which switches them on if they are off: "
                f"celery -A proj control enable_events -d {','.join(unknown)} ('already enabled': they were "
                "on)",
            )
        return passed("task-events", f"on: {_list(by_state['on'])}")

    def _sent_events_state(self) -> Literal["on", "off", "unknown"]:
        if self._observations.sent:
            return "on"
        settings = [conf["task_send_sent_event"] is True for conf in self._observations.confs()]
        if settings:
            return "on" if all(settings) else "off"
        return "unknown"

    def _sent_events(self) -> Step:
        state = self._sent_events_state()
        if state == "on":
            return passed("sent-events", "on: clients send task-sent events")
        remedy = (
            "Set task_send_sent_event = True in the configuration of the app that sends tasks. Without it, "
            "the first event of a task is from its worker, and the name of its queue is not known."
        )
        count = len(self._observations.received)
        received = f"{count} task{'s' * (count != 1)} arrived at a worker without task-sent"
        if state == "off":
            what = "task_send_sent_event is off in the workers' configuration" + f"; {received}" * (count > 0)
            return found("sent-events", "sent-events-off", what, remedy)
        what = f"{received if count else 'no task was sent'}, and no worker reported its configuration"
        return found("sent-events", "sent-events-unknown", what, remedy)

    def _first_event(self, seconds: float) -> list[Step]:
        observations = self._observations
        silent = sorted(name for name, worker in observations.workers.items() if not worker.heartbeats)
        if not observations.first_event:
            return [
                found(
                    "events",
                    "no-events",
                    f"{_list(silent)} replied, but no event arrived within {seconds:g} s, not even a "
                    "heartbeat",
                    "Start the workers without --without-heartbeat, or run a task and check again. If still "
                    "no event arrives, look at their logs.",
                )
            ]
        steps = [passed("events", f"the first was {observations.first_event}")]
        if silent:
            steps.append(
                found(
                    "heartbeats",
                    "heartbeats-off",
                    f"{_list(silent)} sent no heartbeat within {seconds:g} s",
                    "Start the workers without --without-heartbeat. Without heartbeats, /workers cannot "
                    "detect that they are lost.",
                )
            )
        return steps


def _option(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"--transport-option {shlex.quote(f'{name}={text}')}"


def _list(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more
