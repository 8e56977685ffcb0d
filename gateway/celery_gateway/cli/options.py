"""Options of the commands, generated from ``settings``. Light: each ``--help`` loads this module."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, get_type_hints

import click

from celery_gateway.access.actions import parse_actions
from celery_gateway.access.proxies import parse_proxy
from celery_gateway.access.redaction import parse_hide, parse_redact_keys
from celery_gateway.broker.queue_names import parse_queues
from celery_gateway.broker.transport_options import merged_options, transport_option
from celery_gateway.cli import config_file
from celery_gateway.cli.environment import PortOption
from celery_gateway.http.allowed_hosts import parse_allowed_origin, parse_pattern, parse_public_url
from celery_gateway.settings import DEFAULTS, OPTIONS, VARIABLE_PREFIX, Option, Settings

Command = Callable[..., None]

CONSUMING: Final = ("broker", "exchange", "transport_options")
"""The settings of a command that only consumes."""
KEEPING: Final = ("log", "log_age_seconds", "log_bytes")
"""The settings of a command that looks at a shared log."""
LISTENING: Final = ("host", "port", "public_url", "allow_hosts", "allow_origins", "insecure")
"""The settings of a command that only serves."""
_VALUE_TYPES: Final = get_type_hints(Settings)


def with_options(names: Iterable[str], *, of_app: bool = False) -> Callable[[Command], Command]:
    """Return a decorator that adds the options of some settings to a command.

    Args:
        names: fields of ``Settings``, in the order of ``--help``.
        of_app: the command belongs to a Celery app. The broker and the exchange then have no defaults, and
            ``CELERY_BROKER_URL`` is not read, since Celery reads it itself.
    """

    def decorate(command: Command) -> Command:
        for name in reversed(list(names)):
            command = _option(name, OPTIONS[name], of_app)(command)
        return command

    return decorate


def with_all_options(*, of_app: bool = False) -> Callable[[Command], Command]:
    """Return a decorator that adds ``--config`` and the options of all settings; ``of_app`` as above."""

    def decorate(command: Command) -> Command:
        return _config(with_options(OPTIONS, of_app=of_app)(command))

    return decorate


_config = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=config_file.load,
    envvar="GATEWAY_CONFIG",
    help="TOML file with any of these settings, such as: port = 9000",
)


def _option(name: str, option: Option, of_app: bool) -> Callable[[Command], Command]:
    """Return the click option of a setting."""
    value_type = _VALUE_TYPES[name]
    default = getattr(DEFAULTS, name)
    flags = f"--{option.flag}/--no-{option.flag}" if value_type is bool else f"--{option.flag}"
    variables = [each for each in option.variables if each.startswith(VARIABLE_PREFIX) or not of_app]
    attributes: dict[str, Any] = {
        "envvar": variables[0] if len(variables) == 1 else variables,
        "show_envvar": len(option.variables) > 1,
        "help": option.help.replace("`", ""),
        "callback": _callback(name, option),
    }
    if option.metavar:
        attributes["metavar"] = option.metavar
    if option.is_repeated:
        attributes["multiple"] = True
        default = [default] if isinstance(default, str) else default
    if option.minimum is not None:
        numbers: Any = WholeNumber if value_type is int else Number
        attributes["type"] = numbers(0 if option.zero else option.minimum, option.maximum)
    if name == "transport_options":
        attributes["type"] = _TransportOption()
    elif of_app and option.has_app_default:
        attributes |= {"default": None, "show_default": "the app's"}
    else:
        attributes |= {"default": default, "show_default": default not in ("", ())}
    return click.option(flags, name, cls=PortOption if name == "port" else click.Option, **attributes)


def _callback(name: str, option: Option) -> Callable[[click.Context, click.Parameter, Any], Any] | None:
    """Return a callback of click that checks and converts a setting's value."""
    parse = _PARSERS.get(name)
    if parse is None:
        return None

    def convert(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        try:
            return parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), param=parameter) from None

    return convert


def _hosts(values: Sequence[str]) -> tuple[str, ...]:
    """Return checked host names; commas may stand between them as well, since no host has one."""
    hosts = [host for value in values for host in value.replace(",", " ").split()]
    return tuple(map(parse_pattern, hosts))


def _origins(values: Sequence[str]) -> Sequence[str]:
    try:
        for value in values:
            parse_allowed_origin(value)
    except ValueError as error:
        raise ValueError(f"{error}; repeat the option for more") from None
    return values


def _proxies(values: Sequence[str]) -> tuple[str, ...]:
    """Return checked addresses and networks; commas may stand between them as well."""
    return tuple(parse_proxy(proxy) for value in values for proxy in value.replace(",", " ").split())


def _public_url(value: str) -> str:
    if value:
        parse_public_url(value)
    return value


def _root_path(value: str) -> str:
    if value and not value.startswith("/"):
        raise ValueError(f"{value!r} must begin with a slash, such as /celery")
    return value.rstrip("/")


def _max_event_bytes(value: int) -> int:
    option = OPTIONS["max_event_bytes"]
    if option.minimum is not None and 0 < value < option.minimum:
        raise ValueError(f"{value} is below {option.minimum}; 0 means {option.zero}")
    return value


def _not_empty(value: str | None) -> str | None:
    if value == "":
        raise ValueError("the value is empty; leave the option out to use the default")
    return value


def _transport_options(values: Sequence[Any]) -> dict[str, Any]:
    return merged_options(option for options in values for option in options)


_PARSERS: Final[dict[str, Callable[[Any], Any]]] = {
    "transport_options": _transport_options,
    "exchange": _not_empty,
    "host": _not_empty,
    "root_path": _root_path,
    "public_url": _public_url,
    "allow": parse_actions,
    "allow_hosts": _hosts,
    "allow_origins": _origins,
    "trusted_proxies": _proxies,
    "max_event_bytes": _max_event_bytes,
    "queues": parse_queues,
    "hide": parse_hide,
    "redact_keys": parse_redact_keys,
}


class WholeNumber(click.IntRange):
    """A range of whole numbers, in plain words for errors: "'x' is not a valid whole number"."""

    name = "whole number"


class Number(click.FloatRange):
    """A range of numbers, such as seconds, without ``nan`` and ``inf``, which no timer can use."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class _TransportOption(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions
    """Converts ``NAME=VALUE``, or a JSON object of several, to paths and values."""

    name = "option"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        try:
            text = str(value)
            if text.lstrip().startswith("{"):
                options = config_file.leaves(json.loads(text))
                return [transport_option(f"{path}={json.dumps(leaf)}") for path, leaf in options]
            return [transport_option(text)]
        except ValueError as error:
            self.fail(str(error), parameter, context)

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv] if rv.lstrip().startswith("{") else rv.split()
