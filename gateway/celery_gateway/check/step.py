"""The steps of a preflight, and the table of the findings that they can have. Pure.

The names, codes and exit codes of findings are public: scripts depend on them.
"""

from typing import Literal, NamedTuple

FINDINGS = {
    # Failures: no events arrive, or not the right ones.
    "url": (10, "the broker URL cannot be read, or names a file that does not exist"),
    "transport": (11, "events cannot be read from the URL's transport, or its package is not installed"),
    "dns": (12, "the host name cannot be resolved"),
    "unreachable": (13, "nothing listens at host and port, or there is no route to the host"),
    "timeout": (14, "host and port do not answer"),
    "tls": (15, "the port has no TLS, or requires it and the URL has none"),
    "certificate": (16, "the broker's certificate is not trusted"),
    "not-amqp": (17, "the server there is not a broker of this kind"),
    "login-refused": (18, "the broker refuses user or password"),
    "vhost-unknown": (19, "the vhost does not exist (Redis: the database)"),
    "vhost-refused": (20, "the user has no access to the vhost"),
    "limit-reached": (21, "the broker allows no more connections, channels, queues or memory"),
    "permission-refused": (22, "the user lacks a permission that the gateway needs"),
    "exchange-missing": (23, "there are workers, but none has sent an event to the exchange yet"),
    "exchange-differs": (24, "the exchange is not as Celery declares it, so workers cannot use it"),
    "exchange-other": (25, "the workers send their events to another exchange"),
    "no-workers": (26, "no worker replies or sends a heartbeat"),
    "task-events-off": (27, "workers run tasks and send no events about them (no -E)"),
    "events-refused": (28, "the workers send events in a format that is not read (pickle, yaml)"),
    "events-elsewhere": (29, "the workers send their events to another channel of this Redis"),
    "connection-lost": (30, "the connection ended, and the broker gave no reason"),
    "closed-by-broker": (31, "the broker closed the connection"),
    "heartbeat-missed": (32, "the broker was silent for too long"),
    "no-master": (33, "the Redis is a replica or not ready, or the sentinels report no master"),
    "publishers-blocked": (34, "an alarm of the broker (memory, disk) blocks all publishers"),
    "connect-failed": (35, "the connection failed for another reason, which is shown"),
    "login-failed": (36, "the login failed for another reason, which is shown"),
    "consume-failed": (37, "the queue or subscription failed for another reason, which is shown"),
    "unexpected": (39, "an unexpected error, which is shown"),
    "log-unusable": (40, "the shared log cannot be used for another reason, which is shown"),
    "log-too-old": (41, "the server of the shared log is too old: RabbitMQ 3.9 or Redis 6.2 is needed"),
    # Warnings: events arrive, but something is missing or could not be determined.
    "task-events-unknown": (60, "workers without a task: whether they send task events cannot be determined"),
    "sent-events-off": (61, "task_send_sent_event is off: no task-sent events, so no names of queues"),
    "heartbeats-off": (62, "workers send no heartbeats (--without-heartbeat): a lost one is not detected"),
    "no-events": (63, "workers reply, but no event arrived during the check, not even a heartbeat"),
    "sent-events-unknown": (64, "no task was sent, and no worker reports the value of task_send_sent_event"),
    "replica": (65, "the URL leads to a read-only replica: workers cannot be asked"),
    "log-unused": (66, "the broker has a shared log or a raw stream, and the setting log is memory"),
    "log-retention": (
        67,
        "the log or a raw stream has another retention than the settings",
    ),
    "log-evictable": (68, "the Redis of the shared log may evict it (maxmemory-policy allkeys-…)"),
    "log-memory": (69, "the Redis of the shared log has less memory (maxmemory) than the log may take"),
}
"""By code: the exit code and the meaning."""
FIRST_WARNING_CODE = 60
"""The first exit code of a warning; smaller ones are failures."""

Status = Literal["ok", "warning", "failed"]
TaskEvents = Literal["on", "off", "unknown"]


class Step(NamedTuple):
    """One step from the broker's URL to the first event, and its result.

    Attributes:
        what: the result in words.
        finding: one of ``FINDINGS``, or ``None`` if the step has passed.
        remedy: what to do; empty if the step has passed.
    """

    name: str
    status: Status
    what: str
    finding: str | None = None
    remedy: str = ""


class WorkerReport(NamedTuple):
    """The observations of one worker.

    Attributes:
        answers: whether it has replied to a command.
        processed: how many tasks it has accepted during the check.
    """

    hostname: str
    task_events: TaskEvents
    sends_heartbeats: bool
    answers: bool
    processed: int


class Result(NamedTuple):
    """The result of a preflight of one URL."""

    steps: list[Step]
    workers: list[WorkerReport]


def passed(name: str, what: str) -> Step:
    """Return a step without a finding."""
    return Step(name, "ok", what)


def found(name: str, finding: str, what: str, remedy: str) -> Step:
    """Return a step with a finding, whose exit code decides whether it is a failure or a warning."""
    status: Status = "failed" if FINDINGS[finding][0] < FIRST_WARNING_CODE else "warning"
    return Step(name, status, what, finding, remedy)


def exit_code(steps: list[Step]) -> int:
    """Return the exit code of the first failure, otherwise of the first warning, otherwise 0."""
    for status in ("failed", "warning"):
        for step in steps:
            if step.status == status and step.finding is not None:
                return FINDINGS[step.finding][0]
    return 0
