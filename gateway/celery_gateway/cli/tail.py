"""``celery-gateway tail``: print the events of a stream, for people and for pipes."""

import io
import os
import sys
from pathlib import Path
from typing import Any, Final

import click
import httpx

from celery_gateway.cli.event_line import event_line
from celery_gateway.cli.options import Number
from celery_gateway.cli.outcome import Outcome
from celery_gateway.cli.proxy import parse
from celery_gateway.cli.status_line import OutputClosed, StatusLine, TimedOut
from celery_gateway.cli.stream_options import DEFAULT_URL, filter_options, token_options, token_reader
from celery_gateway.cli.stream_reader import StreamReader
from celery_gateway.cli.terminal import printable, printable_json
from celery_gateway.events.event import FILTER_FIELDS

TIMED_OUT: Final = 5
"""The exit code when the time of ``--timeout`` has passed."""
_NOT_SHOWN = frozenset({"gateway-open", "gateway-bookmark", "gateway-status"})
_TARGET_FIELDS = frozenset({"uuid", "root_id", "cluster"})

_EPILOG = """\b
Exit codes:
   0  with --until: all tasks succeeded; or the reader closed the output (| head)
   1  with --until: a task failed or was revoked; or another error
   2  wrong options, or the gateway refused a parameter
   3  with --until: a task is lost, because its worker is gone
   4  with --until: the task or workflow is unknown
   5  the time of --timeout has passed
 130  stopped by Ctrl-C

Proxies are taken from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY. Connections to loopback addresses use
no proxy.
"""


@click.command(epilog=_EPILOG)
@click.argument("url", default=DEFAULT_URL)
@filter_options
@click.option(
    "--since", metavar="WHEN", help="Start in the past: 10m for ten minutes ago, a time, or earliest."
)
@click.option("--fields", metavar="NAMES", help="Only these fields of each event; requires --json.")
@click.option(
    "--until",
    type=click.Choice(["ready"]),
    help="End when the task of --uuid, or the workflow of --root-id, is ready; see the exit codes.",
)
@click.option(
    "--quiet-time",
    metavar="SECONDS",
    help="With --until ready and --root-id: how long all known tasks have to be ready, such as 30 or 1m. "
    "Default: 2 s, or 30 s without task-sent events.",
)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=Number(0, min_open=True),
    metavar="SECONDS",
    help="End after this time, with exit code 5.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print messages as they are sent: one JSON object a line.",
)
@token_options
def tail(
    url: str,
    timeout_seconds: float | None,
    as_json: bool,
    token: str | None,
    token_file: Path | None,
    **query: str | tuple[str, ...],
) -> None:
    """Print events live.

    URL is that of the gateway: http://HOST:PORT, https://HOST/PATH or HOST:PORT.

    Filters can be repeated, have several values between commas, use * and ?, and exclude with a leading !.
    A backslash before one of these characters makes it literal: --uuid 'sync:\\*'. If the connection breaks,
    tail reconnects and resumes.

    \b
    Examples:
      celery-gateway tail --name 'shop.*' --name '!shop.internal.*'
      celery-gateway tail --type task-failed,task-retried
      celery-gateway tail gateway.example:8555 --json | jq .name
      celery-gateway tail --until ready --uuid 5a37c0b2-… --timeout 60 && echo paid
    """
    address = parse(url)
    parameters = _parameters(query, as_json)
    read_token = token_reader(token, token_file)
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8
    with StatusLine(timeout_seconds) as status:
        try:
            reader = StreamReader(address, parameters, read_token, status)
            sys.exit(_print(reader, query, as_json, status))
        except TimedOut:
            with status.hidden():
                waiting = f"; still waiting for {status.text}" if status.text else ""
                click.echo(f"--timeout: {timeout_seconds:g} s have passed{waiting}", err=True)
            sys.exit(TIMED_OUT)
        except (BrokenPipeError, OutputClosed):
            # What is left must not be flushed at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parameters(query: dict[str, Any], as_json: bool) -> httpx.QueryParams:
    """Return the parameters of the request.

    Raises:
        UsageError: options exclude each other.
    """
    until, since, fields = query["until"], query["since"], query["fields"]
    narrowing = sorted(name for name in FILTER_FIELDS if query[name] and name not in _TARGET_FIELDS)
    if until and narrowing:
        raise click.UsageError(
            f"--until cannot be combined with --{narrowing[0].replace('_', '-')}: use --uuid or --root-id"
        )
    if until and since:
        raise click.UsageError("--until cannot be combined with --since: the exit code needs all events")
    if fields and not as_json:
        raise click.UsageError("--fields requires --json")
    given = {name: value for name, value in query.items() if value is not None}
    if until:
        given["snapshot"] = "1"
        if fields:
            given["fields"] = f"{fields},uuid,state"
    return httpx.QueryParams({**given, "format": "ndjson"})


def _print(reader: StreamReader, query: dict[str, Any], as_json: bool, status: StatusLine) -> int:
    """Print the messages of a stream to its end; return the exit code."""
    until = query["until"]
    target = query["root_id"] or query["uuid"] if until else ()
    outcome = Outcome(is_workflow=bool(query["root_id"]), target=",".join(target))
    is_terminal = sys.stdout.isatty()
    for text, message in reader.messages():
        outcome.record(message)
        with status.hidden():
            if as_json:
                click.echo(printable_json(text) if is_terminal else text)
            elif line := event_line(message):
                click.echo(line)
            if until:
                for note in outcome.notes(message):
                    click.echo(printable(note), err=True)
        if until:
            status.text = printable(outcome.progress)
        else:
            status.text = _first_event(query) if message["type"] in _NOT_SHOWN else ""
    return outcome.exit_code


def _first_event(query: dict[str, Any]) -> str:
    """Return what is waited for as long as there are no events."""
    wanted = " ".join(f"{name}={','.join(query[name])}" for name in FILTER_FIELDS if query[name])
    return printable(f"events that match {wanted}" if wanted else "events")
