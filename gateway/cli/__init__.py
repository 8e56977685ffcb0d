"""The command line: ``celery-gateway serve|tail|check|demo``.

Exit codes: 0 done, 1 something failed, 2 the call was wrong, 130 ended with Ctrl-C; ``check`` has more.
"""

import sys

import click

from gateway import __version__
from gateway.cli.check import check
from gateway.cli.demo import demo
from gateway.cli.serve import serve
from gateway.cli.tail import tail
from gateway.errors import GatewayError


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


def main() -> None:
    """Run the command line, and exit with its code."""
    try:
        cli.main(prog_name="celery-gateway", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except GatewayError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except click.Abort:
        sys.exit(130)
