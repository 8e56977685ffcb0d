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

DEFAULT_URL = "http://127.0.0.1:8555"
SILENCE_SECONDS = 60.0
"""A stream that says nothing for this long, not even keep-alives, is dead."""
MAX_PAUSE_SECONDS = 15.0
_GOALS = frozenset({"uuid", "root_id", "cluster"})

_FILTER_HELP = {
    "type": "Only this type of event, such as task-failed.",
    "name": "Only tasks of this name, such as 'shop.*'.",
    "root_id": "Only the workflow that this task began.",
    "parent_id": "Only tasks that this task started.",
    "uuid": "Only this task.",
    "hostname": "Only events from this worker or client.",
    "state": "Only events after which the task is in this state, such as FAILURE.",
    "queue": "Only events that name this queue (task-sent does).",
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
    help="End when the task of --uuid, or the workflow of --root-id, is ready: with exit code 0 if it "
    "succeeded, 1 if not.",
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
    as_json: bool,
    token: str | None,
    **filters: tuple[str, ...],
) -> None:
    """Print events as they happen, from the gateway at URL.

    Filters can be repeated, hold several values between commas, use * and ?, and exclude with a leading !.
    If the connection breaks it is made again, and goes on where it ended.

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
    if fields and not as_json:
        raise click.UsageError("--fields goes with --json")
    if fields and until:
        fields += ",uuid,state"
    asked = {
        "since": since,
        "fields": fields,
        "until": until,
        "snapshot": "1" if until and not since else None,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    parameters = httpx.QueryParams({**filters, **given, "format": "ndjson"})
    outcome = Outcome()
    try:
        for text, event in _messages(f"{url.rstrip('/')}/events", parameters, token):
            outcome.take(event)
            if as_json:
                click.echo(text)
            elif shown := line(event):
                click.echo(shown)
        sys.exit(0 if outcome.is_success else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read us has gone (| head). What is left must not be flushed to them at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Outcome:
    """The states of the tasks that a stream has told of."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}

    def take(self, message: dict[str, Any]) -> None:
        for task in message["tasks"] if message["type"] == "gateway-snapshot" else [message]:
            if task.get("uuid") and task.get("state"):
                self._states[task["uuid"]] = task["state"]

    @property
    def is_success(self) -> bool:
        return set(self._states.values()) == {"SUCCESS"}


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
                        if message["type"] == "gateway-close" and message["reason"] == "ready":
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
