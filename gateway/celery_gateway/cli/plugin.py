"""The entry point of ``celery -A proj gateway``, which Celery imports with each of its commands.

Therefore it imports click only, and the command when it is called.
"""

from typing import Any

import click


class _Lazy(click.Command):
    """Imports the command when click calls ``make_context``, which parses the arguments."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            from celery_gateway.cli.app import gateway as command
        except Exception as error:  # modules of other packages may raise anything
            raise click.ClickException(
                f"celery gateway cannot start: importing celery-gateway failed with {type(error).__name__}: "
                f"{error}. Install it again: pip install --force-reinstall celery-gateway"
            ) from None
        context: click.Context = command.make_context(info_name, args, parent, **extra)
        return context


gateway = _Lazy(
    "gateway", help="Stream the app's events live: to browsers, services and curl.", add_help_option=False
)
