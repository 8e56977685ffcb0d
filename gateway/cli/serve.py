"""``celery-gateway serve``."""

import logging
import tomllib
from pathlib import Path
from typing import Any

import click

from gateway import __version__
from gateway.cli.options import consuming, listening
from gateway.settings import DEFAULTS, Settings

log = logging.getLogger("gateway")


def _load_config(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Make a TOML file's values the defaults of the other options."""
    if path is None:
        return
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


def _check_root_path(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value and not value.startswith("/"):
        raise click.BadParameter(f"{value!r} must begin with a slash, such as /celery", param=parameter)
    return value.rstrip("/")


@click.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_load_config,
    envvar="GATEWAY_CONFIG",
    help="A TOML file with any of these settings, such as: port = 9000",
)
@consuming
@click.option(
    "--control/--no-control",
    default=DEFAULTS.control,
    show_default=True,
    envvar="GATEWAY_CONTROL",
    help="Talk to workers: switch on the task events of those that send none, and ask for the names of "
    "tasks that are under way. Never anything that changes a task.",
)
@listening
@click.option(
    "--root-path",
    metavar="PATH",
    default=DEFAULTS.root_path,
    callback=_check_root_path,
    envvar="GATEWAY_ROOT_PATH",
    help="The sub-path behind a proxy, such as /celery, whether the proxy strips it or not.",
)
@click.option(
    "--allow-origin",
    "allow_origins",
    metavar="ORIGIN",
    multiple=True,
    envvar="GATEWAY_ALLOW_ORIGIN",
    help="A web site whose pages may read the streams, such as https://shop.example; repeat for more.",
)
@click.option(
    "--keepalive",
    "keepalive_seconds",
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    default=DEFAULTS.keepalive_seconds,
    show_default=True,
    envvar="GATEWAY_KEEPALIVE",
    help="About how long a stream may be silent.",
)
@click.option(
    "--slow-timeout",
    "slow_seconds",
    type=click.FloatRange(0.1, 86_400),
    metavar="SECONDS",
    default=DEFAULTS.slow_seconds,
    show_default=True,
    envvar="GATEWAY_SLOW_TIMEOUT",
    help="How long a client may read nothing before its stream is ended.",
)
@click.option(
    "--history-bytes",
    type=click.IntRange(1),
    default=DEFAULTS.history_bytes,
    show_default=True,
    envvar="GATEWAY_HISTORY_BYTES",
    help="How much of the stream is kept for clients that fall behind or come back.",
)
@click.option(
    "--max-tasks",
    type=click.IntRange(1),
    default=DEFAULTS.max_tasks,
    show_default=True,
    envvar="GATEWAY_MAX_TASKS",
    help="How many tasks are remembered, to give their events names.",
)
def serve(**options: Any) -> None:
    """Consume the broker's events and serve them over HTTP.

    Each option can also be given in the environment, as GATEWAY_PORT for --port, or in a TOML file
    (--config). The command line goes before the environment, and that before the file.

    \b
    Examples:
      celery-gateway serve --broker amqp://guest:guest@localhost:5672//
      celery-gateway serve --broker redis://localhost:6379/0 --port 9000
      GATEWAY_HOST=0.0.0.0 celery-gateway serve --config gateway.toml --root-path /celery
    """
    from gateway.server import serve as run  # not for --help and tail: it loads the whole server

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    log.setLevel(logging.INFO)
    for library in ("aio_pika", "aiormq"):  # the source says itself what they would, with what follows
        logging.getLogger(library).setLevel(logging.CRITICAL)

    def announce(url: str) -> None:
        log.info("celery-gateway %s: listening on %s; try: curl -N %s/events", __version__, url, url)

    run(Settings(**options), announce)
