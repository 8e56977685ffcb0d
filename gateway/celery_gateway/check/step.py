"""The steps of a check, and the findings that they can end with. Pure."""

from typing import Literal, NamedTuple

FINDINGS = {
    # What is in the way: no events come, or not those that are wanted.
    "url": (10, "the broker URL cannot be read, or names a file that is not there"),
    "transport": (11, "the URL's scheme is none that kombu knows, or its package is not installed"),
    "dns": (12, "the host's name cannot be resolved"),
    "unreachable": (13, "nothing listens at host and port, or there is no way to it"),
    "timeout": (14, "host and port do not answer"),
    "tls": (15, "the port does not speak TLS, or wants it and was not asked for it"),
    "certificate": (16, "the broker's certificate is not trusted"),
    "not-amqp": (17, "what listens there is no broker of this kind"),
    "login-refused": (18, "the broker refuses user or password"),
    "vhost-unknown": (19, "there is no such vhost (Redis: no such database)"),
    "vhost-refused": (20, "the user may not use the vhost"),
    "limit-reached": (21, "the broker takes no more connections"),
    "permission-refused": (22, "the user lacks a right that the gateway needs"),
    "exchange-missing": (23, "workers are there, but none ever sent an event to the exchange"),
    "exchange-differs": (24, "the exchange is not as Celery declares it, so workers cannot use it"),
    "exchange-other": (25, "the workers send their events to another exchange"),
    "no-workers": (26, "no worker answers or sends a heartbeat"),
    "task-events-off": (27, "workers run tasks and send no events of them (no -E)"),
    "events-refused": (28, "the workers send events in a form that is not read (pickle, yaml)"),
    "connection-lost": (30, "the connection ended without a word"),
    "closed-by-broker": (31, "the broker closed the connection"),
    "heartbeat-missed": (32, "the broker fell silent"),
    "unexpected": (39, "an error that nobody foresaw"),
    # What is missing though events come, and what could not be found out.
    "task-events-unknown": (60, "workers that run nothing: whether they send task events is not to be seen"),
    "sent-events-off": (61, "task_send_sent_event is off: no task-sent events, so no queues' names"),
    "heartbeats-off": (62, "workers send no heartbeats (--without-heartbeat): a lost one is not noticed"),
    "no-events": (63, "workers answer, but no event came while they were watched, not even a heartbeat"),
    "sent-events-unknown": (64, "nobody sent a task, and no worker tells what task_send_sent_event is"),
}
"""By word: the exit code and the meaning. From 60 up the check could pass; below it something is broken."""
FIRST_WARNING_CODE = 60

Status = Literal["ok", "warning", "failed"]
TaskEvents = Literal["on", "off", "unknown"]


class Step(NamedTuple):
    """One step on the way from here to the first event, and how it went.

    ``finding`` is one of ``FINDINGS``, or ``None`` where all is well; the remedy is empty then.
    """

    name: str
    status: Status
    what: str
    finding: str | None = None
    remedy: str = ""


class WorkerReport(NamedTuple):
    """What is known of one worker; ``processed`` are the tasks that it accepted while we watched."""

    hostname: str
    task_events: TaskEvents
    sends_heartbeats: bool
    answers: bool
    processed: int


class Result(NamedTuple):
    """A walk to one URL: its steps, and what became known of the workers."""

    steps: list[Step]
    workers: list[WorkerReport]


def passed(name: str, what: str) -> Step:
    """Return a step without a finding."""
    return Step(name, "ok", what)


def found(name: str, finding: str, what: str, remedy: str) -> Step:
    """Return a step with a finding; its code says whether it is a failure or a warning."""
    status: Status = "failed" if FINDINGS[finding][0] < FIRST_WARNING_CODE else "warning"
    return Step(name, status, what, finding, remedy)


def exit_code(steps: list[Step]) -> int:
    """Return the code of the first failure, else of the first warning, else 0."""
    for status in ("failed", "warning"):
        for step in steps:
            if step.status == status and step.finding is not None:
                return FINDINGS[step.finding][0]
    return 0
