"""The preflight of one broker URL, step by step to the first event. It changes nothing at the broker.

URL → name → TCP → TLS → login → vhost → exchange → queue → workers → their events. It ends with the first
step that fails, because no later one can be tested. From the workers on, all findings are reported.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from celery_gateway.broker import alarm
from celery_gateway.broker.address import Address, address_of
from celery_gateway.broker.diagnosis import Phase, diagnose
from celery_gateway.broker.redaction import without_password
from celery_gateway.broker.url_syntax import is_amqp, is_redis
from celery_gateway.broker.urls import BY_URL, Access
from celery_gateway.check.broker_probe import (
    BrokerProbe,
    MisroutedMessage,
    Observation,
    PublishersBlocked,
)
from celery_gateway.check.network import failed, missing_tls, needless_tls, network_steps
from celery_gateway.check.observations import Observations
from celery_gateway.check.rabbitmq_probe import RabbitMQProbe
from celery_gateway.check.redis_probe import RedisProbe
from celery_gateway.check.step import Result, Step, WorkerReport, found, passed
from celery_gateway.check.worker_findings import WorkerFindings
from celery_gateway.errors import SourceError, TransportError
from celery_gateway.events.message import Message
from celery_gateway.events.normalize import normalize

ROUND_SECONDS = 2.0
"""How often the workers are asked, and a missing exchange is looked for."""
SETTLE_SECONDS = 1.2
"""How long no new worker has been observed when all workers count as known."""
TICK_SECONDS = 0.2


async def preflight(
    url: str,
    exchange: str,
    wait_seconds: float,
    on_step: Callable[[Step], None] = lambda step: None,
    on_wait: Callable[[str], None] = lambda what: None,
    access: Access = BY_URL,
) -> Result:
    """Test each step to a broker's events, and observe its workers.

    Args:
        url: as ``urls.brokers`` returns it.
        exchange: Celery's ``event_exchange``.
        wait_seconds: how long to observe the workers; it ends sooner when the result is complete.
        on_step: called with each step when it is done.
        on_wait: called a few times a second with what is missing.
        access: how to connect.
    """
    run = _Preflight(url, exchange, wait_seconds, on_wait, access)
    result = Result([], [])
    try:
        async for step in run.steps():
            result.steps.append(step)
            on_step(step)
    finally:
        await run.close()
    result.workers.extend(run.reports)
    return result


def url_failed(error: Exception, url: str) -> Step:
    """Return the step of a URL that cannot be used, for an error of ``urls.brokers`` or of a probe."""
    if isinstance(error, TransportError):
        what, _, remedy = str(error).partition("; ")
        if not remedy:
            what, _, remedy = str(error).rpartition(": ")
        return found("url", "transport", what, remedy[:1].upper() + remedy[1:])
    what = str(error)
    if not isinstance(error, SourceError):
        what = f"{without_password(url)} cannot be read: {error}"
    example = "redis://:PASSWORD@host:6379/0" if is_redis(url) else "amqp://user:password@host:5672/vhost"
    return found("url", "url", what, f"Write it as {example}")


class _Preflight:
    """One run of a preflight; arguments as of ``preflight``.

    Attributes:
        reports: what was observed of each worker, after all steps.
    """

    def __init__(
        self, url: str, exchange: str, wait_seconds: float, on_wait: Callable[[str], None], access: Access
    ) -> None:
        self.reports: list[WorkerReport] = []
        self._url = url
        self._exchange = exchange
        self._wait_seconds = wait_seconds
        self._on_wait = on_wait
        self._access = access
        self._probe: BrokerProbe | None = None
        self._observations = Observations()

    async def steps(self) -> AsyncIterator[Step]:
        """Give the steps, up to the first failure before the workers, or up to the last one."""
        try:
            address = address_of(self._url)
            self._probe = probe = _probe(self._url, self._exchange, self._access)
        except (SourceError, ValueError, TypeError, KeyError) as error:
            yield url_failed(error, self._url)
            return
        has_network = address.is_amqp or address.is_redis
        yield passed("url", _text(address) if has_network else without_password(self._url))
        if has_network:
            async for step in network_steps(address, self._url):
                yield step
                if step.status == "failed":
                    return
        async for step in probe.open():
            if step.finding in ("connection-lost", "timeout", "not-amqp"):
                step = await missing_tls(address) or await needless_tls(address) or step
            yield step
            if step.status == "failed":
                return
        for step in await self._worker_steps(probe, address.vhost):
            yield step

    async def close(self) -> None:
        """Disconnect."""
        if self._probe is not None:
            await self._probe.close()

    async def _worker_steps(self, probe: BrokerProbe, database: str) -> list[Step]:
        findings = WorkerFindings(self._observations, self._exchange, database)
        try:
            now = await self._observe(probe, findings)
        except PublishersBlocked:
            return [found("publishers", "publishers-blocked", alarm.BLOCKED, alarm.REMEDY)]
        except BaseException as error:
            # A cancellation by asyncio ends the check; one by aiormq means that the broker is silent.
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise
            if not isinstance(error, (Exception, asyncio.CancelledError)):
                raise
            return [failed("events", error, self._url, Phase.LOST, self._exchange, self._access)]
        self.reports = self._observations.reports(now)
        return findings.steps(now, self._wait_seconds, probe.is_consuming)

    async def _observe(self, probe: BrokerProbe, findings: WorkerFindings) -> float:
        """Collect observations until the result is complete, or the time is up; return that time.

        Raises:
            BaseException: the error that has ended the connection.
        """
        observations = self._observations
        start = now = changed_at = time.monotonic()
        requested_at = -ROUND_SECONDS
        known = 0
        while True:
            if now - requested_at >= ROUND_SECONDS:
                requested_at = now
                if not probe.is_consuming:
                    await probe.consume()
                if not observations.refusal:
                    observations.refusal = await self._request_reports(probe)
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    _record(observations, await probe.observations.get())
            while not probe.observations.empty():
                _record(observations, probe.observations.get_nowait())
            now = time.monotonic()
            if len(observations.workers) != known:
                known, changed_at = len(observations.workers), now
            missing = findings.missing(now)
            if now - start >= self._wait_seconds or not missing and now - changed_at >= SETTLE_SECONDS:
                return now
            self._on_wait(missing or "other workers")

    async def _request_reports(self, probe: BrokerProbe) -> str:
        """Ask the workers for configuration and counts; return why they cannot be asked, or ``""``."""
        try:
            await probe.request("conf", {"with_defaults": True})
            await probe.request("stats", {})
        except PublishersBlocked:
            raise
        except Exception as error:
            diagnosis = diagnose(
                error, self._url, phase=Phase.LOST, exchange=self._exchange, access=self._access
            )
            if diagnosis.code not in ("permission-refused", "no-master"):
                raise
            return diagnosis.what
        return ""


def _text(address: Address) -> str:
    user = f", user {address.user}" if address.user else ""
    kind = "vhost" if address.is_amqp else "database"
    return f"{address.scheme} at {address.host_and_port}{user}, {kind} {address.vhost}"


def _probe(url: str, exchange: str, access: Access) -> BrokerProbe:
    if is_amqp(url):
        return RabbitMQProbe(url, exchange, access)
    if is_redis(url):
        return RedisProbe(url, exchange, access)
    raise TransportError(
        f"{without_password(url)} is a broker within one process: it cannot be checked from another process"
    )


def _record(observations: Observations, observation: Observation) -> None:
    """Record one observation.

    Raises:
        BaseException: it is the error that has ended the connection.
    """
    now = time.monotonic()
    if isinstance(observation, BaseException):
        raise observation
    if isinstance(observation, Message):
        normalized = normalize(observation, time.time())
        observations.refused += len(normalized.refused)
        for event in normalized.events:
            observations.on_event(event, now)
    elif isinstance(observation, MisroutedMessage):
        for event in normalize(observation.message, time.time()).events:
            observations.on_misrouted_event(event, observation.channel)
    elif observation.command == "conf":
        observations.on_conf(observation.hostname, observation.content)
    else:
        observations.on_stats(observation.hostname, observation.content, now)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
