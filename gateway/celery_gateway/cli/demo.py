"""``celery-gateway demo``: a gateway, a broker and a worker in one process."""

import logging
import sys
from typing import Any

import click

from celery_gateway.cli.options import LISTENING, with_options
from celery_gateway.http.interrupt import EXIT_CODE
from celery_gateway.settings import Settings


@click.command()
@with_options(LISTENING)
def demo(**options: Any) -> None:
    """Try it: a gateway, a Celery worker and an in-memory broker in one process.

    \b
    Examples:
      celery-gateway demo
      celery-gateway demo --port 9000
      celery-gateway demo --allow-origin http://localhost:8000
    """
    from celery_gateway.asgi import Gateway
    from celery_gateway.demo.cluster import Cluster
    from celery_gateway.http.listener import UnprotectedAddress
    from celery_gateway.http.server import serve

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    cluster = Cluster()

    def start(url: str) -> None:
        cluster.start()
        click.echo(
            f"Celery Gateway demo: a real worker on an in-memory broker. Stop it with Ctrl-C.\n\n"
            f"  Open    {url}/\n\n"
            f"  Paste   curl -N '{url}/events?name=shop.*'\n"
            f"          curl -N '{url}/events?format=ndjson&type=task-failed,task-retried'\n"
        )
        if settings.insecure:
            click.echo("Warning: --insecure: everyone who can connect to the port can read it", err=True)

    settings = Settings(broker="memory://localhost", **options)
    try:
        is_interrupted = serve(Gateway(settings), settings, start)
    except UnprotectedAddress:
        raise click.UsageError(
            f"refused to listen on {settings.host}: other machines can reach this address. The demo has no "
            "authentication: use --host 127.0.0.1, or --insecure to listen all the same"
        ) from None
    finally:
        cluster.stop()
    if is_interrupted:
        sys.exit(EXIT_CODE)
