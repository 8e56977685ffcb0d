"""The commands of ``celery-gateway``."""

import click

from gateway import __version__
from gateway.cli.check import check
from gateway.cli.demo import demo
from gateway.cli.serve import serve
from gateway.cli.tail import tail


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="celery-gateway")
def cli() -> None:
    """Stream Celery's events live: to browsers, services and curl.

    \b
    Examples:
      celery-gateway demo
      celery-gateway serve --broker amqp://guest:guest@localhost:5672//
      celery-gateway tail --name 'shop.*'
      celery-gateway check --broker amqp://guest:guest@localhost:5672//
    """


cli.add_command(serve)
cli.add_command(tail)
cli.add_command(check)
cli.add_command(demo)
