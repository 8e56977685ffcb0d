"""Options that more than one command has. Light: Celery loads them with each of its own commands."""

import re
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path

import click

from gateway.settings import DEFAULTS

_Command = Callable[..., None]
_OF_APP = "the app's"
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/?#,\s]+", re.IGNORECASE)


def _load_config(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Make a TOML file's values the defaults of the other options."""
    if path is None:
        return
    import tomllib

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.BadParameter(f"{path}: {error}", param=parameter) from None
    options = {option.name: option for option in context.command.params}
    names = options.keys() - {"config", "help"}
    flags = {flag.lstrip("-"): option.name for option in options.values() for flag in option.opts}
    flags = {flag: name for flag, name in flags.items() if name in names}
    if unknown := sorted(values.keys() - flags.keys() - {flag.replace("-", "_") for flag in flags} - names):
        raise click.BadParameter(
            f"{path}: unknown setting {unknown[0]!r}; there are {', '.join(sorted(flags))}", param=parameter
        )
    by_flag = {flag.replace("-", "_"): name for flag, name in flags.items()}
    defaults = {by_flag.get(key.replace("-", "_"), key): value for key, value in values.items()}
    for name, value in defaults.items():
        if isinstance(value, str) and getattr(options[name], "multiple", False):
            defaults[name] = [value]
    context.default_map = defaults


def _check_origins(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    for value in values:
        if not _ORIGIN.fullmatch(value):
            raise click.BadParameter(
                f"{value!r} is no origin: scheme://host or scheme://host:port; repeat the option for more",
                param=parameter,
            )
    return values


def _check_root_path(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value and not value.startswith("/"):
        raise click.BadParameter(f"{value!r} must begin with a slash, such as /celery", param=parameter)
    return value.rstrip("/")


def consuming(command: _Command, *, of_app: bool = False) -> _Command:
    """Give a command the options ``--broker`` (repeated) and ``--exchange``.

    With ``of_app`` they have no defaults, ``()`` and ``None``: a Celery app stands behind them, and reads
    Celery's own environment variable.
    """
    default = DEFAULTS.broker
    broker = click.option(
        "--broker",
        metavar="URL|NAME=URL",
        multiple=True,
        default=None if of_app else [default] if isinstance(default, str) else default,
        show_default=_OF_APP if of_app else True,
        envvar="GATEWAY_BROKER" if of_app else ["GATEWAY_BROKER", "CELERY_BROKER_URL"],
        show_envvar=True,
        help="The broker that the workers use, as Celery takes it. Repeat it, or put commas between, for "
        "more addresses to turn to; with names (eu=amqp://…) they are brokers side by side, and events carry "
        "the name as their cluster.",
    )
    exchange = click.option(
        "--exchange",
        metavar="NAME",
        default=None if of_app else DEFAULTS.exchange,
        show_default=_OF_APP if of_app else True,
        envvar="GATEWAY_EXCHANGE",
        help="Celery's event_exchange.",
    )
    return broker(exchange(command))


def listening(command: _Command) -> _Command:
    """Give a command the options ``--host``, ``--port`` and ``--allow-origin`` (repeated)."""
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
    allow_origin = click.option(
        "--allow-origin",
        "allow_origins",
        metavar="ORIGIN",
        multiple=True,
        callback=_check_origins,
        envvar="GATEWAY_ALLOW_ORIGIN",
        help="A web site whose pages may read the streams, such as https://shop.example, or * for all; "
        "repeat it for more (in the environment: spaces between).",
    )
    return host(port(allow_origin(command)))


def serving(command: _Command, *, of_app: bool = False) -> _Command:
    """Give a command all that a gateway can be told; ``of_app`` as for ``consuming``."""
    config = click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_load_config,
        envvar="GATEWAY_CONFIG",
        help="A TOML file with any of these settings, such as: port = 9000",
    )
    control = click.option(
        "--control/--no-control",
        default=DEFAULTS.control,
        show_default=True,
        envvar="GATEWAY_CONTROL",
        help="Talk to workers: switch on the task events of those that send none, and ask for the names of "
        "tasks that are under way. Never anything that changes a task.",
    )
    root_path = click.option(
        "--root-path",
        metavar="PATH",
        default=DEFAULTS.root_path,
        callback=_check_root_path,
        envvar="GATEWAY_ROOT_PATH",
        help="The sub-path behind a proxy, such as /celery, whether the proxy strips it or not.",
    )
    keepalive = click.option(
        "--keepalive",
        "keepalive_seconds",
        type=click.FloatRange(0.1),
        metavar="SECONDS",
        default=DEFAULTS.keepalive_seconds,
        show_default=True,
        envvar="GATEWAY_KEEPALIVE",
        help="About how long a stream may be silent.",
    )
    slow_timeout = click.option(
        "--slow-timeout",
        "slow_seconds",
        type=click.FloatRange(0.1, 86_400),
        metavar="SECONDS",
        default=DEFAULTS.slow_seconds,
        show_default=True,
        envvar="GATEWAY_SLOW_TIMEOUT",
        help="How long a client may read nothing before its stream is ended.",
    )
    history_bytes = click.option(
        "--history-bytes",
        type=click.IntRange(1),
        default=DEFAULTS.history_bytes,
        show_default=True,
        envvar="GATEWAY_HISTORY_BYTES",
        help="How much of the stream is kept for clients that fall behind or come back.",
    )
    max_tasks = click.option(
        "--max-tasks",
        type=click.IntRange(1),
        default=DEFAULTS.max_tasks,
        show_default=True,
        envvar="GATEWAY_MAX_TASKS",
        help="How many tasks are remembered, to give their events names.",
    )
    worker_timeout = click.option(
        "--worker-timeout",
        "worker_timeout_seconds",
        type=click.FloatRange(1.0),
        metavar="SECONDS",
        default=DEFAULTS.worker_timeout_seconds,
        show_default=True,
        envvar="GATEWAY_WORKER_TIMEOUT",
        help="Silence after which the gateway treats a worker as dead and its tasks as lost.",
    )
    lost_grace = click.option(
        "--lost-grace",
        "lost_grace_seconds",
        type=click.FloatRange(0.0),
        metavar="SECONDS",
        default=DEFAULTS.lost_grace_seconds,
        show_default=True,
        envvar="GATEWAY_LOST_GRACE",
        help="How long after the loss of a task a stream with until=ready ends. A task that is acknowledged "
        "late may be delivered again until then.",
    )
    wait_known = click.option(
        "--wait-known",
        "wait_known_seconds",
        type=click.FloatRange(0.0),
        metavar="SECONDS",
        default=DEFAULTS.wait_known_seconds,
        show_default=True,
        envvar="GATEWAY_WAIT_KNOWN",
        help="How long a stream with until=ready waits for a task or workflow that is not known.",
    )
    of_brokers = partial(consuming, of_app=of_app)
    of_streams = (root_path, keepalive, slow_timeout, history_bytes, max_tasks)
    of_state = (worker_timeout, lost_grace, wait_known)
    given = (config, of_brokers, control, listening, *of_streams, *of_state)
    return reduce(lambda wrapped, option: option(wrapped), reversed(given), command)
