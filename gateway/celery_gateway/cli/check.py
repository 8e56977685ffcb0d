"""``celery-gateway check``: print the problems between here and the first event, and their fixes."""

import json
import logging
import sys
import time
from typing import Any

import click

from celery_gateway.broker.redaction import without_password
from celery_gateway.broker.urls import Access, brokers
from celery_gateway.check.step import FINDINGS, FIRST_WARNING_CODE, Result, Step, exit_code
from celery_gateway.cli.cancellable import run
from celery_gateway.cli.options import CONSUMING, Number, with_options
from celery_gateway.errors import SourceError

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


def _document(results: list[tuple[str | None, str, Result]], code: int) -> dict[str, Any]:
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


@click.command(epilog=_EXIT_CODES)
@with_options(CONSUMING)
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
    wait_seconds: float,
    as_json: bool,
) -> None:
    """Find what keeps events from arriving, and how to fix it.

    Checks each step from the host name of the broker to the events of the workers. It changes nothing: it
    declares no exchange, and asks workers only for their configuration and their number of tasks.

    \b
    Examples:
      celery-gateway check --broker amqp://guest:guest@localhost:5672//
      celery-gateway check --broker redis://localhost:6379/0 --wait 30
      celery-gateway check --json | jq -r '.steps[] | select(.finding) | .remedy'
    """
    from celery_gateway.check.preflight import preflight, url_failed  # not for --help: it loads celery

    for library in ("aio_pika", "aiormq", "kombu", "redis"):  # the findings replace their messages
        logging.getLogger(library).setLevel(logging.CRITICAL)
    results: list[tuple[str | None, str, Result]] = []
    named: list[tuple[str | None, str, Access]] = []
    try:
        access = Access(transport_options=transport_options)
        named += [(each.name, url, each.access) for each in brokers(broker, access) for url in each.urls]
    except SourceError as error:
        step = url_failed(error, broker[0])
        results.append((None, without_password(broker[0]), Result([step], [])))
        if not as_json:
            _show(step)
    status = _StatusLine(wait_seconds)

    def on_step(step: Step) -> None:
        status.clear()
        if not as_json:
            _show(step)

    try:
        for name, url, access in named:
            shown = without_password(url)
            if not as_json:
                click.echo(f"{name} = {shown}" if name else shown)
            result = run(preflight(url, exchange, wait_seconds, on_step, status.show, access))
            results.append((name, shown, result))
    except KeyboardInterrupt:
        status.clear()
        sys.exit(130)
    code = exit_code([step for _, _, result in results for step in result.steps])
    if as_json:
        status.clear()
        click.echo(json.dumps(_document(results, code), indent=2, ensure_ascii=False))
    elif code == 0:
        click.echo("No problem found.")
    sys.exit(code)
