"""``celery-gateway check``: what is wrong between here and the first event, and what mends it."""

import asyncio
import json
import logging
import sys
import time
from typing import Any

import click

from gateway.broker import brokers, without_password
from gateway.check.step import FINDINGS, FIRST_WARNING_CODE, Result, Step, exit_code
from gateway.cli.options import consuming
from gateway.errors import SourceError

_MARKS = {"ok": ("ok", "green"), "warning": ("WARN", "yellow"), "failed": ("FAILED", "red")}
_TABLE = "\n".join(f"{code:4}  {name:21}{meaning}" for name, (code, meaning) in FINDINGS.items())
_EXIT_CODES = f"""\b
Exit codes:
   0  all is well
   1  something else failed
   2  the call was wrong
{_TABLE}
 130  ended with Ctrl-C

From {FIRST_WARNING_CODE} up it is a warning: events come, or will; something is missing or could not be found
out. The code is that of the first failure, or if there is none of the first warning.
"""


class _Progress:
    """One line on a terminal's standard error that says what is waited for; nothing elsewhere."""

    def __init__(self, wait_seconds: float) -> None:
        self._is_shown = sys.stderr.isatty()
        self._wait_seconds = wait_seconds
        self._start: float | None = None

    def wait(self, what: str) -> None:
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
@consuming
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=10.0,
    show_default=True,
    help="How long to watch the workers; it ends sooner when all is known.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of lines.")
def check(broker: tuple[str, ...], exchange: str, wait_seconds: float, as_json: bool) -> None:
    """Say what is wrong between here and the first event, and what mends it.

    Walks from the broker's name to the workers' events. It changes nothing: no exchange is declared that is
    not there, and no worker is told anything, only asked for its configuration and its count of tasks.

    \b
    Examples:
      celery-gateway check --broker amqp://guest:guest@localhost:5672//
      celery-gateway check --broker redis://localhost:6379/0 --wait 30
      celery-gateway check --json | jq -r '.steps[] | select(.finding) | .remedy'
    """
    from gateway.check.walk import check as walk  # not for --help: it loads celery

    for library in ("aio_pika", "aiormq", "kombu"):  # the findings say what they would
        logging.getLogger(library).setLevel(logging.CRITICAL)
    results: list[tuple[str | None, str, Result]] = []
    named: list[tuple[str | None, str]] = []
    try:
        named += [(each.name, url) for each in brokers(broker) for url in each.urls]
    except SourceError as error:
        step = Step("url", "failed", str(error), "url", "Write it as amqp://user:password@host:5672/vhost")
        results.append((None, without_password(broker[0]), Result([step], [])))
        if not as_json:
            _show(step)
    progress = _Progress(wait_seconds)

    def on_step(step: Step) -> None:
        progress.clear()
        if not as_json:
            _show(step)

    try:
        for name, url in named:
            shown = without_password(url)
            if not as_json:
                click.echo(f"{name} = {shown}" if name else shown)
            result = asyncio.run(walk(url, exchange, wait_seconds, on_step, progress.wait))
            results.append((name, shown, result))
    except KeyboardInterrupt:
        progress.clear()
        sys.exit(130)
    code = exit_code([step for _, _, result in results for step in result.steps])
    if as_json:
        progress.clear()
        click.echo(json.dumps(_document(results, code), indent=2, ensure_ascii=False))
    elif code == 0:
        click.echo("All is well.")
    sys.exit(code)
