"""Options that more than one command has."""

from collections.abc import Callable

import click

from gateway.settings import DEFAULTS

_Command = Callable[..., None]


def listening(command: _Command) -> _Command:
    """Give a command the options ``--host`` and ``--port``."""
    host = click.option(
        "--host",
        metavar="ADDRESS",
        default=DEFAULTS.host,
        show_default=True,
        envvar="GATEWAY_HOST",
        help="The address to listen on; 0.0.0.0 for all. Whoever can reach it can read the events.",
    )
    port = click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=DEFAULTS.port,
        show_default=True,
        envvar="GATEWAY_PORT",
        help="The port to listen on; 0 for any that is free.",
    )
    return host(port(command))
