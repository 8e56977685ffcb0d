"""``celery-gateway demo``: a gateway and a cluster to look at, in one process."""

import logging

import click

from gateway.cli.options import listening
from gateway.settings import Settings


@click.command()
@listening
def demo(host: str, port: int) -> None:
    """See it work: a gateway, a real Celery worker and an in-memory broker, in this one process.

    \b
    Examples:
      celery-gateway demo
      celery-gateway demo --port 9000
    """
    from gateway.demo.cluster import Cluster
    from gateway.server import serve

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    cluster = Cluster()

    def start(url: str) -> None:
        cluster.start()
        click.echo(
            f"Celery Gateway demo: a real worker on an in-memory broker, until Ctrl-C.\n\n"
            f"  Open    {url}/\n\n"
            f"  Paste   curl -N '{url}/events?name=shop.*'\n"
            f"          curl -N '{url}/events?format=ndjson&type=task-failed,task-retried'\n"
        )

    try:
        serve(Settings(broker="memory://localhost", host=host, port=port), start)
    finally:
        cluster.stop()
