"""``celery-gateway log``: show, trim and delete the log that gateways share."""

import json
import logging
import re
import sys
from collections.abc import Callable
from typing import Any, Final

import click

from celery_gateway.cli.cancellable import run
from celery_gateway.cli.options import with_options
from celery_gateway.errors import GatewayError
from celery_gateway.settings import DEFAULTS

NO_LOG: Final = 3
"""The exit code if there is no log."""
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"(\d{1,9})([smhdw])")
_POSITION: Final = re.compile(r"\d{1,18}")
_EPILOG: Final = f"""\b
Exit codes:
   0  done
   1  an error: the server of the log cannot be used, or refuses it
   2  wrong options
   {NO_LOG}  there is no log
 130  stopped by Ctrl-C
"""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where the log is."""
    prefix = click.option(
        "--queue-prefix",
        metavar="PREFIX",
        default=DEFAULTS.queue_prefix,
        show_default=True,
        help="The log is PREFIX.log. (It is NAME.celery-gateway for celery -A proj gateway, if the app has "
        "event_queue_prefix = 'NAME'.)",
    )
    return with_options(("broker", "transport_options", "log"))(prefix(command))


@click.group()
def log() -> None:
    """Show, trim and delete the log that gateways with --log share.

    --broker and --log are those of the gateway, also as GATEWAY_BROKER and GATEWAY_LOG. Without --log, the
    log in the first broker is used.

    \b
    Examples:
      celery-gateway log info --broker amqp://guest:guest@localhost:5672//
      celery-gateway log trim --log redis://localhost:6379/1 --before 2h
      celery-gateway log delete --broker amqp://guest:guest@localhost:5672//
    """


@log.command(epilog=_EPILOG)
@_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def info(as_json: bool, **where: Any) -> None:
    """Print where the log is, what it has, and which gateways read it.

    It changes nothing. It waits up to 2.5 seconds for a sign of the leader. A gateway that does not lead
    writes every 10 seconds how far it has read; one that was stopped is listed for up to 15 seconds.

    \b
    Examples:
      celery-gateway log info --broker amqp://guest:guest@localhost:5672//
      celery-gateway log info --log redis://localhost:6379/1
      celery-gateway log info --json | jq '.gateways[] | select(.lag > 1000)'
    """
    from celery_gateway.check.log_report import log_report  # not for --help
    from celery_gateway.cli.log_text import document, lines

    settings = _settings(**where)
    engine = settings.engine()
    report = _run(log_report(engine, _show_waiting()))
    raw = [(each.url, each.name) for each in settings.raw_streams() if _is_there(each)]
    _clear_waiting()
    if as_json:
        click.echo(json.dumps(document(engine.place, report, raw), indent=2, ensure_ascii=False))
    else:
        for line in lines(engine.place, report, raw):
            click.echo(line)
    if report is None:
        sys.exit(NO_LOG)


@log.command(epilog=_EPILOG)
@_options
@click.option(
    "--before",
    required=True,
    metavar="AGE|POSITION",
    help="What to remove: entries that are older than an age (90s, 30m, 2h, 7d, 4w), or before a position.",
)
def trim(before: str, **where: Any) -> None:
    """Remove the oldest entries of a log in Redis.

    Clients that resume at a removed entry get a gateway-gap. A few older entries may stay, since whole
    batches are removed. RabbitMQ removes by age and size only: set a policy, or delete the log.

    \b
    Examples:
      celery-gateway log trim --log redis://localhost:6379/1 --before 2h
      celery-gateway log trim --broker redis://localhost:6379/0 --before 120000
    """
    from celery_gateway.check.log_trim import trim_log

    settings = _settings(**where)
    position, age = _before(before)
    engine = settings.engine()
    bounds = _run(trim_log(engine, position=position, age_seconds=age))
    if bounds is None:
        click.echo(f"There is no log: {_at(engine.place)}.", err=True)
        sys.exit(NO_LOG)
    removed = bounds.after - bounds.before
    click.echo(
        f"Removed {removed:,} entries of {_at(engine.place)}; the first one is {bounds.after} now."
        if removed
        else f"Nothing to remove in {_at(engine.place)}: its first entry is {bounds.before}."
    )


@log.command(epilog=_EPILOG)
@_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(yes: bool, **where: Any) -> None:
    """Delete the log, and the raw stream of each RabbitMQ broker.

    Stop the gateways first, if they are not to use a log any more. Gateways that run begin a new log, and
    their clients get reset. The raw stream keeps Celery's messages while no gateway runs: those that no
    gateway has read are lost.

    \b
    Examples:
      celery-gateway log delete --broker amqp://guest:guest@localhost:5672//
      celery-gateway log delete --broker amqp://rabbit --log redis://localhost:6379/1 --yes
    """
    from celery_gateway.check.log_report import log_exists, log_report

    settings = _settings(**where)
    engine = settings.engine()
    report, exists = None, _run(log_exists(engine))
    if exists:
        try:
            report = _run(log_report(engine, _show_waiting()))
        except GatewayError as error:  # what is in it does not matter any more
            click.echo(f"The log cannot be read: {error}", err=True)
    raw = [each for each in settings.raw_streams() if _run(log_exists(each.stream))]
    _clear_waiting()
    if not exists and not raw:
        click.echo(f"There is no log: {_at(engine.place)}.", err=True)
        sys.exit(NO_LOG)
    entries = "" if report is None else f" with {report.entries:,} entries"
    texts = [f"{_at(engine.place)}{entries}"] if exists else []
    texts += [f"{each.name} at {each.url}" for each in raw]
    if report is not None and report.leader:
        click.echo(
            f"Warning: gateways use this log ({report.leader} leads). They begin a new one, and their "
            "clients get reset. To remove it for good, stop the gateways, or start them with --log memory.",
            err=True,
        )
    if not yes and not click.confirm(f"Delete {' and '.join(texts)}?", err=True):
        raise click.ClickException("nothing was deleted")
    if exists:
        _run(_deleted(engine))
    for each in raw:
        _run(_deleted(each.stream))
    click.echo(f"Deleted {' and '.join(texts)}.")


async def _deleted(engine: Any) -> None:
    try:
        await engine.delete()
    finally:
        await engine.close()


def _settings(broker: tuple[str, ...], transport_options: dict[str, Any], log: str, queue_prefix: str) -> Any:
    """Return the ``LogSettings`` of the options.

    Raises:
        GatewayError: a URL cannot be read.
    """
    from celery_gateway.broker.urls import Access, brokers
    from celery_gateway.check.log_places import LogSettings

    for library in ("aio_pika", "aiormq", "kombu", "redis"):  # the errors have their texts
        logging.getLogger(library).setLevel(logging.CRITICAL)
    access = Access(transport_options=transport_options, queue_prefix=queue_prefix)
    named = brokers(broker, access)
    return LogSettings(log, named, queue_prefix, DEFAULTS.log_age_seconds, DEFAULTS.log_bytes)


def _run(work: Any) -> Any:
    """Run a coroutine; an error of the log becomes one for the user."""
    from celery_gateway.log.engine import LogError

    try:
        return run(work)
    except LogError as error:
        raise GatewayError(str(error)) from None
    finally:
        _clear_waiting()


def _is_there(raw: Any) -> bool:
    """Return whether a raw stream exists; a broker that cannot be reached is named, and no error."""
    from celery_gateway.check.log_report import log_exists

    try:
        return bool(_run(log_exists(raw.stream)))
    except GatewayError as error:
        click.echo(f"The raw stream is not shown: {error}", err=True)
        return False


def _show_waiting() -> Callable[[str], None]:
    """Return a function that shows what is waited for, if standard error is a terminal."""
    if not sys.stderr.isatty():
        return lambda what: None
    return lambda what: click.echo(f"\r\033[Kwaiting for {what} …", nl=False, err=True)


def _clear_waiting() -> None:
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)


def _before(text: str) -> tuple[int | None, float | None]:
    """Return the position, or the age in seconds.

    Raises:
        UsageError: it is neither.
    """
    if found := _DURATION.fullmatch(text):
        return None, float(int(found[1]) * _SECONDS[found[2]])
    if found := _POSITION.fullmatch(text):
        return int(found[0]), None
    raise click.UsageError(
        f"invalid --before {text!r}: allowed are an age such as 30m, 2h or 7d, and a position such as 120000"
    )


def _at(place: Any) -> str:
    return f"{place.name} at {place.address}"
