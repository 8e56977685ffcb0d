"""``celery-gateway token``: make, list and remove static tokens, and sign a JSON Web Token for a try."""

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from celery_gateway.cli.options import Number
from celery_gateway.errors import GatewayError

_FILTER_HELP: Final = {
    "uuid": "Only the task with this ID.",
    "root_id": "Only the workflow whose root task has this ID.",
    "name": "Only tasks with this name, such as 'shop.*'.",
    "queue": "Only tasks that were sent to this queue.",
}
_SECONDS: Final = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"(\d{1,6})([mhdw])")
_MAX_NAME_CHARS: Final = 100
_EPILOG: Final = """\b
Exit codes:
   0  done
   1  an error: the file is malformed, or the name exists, or does not exist
   2  wrong options
"""

_auth = click.option(
    "--auth",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    envvar="GATEWAY_AUTH",
    show_envvar=True,
    help="The TOML file of --auth of the gateway.",
)


@click.group()
def token() -> None:
    """Make, list and remove the tokens of clients, and sign one for a try.

    \b
    Examples:
      celery-gateway token create grafana --auth auth.toml --may metrics
      celery-gateway token list --auth auth.toml
      celery-gateway token remove grafana --auth auth.toml
      celery-gateway token sign --secret-file shop.secret --issuer https://shop.example --root-id 5a37c0b2-…
    """


def _scope_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a scope: a filter, or several, and ``--may`` and ``--hide``."""
    options = [
        click.option(f"--{field.replace('_', '-')}", field, multiple=True, metavar="VALUE", help=text)
        for field, text in _FILTER_HELP.items()
    ]
    options += [
        click.option(
            "--any",
            "any_filters",
            metavar="JSON",
            help="Instead of these, a list of filters; a task is visible if it passes one of them: "
            '\'[{"name": ["shop.*"]}, {"queue": ["mail"]}]\'.',
        ),
        click.option(
            "--may",
            multiple=True,
            metavar="KIND",
            help="What it may read: events, state, workers, metrics, dashboard; and do: revoke, terminate. "
            "Repeat it for more, or separate kinds with commas. Default: events,state.",
        ),
        click.option(
            "--hide",
            multiple=True,
            metavar="FIELD",
            help="Field to remove, such as args. Repeat it for more, or separate fields with commas.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@token.command(epilog=_EPILOG)
@click.argument("token_name", metavar="NAME")
@_auth
@_scope_options
@click.option(
    "--expires",
    metavar="TIME",
    help="When it ends: 90m, 12h, 30d or 4w from now, a date (00:00 UTC), or a time with a time zone. "
    "Default: never.",
)
def create(token_name: str, path: Path, expires: str | None, **scope_options: Any) -> None:
    """Make a token, and print it once.

    The file receives only a hash of it. A running gateway accepts the token within about a second. Filters
    can be repeated, use * and ?, and exclude with a leading !. Without filters all tasks are visible.

    \b
    Examples:
      celery-gateway token create grafana --auth auth.toml --may metrics
      celery-gateway token create alice --auth auth.toml --name 'shop.*' --hide args,kwargs --expires 30d
      TOKEN=$(celery-gateway token create ci --auth auth.toml --queue ci --expires 2027-01-01)
    """
    from celery_gateway.access.scope import Scope  # not for --help
    from celery_gateway.access.static_tokens import new_token
    from celery_gateway.cli import token_file

    if not token_name.isprintable() or not 0 < len(token_name) <= _MAX_NAME_CHARS:
        raise click.UsageError(
            f"invalid name: it must have 1 to {_MAX_NAME_CHARS} characters that can be printed"
        )
    scope = _scope(**scope_options)
    try:
        Scope.parse(scope)
        end = None if expires is None else _expires(expires)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    made = new_token()
    token_file.add(path, token_name, made, scope, end)
    click.echo(made)
    click.echo(
        f"Added [tokens.{token_name}] to {path}, with scope {json.dumps(scope, ensure_ascii=False)}"
        f"{f', until {end}' if end else ''}. Save the token now: it cannot be printed again. Clients send it "
        "as Authorization: Bearer TOKEN.",
        err=True,
    )


@token.command("list", epilog=_EPILOG)
@_auth
def list_tokens(path: Path) -> None:
    """Print the names of the static tokens, when they end, and their scopes.

    \b
    Examples:
      celery-gateway token list --auth auth.toml
      GATEWAY_AUTH=auth.toml celery-gateway token list
    """
    from celery_gateway.access.access_file import read_static_tokens  # not for --help
    from celery_gateway.cli import token_file

    tokens = read_static_tokens(path)
    scopes = token_file.scopes(path)
    width = max((len(each.name) for each in tokens), default=0)
    now = datetime.now(UTC)
    for each in tokens:
        end = None if each.expires_at is None else datetime.fromtimestamp(each.expires_at, UTC)
        shown = "never ends" if end is None else f"{end:%Y-%m-%dT%H:%M:%SZ}"
        if end is not None and end <= now:
            shown += " (expired)"
        scope = json.dumps(scopes[each.name], ensure_ascii=False)
        click.echo(f"{each.name:{width}}  {shown:20}  {scope}")
    if not tokens:
        click.echo(f"{path} has no static tokens.", err=True)


@token.command(epilog=_EPILOG)
@click.argument("token_name", metavar="NAME")
@_auth
def remove(token_name: str, path: Path) -> None:
    """Remove a token. A running gateway ends its streams within about a second.

    \b
    Examples:
      celery-gateway token remove grafana --auth auth.toml
    """
    from celery_gateway.cli import token_file  # not for --help

    token_file.remove(path, token_name)
    click.echo(f"Removed [tokens.{token_name}] from {path}.", err=True)


@token.command(epilog=_EPILOG)
@click.option(
    "--secret-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="File with the secret for HS256, or with the private key in PEM for other algorithms.",
)
@click.option("--issuer", required=True, help="The claim iss: as in [issuers.NAME] of the file of --auth.")
@click.option("--audience", default="celery-gateway", show_default=True, help="The claim aud, as there.")
@click.option(
    "--algorithm",
    type=click.Choice(["HS256", "RS256", "ES256", "EdDSA"]),
    default="HS256",
    show_default=True,
    help="The algorithm, as there.",
)
@click.option("--key-id", metavar="KID", help="The header kid, if the issuer has several keys.")
@click.option("--subject", help="The claim sub: who uses the token.")
@click.option(
    "--minutes",
    type=Number(0, min_open=True),
    default=15,
    show_default=True,
    help="How long it is valid.",
)
@_scope_options
def sign(
    secret_file: Path,
    any_filters: str | None,
    may: tuple[str, ...],
    hide: tuple[str, ...],
    **options: Any,
) -> None:
    """Sign and print a JSON Web Token, for a try.

    In a back end, call celery_gateway.tokens.sign, which has the same arguments. At least one filter is
    required; --any '[{}]' makes all tasks visible. IDs are compared exactly.

    \b
    Examples:
      openssl rand -base64 48 >shop.secret
      celery-gateway token sign --secret-file shop.secret --issuer https://shop.example --root-id 5a37c0b2-…
      celery-gateway token sign --secret-file shop.pem --algorithm ES256 --issuer https://shop.example \\
        --name 'shop.*' --minutes 60
    """
    from celery_gateway import tokens  # not for --help

    for field in _FILTER_HELP:
        options[field] = list(options[field]) or None
    try:
        key = secret_file.read_bytes()
    except OSError as error:
        raise GatewayError(f"cannot read {secret_file}: {error.strerror}") from None
    try:
        text = tokens.sign(
            key,
            any=None if any_filters is None else _json(any_filters),
            hide=_listed(hide),
            may=_listed(may) or ["events", "state"],
            **options,
        )
    except (ValueError, ImportError) as error:
        raise click.UsageError(str(error)) from None
    click.echo(text)


def _scope(
    any_filters: str | None, may: tuple[str, ...], hide: tuple[str, ...], **fields: Any
) -> dict[str, Any]:
    """Return the scope of the options, as the file has it."""
    given = {field: list(values) for field, values in fields.items() if values}
    if any_filters is not None and given:
        raise click.UsageError(
            "--any cannot be combined with other filters: write them into each filter of --any"
        )
    scope: dict[str, Any] = {}
    if any_filters is not None:
        scope["any"] = _json(any_filters)
    elif given:
        scope["any"] = [given]
    if hide:
        scope["hide"] = _listed(hide)
    if may:
        scope["may"] = _listed(may)
    return scope


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"invalid --any: it is no JSON: {error}") from None


def _listed(values: tuple[str, ...]) -> list[str]:
    return [part for value in values for part in value.replace(",", " ").split()]


def _expires(text: str) -> str:
    """Return a time as TOML has it.

    Raises:
        ValueError: it is malformed, or has passed.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    if found := _DURATION.fullmatch(text):
        try:
            return f"{now + timedelta(seconds=int(found[1]) * _SECONDS[found[2]]):%Y-%m-%dT%H:%M:%SZ}"
        except OverflowError:
            raise ValueError(f"invalid --expires {text!r}: it is too far in the future") from None
    try:
        day = date.fromisoformat(text)
        end, shown = datetime(day.year, day.month, day.day, tzinfo=UTC), day.isoformat()
    except ValueError:
        try:
            end = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(
                f"invalid --expires {text!r}: allowed are 90m, 12h, 30d, 4w, a date such as 2027-01-01, and "
                "a time such as 2027-01-01T00:00:00Z"
            ) from None
        if end.tzinfo is None:
            raise ValueError(
                f"invalid --expires {text!r}: it has no time zone; write {text}Z for UTC"
            ) from None
        shown = f"{end.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if end <= now:
        raise ValueError(f"invalid --expires {text!r}: this time has passed")
    return shown
