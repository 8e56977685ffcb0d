"""The commands of ``celery-gateway``."""

import os

import click

from celery_gateway import __version__
from celery_gateway.cli.check import check
from celery_gateway.cli.demo import demo
from celery_gateway.cli.environment import variable_warnings, variables
from celery_gateway.cli.log import log
from celery_gateway.cli.record import record
from celery_gateway.cli.replay import replay
from celery_gateway.cli.serve import serve
from celery_gateway.cli.tail import tail
from celery_gateway.cli.token import token
from celery_gateway.cli.top import top
from celery_gateway.http.interrupt import raise_on_ctrl_c


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="celery-gateway")
@click.pass_context
def cli(context: click.Context) -> None:
    """Stream Celery's events live: to browsers, services and curl.

    \b
    Examples:
      celery-gateway demo
      celery-gateway serve --broker amqp://guest:guest@localhost:5672//
      celery-gateway tail --name 'shop.*'
      celery-gateway top
      celery-gateway record out.ndjson.zst
      celery-gateway replay out.ndjson.zst
      celery-gateway check --broker amqp://guest:guest@localhost:5672//
    """
    command = cli.commands.get(context.invoked_subcommand or "")
    if command is None:
        return
    for warning in variable_warnings(os.environ, variables(cli), variables(command)):
        click.echo(f"Warning: {warning}", err=True)
    if command in (check, top):
        raise_on_ctrl_c()  # the check removes its queues from the broker, top restores the terminal


cli.add_command(serve)
cli.add_command(tail)
cli.add_command(top)
cli.add_command(record)
cli.add_command(replay)
cli.add_command(check)
cli.add_command(log)
cli.add_command(demo)
cli.add_command(token)
