"""The preflight of a shared log: its server, its retention, what it has, and who leads. It changes nothing.

With ``--log memory`` it looks whether the brokers have a log or a raw stream all the same: what a gateway
with another setting has left, or uses now.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from celery_gateway.broker.redaction import without_password
from celery_gateway.broker.urls import Broker
from celery_gateway.check.log_places import LogSettings
from celery_gateway.check.log_report import (
    LogReport,
    duration_text,
    log_exists,
    log_report,
    size_text,
)
from celery_gateway.check.log_step import log_failed
from celery_gateway.check.rabbitmq_log_probe import rabbitmq_log_steps, raw_stream_step
from celery_gateway.check.redis_log_probe import redis_log_steps
from celery_gateway.check.step import Step, found, passed
from celery_gateway.errors import SourceError
from celery_gateway.log.engine import LogError

OnWait = Callable[[str], None]


async def log_steps(settings: LogSettings, exchange: str, on_wait: OnWait) -> AsyncIterator[Step]:
    """Give the steps of a shared log, up to the first failure.

    Args:
        settings: ``log`` is not ``memory``.
        exchange: Celery's ``event_exchange``, for the permissions that are recommended.
        on_wait: called with what is waited for.

    Raises:
        SourceError: the log cannot be where the settings have it.
    """
    kind, server = settings.server()
    steps = redis_log_steps if kind == "redis" else rabbitmq_log_steps
    async for step in steps(settings, server, exchange):
        yield step
        if step.status == "failed":
            return
    for raw in settings.raw_streams():
        if raw_step := await raw_stream_step(settings, raw.broker):
            yield raw_step
    try:
        report = await log_report(settings.engine(), on_wait)
    except LogError as error:
        yield log_failed("log", error)
        return
    if report is None:
        yield passed("log", f"{settings.name} does not exist: the first gateway creates it")
        return
    yield passed("log", f"{settings.name} has {_content(report)}")
    yield passed("leader", _leader(report))


async def unused_log_step(settings: LogSettings, broker: Broker, on_wait: OnWait) -> Step | None:
    """Return a warning if a broker has a shared log or a raw stream, though ``--log`` is ``memory``.

    A broker that cannot be asked gives none: its own preflight reports that.
    """
    at = settings._replace(brokers=[broker])
    with suppress(LogError, SourceError):
        report = await log_report(at.engine(), on_wait)
        raw = [each.name for each in at.raw_streams() if await log_exists(each.stream)]
        if report is None and not raw:
            return None
        url = without_password(broker.urls[0])
        texts = [] if report is None else [f"a shared log ({settings.name}) with {_content(report)}"]
        texts += [f"a raw stream ({name}), which keeps all messages of Celery's events" for name in raw]
        used = ""
        if report is not None and report.leader:
            used = f", and {report.leader} uses it"
        kind, _ = at.server()
        return found(
            "log",
            "log-unused",
            f"the broker has {' and '.join(texts)}, but the setting log is memory{used}",
            f"To use it: --log {kind}. If no gateway is to use it, remove it: celery-gateway log delete "
            f"--broker {url}",
        )
    return None


def _content(report: LogReport) -> str:
    if not report.entries:
        return "no entries"
    return (
        f"{report.entries:,} entries ({report.first} to {report.last}), {size_text(report.bytes)}, "
        f"and reaches {duration_text(report.first_seconds)} back"
    )


def _leader(report: LogReport) -> str:
    if not report.leader:
        return "no gateway leads, so none runs"
    count = len(report.readers)
    others = f"; {count} other gateway{'s' * (count != 1)}" if count else ""
    return f"{report.leader}{others}"
