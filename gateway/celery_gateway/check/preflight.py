"""A walk from a broker's URL to the first event, which changes nothing.

URL → name → TCP → TLS → login → vhost → exchange → queue → workers → their events. The walk ends with the
first step that fails, since no later one can be tried; from the workers on all that is known is told.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from gateway.broker import without_password
from gateway.check.evidence import Evidence
from gateway.check.line import Heard, Line
from gateway.check.network import failed, steps_to, wanted_tls
from gateway.check.rabbitmq import RabbitMQLine
from gateway.check.step import Result, Step, found, passed
from gateway.check.virtual import VirtualLine
from gateway.message import Message
from gateway.normalize import normalize
from gateway.source.failure import failure_of
from gateway.source.place import Place, place_of

ROUND_SECONDS = 2.0
"""How often the workers are asked, and a missing exchange is looked for."""
SETTLE_SECONDS = 1.2
"""How long no worker may have been heard of anew before it counts that all are known."""
TICK_SECONDS = 0.2


async def check(
    url: str,
    exchange: str,
    wait_seconds: float,
    on_step: Callable[[Step], None] = lambda step: None,
    on_wait: Callable[[str], None] = lambda what: None,
) -> Result:
    """Walk to a broker and watch its workers for at most so many seconds.

    Args:
        url: as Celery takes it.
        exchange: Celery's ``event_exchange``.
        wait_seconds: how long to watch; it ends sooner when all is known.
        on_step: called with each step once it is known.
        on_wait: called with what is waited for, a few times a second.
    """
    result = Result([], [])

    def step_is(step: Step) -> bool:
        result.steps.append(step)
        on_step(step)
        return step.status != "failed"

    try:
        place = place_of(url)
        line = _line(place, url, exchange)
    except ImportError as error:
        scheme = url.partition("://")[0]
        text = f"{scheme}:// cannot be used here: {error}"
        step_is(found("url", "transport", text, f"Correct the scheme, or: pip install 'kombu[{scheme}]'"))
        return result
    except ValueError as error:
        text = f"{without_password(url)} cannot be read: {error}"
        step_is(found("url", "url", text, "Write it as amqp://user:password@host:5672/vhost"))
        return result
    step_is(passed("url", _words(place) if place.is_amqp or place.is_redis else without_password(url)))
    try:
        if place.is_amqp or place.is_redis:
            async for step in steps_to(place, url):
                if not step_is(step):
                    return result
        async for step in line.opening():
            if step.finding in ("connection-lost", "timeout", "not-amqp"):
                step = await wanted_tls(place) or step
            if not step_is(step):
                return result
        evidence = Evidence(exchange)
        try:
            now = await _watch(line, evidence, url, exchange, wait_seconds, on_wait)
        except BaseException as error:
            # (asyncio's own cancelling is one of us going; aiormq's, that the broker has fallen silent.)
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise
            if not isinstance(error, (Exception, asyncio.CancelledError)):
                raise
            step_is(failed("events", error, url, exchange))
            return result
        for step in evidence.steps(now, wait_seconds, line.listens):
            step_is(step)
        result.workers.extend(evidence.workers(now))
        return result
    finally:
        await line.close()


def _words(place: Place) -> str:
    user = f", user {place.user}" if place.user else ""
    kind = "vhost" if place.is_amqp else "database"
    return f"{place.scheme} at {place.address}{user}, {kind} {place.vhost}"


def _line(place: Place, url: str, exchange: str) -> Line:
    return RabbitMQLine(url, exchange) if place.is_amqp else VirtualLine(url, exchange)


async def _watch(
    line: Line,
    evidence: Evidence,
    url: str,
    exchange: str,
    wait_seconds: float,
    on_wait: Callable[[str], None],
) -> float:
    """Collect evidence until all is known or the time is up, and return when that was.

    Raises:
        BaseException: what has ended the line.
    """
    start = now = changed_at = time.monotonic()
    asked_at = -ROUND_SECONDS
    known = 0
    while True:
        if now - asked_at >= ROUND_SECONDS:
            asked_at = now
            if not line.listens:
                await line.listen()
            if not evidence.unasked:
                evidence.unasked = await _ask(line, url, exchange)
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK_SECONDS):
                _note(evidence, await line.heard.get())
        while not line.heard.empty():
            _note(evidence, line.heard.get_nowait())
        now = time.monotonic()
        if (count := len(evidence.workers(now))) != known:
            known, changed_at = count, now
        missing = evidence.missing(now)
        if now - start >= wait_seconds or not missing and now - changed_at >= SETTLE_SECONDS:
            return now
        on_wait(missing or "others")


async def _ask(line: Line, url: str, exchange: str) -> str:
    """Ask the workers what they are; return why they cannot be asked, if so."""
    try:
        await line.ask("conf", {"with_defaults": True})
        await line.ask("stats", {})
    except Exception as error:
        failure = failure_of(error, url, exchange)
        if failure.code != "permission-refused":
            raise
        return failure.what
    return ""


def _note(evidence: Evidence, heard: Heard) -> None:
    now = time.monotonic()
    if isinstance(heard, BaseException):
        raise heard
    if isinstance(heard, Message):
        normalized = normalize(heard, time.time())
        evidence.refused += len(normalized.refused)
        for event in normalized.events:
            evidence.saw(event, now)
    elif heard.question == "conf":
        evidence.configured(heard.hostname, heard.content)
    else:
        evidence.counted(heard.hostname, heard.content, now)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
