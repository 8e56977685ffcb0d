"""Options that more than one command has."""

from collections.abc import Callable

import click

from gateway.settings import DEFAULTS

_Command = Callable[..., None]


def consuming(command: _Command) -> _Command:
    """Give a command the options ``--broker`` (repeated) and ``--exchange``."""
    default = DEFAULTS.broker
    broker = click.option(
        "--broker",
        metavar="URL|NAME=URL",
        multiple=True,
        default=[default] if isinstance(default, str) else default,
        show_default=True,
        envvar=["GATEWAY_BROKER", "CELERY_BROKER_URL"],
        show_envvar=True,
        help="The broker that the workers use, as Celery takes it. Repeat it, or put commas between, for "
        "more addresses to turn to; with names (eu=amqp://…) they are brokers side by side, and events carry "
        "the name as their cluster.",
    )
    exchange = click.option(
        "--exchange",
        metavar="NAME",
        default=DEFAULTS.exchange,
        show_default=True,
        envvar="GATEWAY_EXCHANGE",
        help="Celery's event_exchange.",
    )
    return broker(exchange(command))


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
