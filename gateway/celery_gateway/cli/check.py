"""``celery-gateway check``: print the problems between here and the first event, and their fixes."""

import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from celery_gateway.broker.redaction import without_password
from celery_gateway.broker.urls import Access, Broker, brokers
from celery_gateway.check.step import FINDINGS, FIRST_WARNING_CODE, Result, Step, exit_code
from celery_gateway.cli.cancellable import run
from celery_gateway.cli.options import CONSUMING, KEEPING, Number, with_options
from celery_gateway.errors import SourceError
from celery_gateway.settings import DEFAULTS

if TYPE_CHECKING:
    from celery_gateway.check.log_places import LogSettings

_MARKS = {"ok": ("ok", "green"), "warning": ("WARN", "yellow"), "failed": ("FAILED", "red")}
_TABLE = "\n".join(f"{code:4}  {name:21}{meaning}" for name, (code, meaning) in FINDINGS.items())
_EXIT_CODES = f"""\b
Exit codes:
   0  no problem found
   1  an error that has no code of its own
   2  wrong options
{_TABLE}
 130  stopped by Ctrl-C

Codes from {FIRST_WARNING_CODE} are warnings: events arrive, but something is missing or could not be
determined. The exit code is that of the first failure, or else of the first warning.
"""


class _StatusLine:
    """Shows what the check waits for, if standard error is a terminal."""

    def __init__(self, wait_seconds: float) -> None:
        self._is_shown = sys.stderr.isatty()
        self._wait_seconds = wait_seconds
        self._start: float | None = None

    def show(self, what: str) -> None:
        if self._is_shown:
            self._start = self._start or time.monotonic()
            left = max(self._wait_seconds - (time.monotonic() - self._start), 0)
            click.echo(f"\r\033[K  …       waiting for {what} ({left:.0f} s)", nl=False, err=True)

    def clear(self) -> None:
        if self._is_shown and self._start is not None:
            click.echo("\r\033[K", nl=False, err=True)


def _show(step: Step) -> None:
    mark, color = _MARKS[step.status]
    click.echo(f"  {click.style(f'{mark:8}', fg=color)}{step.name:13}{step.what}")
    if step.remedy:
        click.echo(f"{'':10}{'':13}→ {step.remedy}")


class _Checked(NamedTuple):
    """What was checked: the name of a broker, ``None`` without one; the URL without password; the result."""

    name: str | None
    url: str
    result: Result


def _document(results: list[_Checked], code: int) -> dict[str, Any]:
    steps = [step for _, _, result in results for step in result.steps]
    return {
        "exit_code": code,
        "finding": next((step.finding for step in steps if _code(step) == code), None),
        "steps": [
            {
                "broker": name,
                "url": url,
                "step": step.name,
                "status": step.status,
                "finding": step.finding,
                "what": step.what,
                "remedy": step.remedy,
            }
            for name, url, result in results
            for step in result.steps
        ],
        "workers": [
            {"broker": name, "url": url, **worker._asdict()}
            for name, url, result in results
            for worker in result.workers
        ],
    }


def _code(step: Step) -> int:
    return FINDINGS[step.finding][0] if step.finding else 0


class _Run:
    """One run of the command: it prints each step when it is done, unless ``as_json``."""

    def __init__(self, exchange: str, wait_seconds: float, as_json: bool) -> None:
        self.results: list[_Checked] = []
        self.status = _StatusLine(wait_seconds)
        self._exchange = exchange
        self._wait_seconds = wait_seconds
        self._as_json = as_json

    def on_step(self, step: Step) -> None:
        self.status.clear()
        if not self._as_json:
            _show(step)

    def refuse(self, error: SourceError, url: str, name: str | None = None) -> None:
        """Record that a URL cannot be used."""
        from celery_gateway.check.preflight import url_failed

        step = url_failed(error, url)
        self.results.append(_Checked(name, without_password(url), Result([step], [])))
        self.on_step(step)

    def check_broker(self, broker: Broker, settings: "LogSettings") -> None:
        """Check all URLs of a broker, and with ``--log memory`` whether a shared log was left there."""
        from celery_gateway.check.log_preflight import unused_log_step
        from celery_gateway.check.preflight import preflight

        result = None
        for url in broker.urls:
            self._show_title(broker.name, url)
            result = run(
                preflight(
                    url, self._exchange, self._wait_seconds, self.on_step, self.status.show, broker.access
                )
            )
            self.results.append(_Checked(broker.name, without_password(url), result))
        can_log_in = result and any(step.name == "login" and step.status == "ok" for step in result.steps)
        if result and can_log_in and not settings.is_shared:
            step = run(unused_log_step(settings, broker, self.status.show))
            self.status.clear()
            if step:
                result.steps.append(step)
                self.on_step(step)

    def check_log(self, settings: "LogSettings") -> None:
        """Check the shared log."""
        from celery_gateway.check.log_preflight import log_steps
        from celery_gateway.check.log_step import refused

        result = Result([], [])
        try:
            url = settings.server()[1].urls[0]
        except SourceError as error:
            self.results.append(_Checked(None, without_password(settings.log), result))
            result.steps.append(refused(error))
            self.on_step(result.steps[-1])
            return
        self._show_title("log", url)
        self.results.append(_Checked(None, without_password(url), result))

        async def collect() -> None:
            async for step in log_steps(settings, self._exchange, self.status.show):
                result.steps.append(step)
                self.on_step(step)

        try:
            run(collect())
        except SourceError as error:
            self.refuse(error, url)

    def _show_title(self, name: str | None, url: str) -> None:
        if not self._as_json:
            click.echo(f"{name} = {without_password(url)}" if name else without_password(url))

    def steps(self) -> Iterator[Step]:
        """Give all steps, in order."""
        for checked in self.results:
            yield from checked.result.steps


@click.command(epilog=_EXIT_CODES)
@with_options((*CONSUMING, *KEEPING))
@click.option(
    "--wait",
    "wait_seconds",
    type=Number(0),
    metavar="SECONDS",
    default=10.0,
    show_default=True,
    help="Maximum time to observe the workers.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def check(
    broker: tuple[str, ...],
    exchange: str,
    transport_options: dict[str, Any],
    log: str,
    log_age_seconds: float,
    log_bytes: int,
    wait_seconds: float,
    as_json: bool,
) -> None:
    """Find what keeps events from arriving, and how to fix it.

    Checks each step from the host name of the broker to the events of the workers; and the log, if gateways
    share one (--log). It changes nothing: it declares no exchange, and asks workers only for their
    configuration and their number of tasks.

    \b
    Examples:
      celery-gateway check --broker amqp://guest:guest@localhost:5672//
      celery-gateway check --broker redis://localhost:6379/0 --wait 30
      celery-gateway check --log rabbitmq --wait 0
      celery-gateway check --json | jq -r '.steps[] | select(.finding) | .remedy'
    """
    from celery_gateway.check.log_places import LogSettings  # not for --help: it loads celery

    for library in ("aio_pika", "aiormq", "kombu", "redis"):  # the findings replace their messages
        logging.getLogger(library).setLevel(logging.CRITICAL)
    checking = _Run(exchange, wait_seconds, as_json)
    try:
        named = brokers(broker, Access(transport_options=transport_options))
        settings = LogSettings(log, named, DEFAULTS.queue_prefix, log_age_seconds, log_bytes)
        for each in named:
            checking.check_broker(each, settings)
        if settings.is_shared:
            checking.check_log(settings)
    except SourceError as error:
        checking.refuse(error, broker[0])
    except KeyboardInterrupt:
        checking.status.clear()
        sys.exit(130)
    code = exit_code(list(checking.steps()))
    checking.status.clear()
    if as_json:
        click.echo(json.dumps(_document(checking.results, code), indent=2, ensure_ascii=False))
    elif code == 0:
        click.echo("No problem found.")
    sys.exit(code)
