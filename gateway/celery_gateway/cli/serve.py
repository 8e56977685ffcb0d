"""``celery-gateway serve``."""

import ipaddress
import logging
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import click

from celery_gateway import __version__
from celery_gateway.cli.options import with_all_options
from celery_gateway.http.interrupt import EXIT_CODE, exit_on_ctrl_c
from celery_gateway.settings import Settings

_EPILOG = """\b
Exit codes:
   0  stopped by SIGTERM
   1  it could not start: the address or the URL of the broker cannot be used
   2  wrong options
 130  stopped by Ctrl-C
"""


@click.command(epilog=_EPILOG)
@with_all_options()
def serve(**options: Any) -> None:
    """Consume the broker's events and serve them over HTTP.

    Each option is also an environment variable, such as GATEWAY_PORT for --port, and a key of the TOML
    file of --config. The command line has precedence over the environment, and the environment over the file.

    Ctrl-C and SIGTERM close the streams in order, which takes at most 4 seconds. A second signal stops the
    gateway at once.

    \b
    Examples:
      celery-gateway serve --broker amqp://guest:guest@localhost:5672//
      celery-gateway serve --broker redis://localhost:6379/0 --port 9000
      GATEWAY_HOST=0.0.0.0 celery-gateway serve --config gateway.toml --root-path /celery
    """
    run(Settings(**options))


def run(settings: Settings, warnings: Sequence[str] = ()) -> None:
    """Run a gateway until it is stopped.

    Args:
        settings: of the gateway.
        warnings: logged before the gateway starts.

    Raises:
        GatewayError: the address cannot be listened on, or the URL of the broker cannot be used.
        SystemExit: the gateway was stopped by Ctrl-C.
    """
    exit_on_ctrl_c()
    # Imported here, since they load the whole server, which --help and tail do not need.
    from celery_gateway.asgi import Gateway
    from celery_gateway.http.server import serve as run_server

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    # Not a logger of the module: Celery imports it before the app, and an app that configures logging
    # (such as Django's) disables all loggers that exist by then.
    log = logging.getLogger("celery_gateway")
    log.setLevel(logging.INFO)
    for library in ("aio_pika", "aiormq"):  # the source logs the same errors itself, with the fix
        logging.getLogger(library).setLevel(logging.CRITICAL)
    for warning in warnings:
        log.warning(warning)

    def announce(url: str) -> None:
        log.info(
            "celery-gateway %s: listening on %s; %s; try: curl -N %s/events",
            __version__,
            url,
            _described(settings),
            url,
        )
        if warning := beyond_loopback(url):
            log.warning(warning)

    if run_server(Gateway(settings), settings, announce):
        sys.exit(EXIT_CODE)


def beyond_loopback(url: str) -> str | None:
    """Return a warning if other machines can reach the address that a gateway listens on.

    >>> beyond_loopback("http://127.0.0.1:8555") is None
    True
    """
    host = urlsplit(url).hostname or ""
    if ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        return None
    return (
        f"{host} is not a loopback address: everybody who can reach the port can read all events, because "
        "there is no authentication. Use --host 127.0.0.1, or a proxy that requires a token (deploy/nginx)"
    )


def _described(settings: Settings) -> str:
    """Return the brokers of the settings as text, with their vhosts and without passwords."""
    from celery_gateway.broker.address import address_of
    from celery_gateway.broker.urls import Access, brokers

    texts = []
    for broker in brokers(settings.broker, Access(transport_options=settings.transport_options)):
        for url in broker.urls:
            address = address_of(url)
            if address.is_amqp or address.is_redis:
                kind = "vhost" if address.is_amqp else "database"
                text = f"{address.host_and_port}, {kind} {address.vhost!r}"
            else:
                text = f"{address.scheme}://{address.host_and_port}"
            texts.append(f"{broker.name}: {text}" if broker.name else text)
    return f"broker {' or '.join(texts)}" if len(texts) < 2 else f"brokers {'; '.join(texts)}"
