"""The options of the commands that read a stream of a gateway: its filter, and the token."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import click
from click.core import ParameterSource

from celery_gateway.errors import GatewayError
from celery_gateway.events.event import FILTER_FIELDS

Command = Callable[..., None]

DEFAULT_URL: Final = "http://127.0.0.1:8555"
_FILTER_HELP = {
    "type": "Only events of this type, such as task-failed.",
    "name": "Only tasks with this name, such as 'shop.*'.",
    "root_id": "Only the workflow whose root task has this id.",
    "parent_id": "Only tasks that the task with this id has started.",
    "uuid": "Only the task with this id.",
    "hostname": "Only events from this worker or client.",
    "state": "Only events after which the task is in this state, such as FAILURE.",
    "queue": "Only events of tasks that were sent to this queue.",
    "cluster": "Only events from the broker with this name, if the gateway has several.",
}


def filter_options(command: Command) -> Command:
    """Add an option for each field of filters."""
    for field in reversed(FILTER_FIELDS):
        flag = f"--{field.replace('_', '-')}"
        command = click.option(flag, field, multiple=True, metavar="VALUE", help=_FILTER_HELP[field])(command)
    return command


_token = click.option(
    "--token",
    envvar="GATEWAY_TOKEN",
    show_envvar=True,
    metavar="TOKEN",
    help="Bearer token (Authorization: Bearer TOKEN). Other users can see it in the list of processes; "
    "the variable and --token-file are safer.",
)
_token_file = click.option(
    "--token-file",
    envvar="GATEWAY_TOKEN_FILE",
    show_envvar=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the bearer token. It is read again for each connection, so the token can be renewed.",
)


def token_options(command: Command) -> Command:
    """Add the options ``--token`` and ``--token-file``."""
    return _token(_token_file(command))


def token_reader(token: str | None, token_file: Path | None) -> Callable[[], str | None]:
    """Return a function that returns the token of the options of the current command.

    An option has precedence over a variable, and a file over a token. The function raises ``GatewayError`` if
    the file cannot be read.
    """
    sources = click.get_current_context().get_parameter_source
    is_option = {name: sources(name) is ParameterSource.COMMANDLINE for name in ("token", "token_file")}
    if token_file is None or (is_option["token"] and not is_option["token_file"]):
        return lambda: token
    return partial(_read_token, token_file)


def _read_token(file: Path) -> str:
    """Return the token in a file.

    Raises:
        GatewayError: the file cannot be read, or is not text.
    """
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise GatewayError(f"cannot read the token file {file}: {reason}") from None
