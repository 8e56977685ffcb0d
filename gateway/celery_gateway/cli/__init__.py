"""The command lines: ``celery-gateway COMMAND`` (see ``group``) and ``celery -A proj gateway``.

Exit codes: 0 success, 1 an error, 2 wrong options, 130 stopped by Ctrl-C; ``tail`` and ``check`` have more
(docs/commands.md).
"""

import sys


def main() -> None:
    """Run ``celery-gateway`` and exit.

    Raises:
        SystemExit: always, with the exit code.
    """
    from celery_gateway.http.interrupt import EXIT_CODE, exit_now, exit_on_ctrl_c

    exit_on_ctrl_c()  # first, since the imports below take time
    import click

    from celery_gateway.cli.group import cli
    from celery_gateway.errors import GatewayError

    code: object = 0
    try:
        cli.main(prog_name="celery-gateway", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except GatewayError as error:
        click.echo(f"Error: {error}", err=True)
        code = 1
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_CODE
    except SystemExit as error:
        code = error.code
    if code == EXIT_CODE:
        exit_now()  # without an exception: a second Ctrl-C would interrupt Python at exit
    sys.exit(code)  # type: ignore[arg-type]  # the type of SystemExit.code
