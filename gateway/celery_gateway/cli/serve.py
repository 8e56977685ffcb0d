"""``celery-gateway serve``."""

import logging
from collections.abc import Sequence
from typing import Any

import click

from gateway import __version__
from gateway.cli.options import serving
from gateway.settings import Settings


@click.command()
@serving
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
    run(Settings(**options))


def run(settings: Settings, cautions: Sequence[str] = ()) -> None:
    """Run a gateway until it is told to stop; ``cautions`` are logged before it starts.

    Raises:
        GatewayError: the address cannot be listened on, or the broker's URL cannot be used.
    """
    from gateway.server import serve as run_server  # not for --help and tail: it loads the whole server

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    # Not of the module, which Celery loads before the app: one that configures logging (Django's, for one)
    # switches off all loggers that are there by then.
    log = logging.getLogger("gateway")
    log.setLevel(logging.INFO)
    for library in ("aio_pika", "aiormq"):  # the source says itself what they would, with what follows
        logging.getLogger(library).setLevel(logging.CRITICAL)
    for caution in cautions:
        log.warning(caution)

    def announce(url: str) -> None:
        log.info("celery-gateway %s: listening on %s; try: curl -N %s/events", __version__, url, url)

    run_server(settings, announce)
