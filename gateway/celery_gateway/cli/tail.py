"""``celery-gateway tail``: the stream for people, and for pipes."""

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
import httpx

from gateway.cli.line import line
from gateway.errors import GatewayError
from gateway.event import FILTER_FIELDS
from gateway.state import STATE_OF_EVENT

DEFAULT_URL = "http://127.0.0.1:8555"
SILENCE_SECONDS = 60.0
"""A stream that says nothing for this long, not even keep-alives, is dead."""
MAX_PAUSE_SECONDS = 15.0
_GOALS = frozenset({"uuid", "root_id", "cluster"})
_EXIT_CODES = {"lost": 3, "unknown": 4}
_TYPES_WITH_STATE = frozenset({*STATE_OF_EVENT, "task-lost", "gateway-snapshot"})
_FINAL_REASONS = frozenset({"ready", *_EXIT_CODES})

_FILTER_HELP = {
    "type": "Only this type of event, such as task-failed.",
    "name": "Only tasks of this name, such as 'shop.*'.",
    "root_id": "Only the workflow that this task began.",
    "parent_id": "Only tasks that this task started.",
    "uuid": "Only this task.",
    "hostname": "Only events from this worker or client.",
    "state": "Only events after which the task is in this state, such as FAILURE.",
    "queue": "Only events of tasks that were sent to this queue.",
    "cluster": "Only events from the broker of this name, where the gateway has several.",
}


def _filter_options(command: Callable[..., None]) -> Callable[..., None]:
    for field in reversed(FILTER_FIELDS):
        flag = f"--{field.replace('_', '-')}"
        command = click.option(flag, field, multiple=True, metavar="VALUE", help=_FILTER_HELP[field])(command)
    return command


@click.command()
@click.argument("url", default=DEFAULT_URL)
@_filter_options
@click.option("--since", metavar="WHEN", help="Begin in the past: 10m, a time, or earliest.")
@click.option("--fields", metavar="NAMES", help="Only these fields of each event, with --json.")
@click.option(
    "--until",
    type=click.Choice(["ready"]),
    help="End when the task of --uuid, or the workflow of --root-id, is ready. Exit codes: 0 it succeeded, "
    "1 it failed or was revoked, 3 it is lost (its worker is gone), 4 nothing is known of it.",
)
@click.option(
    "--quiet-time",
    metavar="SECONDS",
    help="With --until ready and --root-id: wait until all known tasks have been ready for this time, such "
    "as 30 or 1m. Default: 2 s, or 30 s without task-sent events.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as the gateway sends it.")
@click.option(
    "--token",
    envvar="GATEWAY_TOKEN",
    show_envvar=True,
    metavar="TOKEN",
    help="For a proxy in front of the gateway that asks for one (Authorization: Bearer TOKEN).",
)
def tail(
    url: str,
    since: str | None,
    fields: str | None,
    until: str | None,
    quiet_time: str | None,
    as_json: bool,
    token: str | None,
    **filters: tuple[str, ...],
) -> None:
    """Print events as they happen, from the gateway at URL.

    Filters can be repeated, hold several values between commas, use * and ?, and exclude with a leading !.
    A backslash before one of these takes it literally: --uuid 'sync:\\*'. If the connection breaks, tail
    reconnects and resumes.

    \b
    Examples:
      celery-gateway tail --name 'shop.*' --name '!shop.internal.*'
      celery-gateway tail --type task-failed,task-retried
      celery-gateway tail http://gateway.example:8555 --json | jq .name
      celery-gateway tail --until ready --uuid 5a37c0b2-… && echo paid
    """
    if "?" in url:
        raise click.UsageError(f"{url!r} has a query: give the gateway's address, and the rest as options")
    if until and (narrowed := sorted(name for name in filters if filters[name] and name not in _GOALS)):
        raise click.UsageError(f"--until goes with --uuid or --root-id alone, not with --{narrowed[0]}")
    if until and since:
        raise click.UsageError(
            "--until does not go with --since: the exit code needs the state from the start"
        )
    if fields and not as_json:
        raise click.UsageError("--fields goes with --json")
    if fields and until:
        fields += ",uuid,state"
    asked = {
        "since": since,
        "fields": fields,
        "until": until,
        "quiet_time": quiet_time,
        "snapshot": "1" if until else None,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    parameters = httpx.QueryParams({**filters, **given, "format": "ndjson"})
    outcome = Outcome(is_workflow=bool(filters["root_id"]))
    try:
        for text, event in _messages(f"{url.rstrip('/')}/events", parameters, token):
            outcome.take(event)
            if as_json:
                click.echo(text)
            elif shown := line(event):
                click.echo(shown)
            if until and (note := outcome.note_on(event)):
                click.echo(note, err=True)
        sys.exit(outcome.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read us has gone (| head). What is left must not be flushed to them at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Outcome:
    """How what a stream waits for has ended: the states of its tasks, and the stream's own last message."""

    def __init__(self, is_workflow: bool = False) -> None:
        self._is_workflow = is_workflow
        self._states: dict[tuple[str, str], str] = {}
        self._reason = "ready"

    def take(self, message: dict[str, Any]) -> None:
        """Take note of a message of the stream."""
        if message["type"] == "gateway-close":
            self._reason = message["reason"]
        for task in message["tasks"] if message["type"] == "gateway-snapshot" else [message]:
            is_own = message["type"] in _TYPES_WITH_STATE  # an application's own may bring any state
            if is_own and task.get("uuid") and task.get("state"):
                self._states[str(task.get("cluster")), str(task["uuid"])] = task["state"]

    def note_on(self, message: dict[str, Any]) -> str | None:
        """Return what people should know of the waiting."""
        if message["type"] == "gateway-snapshot" and message["done"] and not self._states:
            return "no events of it yet; waiting for the first one"
        if message["type"] != "gateway-close":
            return None
        if message["reason"] == "lost":
            return "lost: the worker that had it is gone"
        if message["reason"] == "unknown":
            return f"ended: {message['message']}"
        if self._is_workflow and message["reason"] == "ready" and not message.get("sent_events", True):
            return (
                f"ready: {message['ready']} of {message['known']} known tasks; task-sent events are off, so "
                "a task that waits in a queue cannot be seen (set task_send_sent_event = True, or a longer "
                "--quiet-time)"
            )
        return None

    @property
    def exit_code(self) -> int:
        """0: all succeeded. 1: some did not. 3: lost. 4: unknown."""
        if self._reason in _EXIT_CODES:
            return _EXIT_CODES[self._reason]
        return 0 if set(self._states.values()) == {"SUCCESS"} else 1


def _messages(
    url: str, parameters: httpx.QueryParams, token: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each line of the stream as it came and decoded; reconnect until it has ended, once it was there.

    Raises:
        GatewayError: it could not be had at all, or it was refused.
    """
    last_id: str | None = None
    pause_seconds = 0.5
    timeout = httpx.Timeout(10.0, read=SILENCE_SECONDS)
    authorization = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(timeout=timeout, headers=authorization) as client:
        while True:
            try:
                headers = {"Last-Event-ID": last_id} if last_id else {}
                with client.stream("GET", url, params=parameters, headers=headers) as response:
                    if response.status_code >= 500 and last_id:
                        raise httpx.ConnectError(f"answered {response.status_code}")
                    if response.status_code == 204:
                        return  # the end was seen already
                    _check(response)
                    pause_seconds = 0.5
                    for text in _lines(response):
                        message = json.loads(text)
                        last_id = message["id"]
                        yield text, message
                        if message["type"] == "gateway-close" and message["reason"] in _FINAL_REASONS:
                            return
                why = "the stream ended"
            except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                raise click.UsageError(f"{url} is no URL of a gateway: {error}") from None
            except (httpx.TransportError, json.JSONDecodeError) as error:
                if last_id is None:
                    raise GatewayError(
                        f"cannot reach {url}: {error}. Is the gateway running? (celery-gateway serve)"
                    ) from None
                why = str(error) or type(error).__name__
            click.echo(f"{why}; connecting again", err=True)
            time.sleep(pause_seconds * random.uniform(0.5, 1.0))
            pause_seconds = min(pause_seconds * 2, MAX_PAUSE_SECONDS)


def _lines(response: httpx.Response) -> Iterator[str]:
    """Yield NDJSON lines. (``response.iter_lines`` also splits at U+2028 and its like inside a string.)"""
    rest = b""
    for chunk in response.iter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for text in lines:
            yield text.decode()


def _check(response: httpx.Response) -> None:
    if response.status_code == 200 and "ndjson" in response.headers.get("content-type", ""):
        return
    response.read()
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"{response.url} answered {response.status_code}, which is no stream of a gateway"
    if response.status_code == 400:
        raise click.UsageError(message)
    raise GatewayError(message)
