"""``celery-gateway demo``: a gateway and a cluster to look at, in one process."""

import logging

import click

from gateway.cli.options import listening
from gateway.settings import Settings


@click.command()
@listening
def demo(host: str, port: int, allow_origins: tuple[str, ...]) -> None:
    """See it work: a gateway, a real Celery worker and an in-memory broker, in this one process.

    \b
    Examples:
      celery-gateway demo
      celery-gateway demo --port 9000
      celery-gateway demo --allow-origin http://localhost:8000
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
        broker = "memory://localhost"
        serve(Settings(broker=broker, host=host, port=port, allow_origins=allow_origins), start)
    finally:
        cluster.stop()
