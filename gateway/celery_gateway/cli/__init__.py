"""The command lines: ``celery-gateway serve|tail|check|demo`` and ``celery -A proj gateway``.

Exit codes: 0 done, 1 something failed, 2 the call was wrong, 130 ended with Ctrl-C; ``check`` has more.
"""

import sys


def main() -> None:
    """Run ``celery-gateway``, and exit with its code."""
    # Not above: each of Celery's commands imports this package, on its way to gateway.cli.app.
    import click

    from gateway.cli.group import cli
    from gateway.errors import GatewayError

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
