"""The TOML file of ``--config``: its values become the defaults of a command's other options."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click


def load(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Make the values of a TOML file the defaults of the other options. A callback of click.

    A key is the flag of an option, or the name of its setting, with ``-`` or ``_``.

    Raises:
        BadParameter: the file cannot be read, has a key that is no option of the command, or a value of
            the wrong type.
    """
    if path is None:
        return
    values = _read(path, parameter)
    options = {option.name: option for option in context.command.params}
    names = options.keys() - {"config", "help"}
    flags = {flag.lstrip("-"): option.name for option in options.values() for flag in option.opts}
    flags = {flag: name for flag, name in flags.items() if name in names}
    if unknown := sorted(values.keys() - flags.keys() - {flag.replace("-", "_") for flag in flags} - names):
        raise click.BadParameter(
            f"{path}: unknown setting {unknown[0]!r}; the settings are {', '.join(sorted(flags))}",
            param=parameter,
        )
    by_flag = {flag.replace("-", "_"): name for flag, name in flags.items()}
    defaults = {}
    for key, value in values.items():
        name = by_flag.get(key.replace("-", "_"), key)
        if wanted := _wrong_type(value, options[name]):
            shown = json.dumps(value, default=str, ensure_ascii=False)
            raise click.BadParameter(f"{path}: invalid {key} = {shown}: write {wanted}", param=parameter)
        defaults[name] = value
    for name, value in defaults.items():
        if name == "transport_options" and isinstance(value, dict):
            defaults[name] = [f"{path}={json.dumps(leaf)}" for path, leaf in leaves(value)]
        elif isinstance(value, str) and getattr(options[name], "multiple", False):
            defaults[name] = [value]
    context.default_map = defaults


def _wrong_type(value: Any, option: click.Parameter) -> str | None:
    """Return which type an option needs, if a value of the file has another one; text is left to click.

    click would convert other values: ``port = true`` to port 1, ``port = 1.5`` to port 1.
    """
    texts = value if isinstance(value, list) and getattr(option, "multiple", False) else [value]
    if all(isinstance(text, str) for text in texts):
        return None
    if option.name == "transport_options":
        return None if isinstance(value, dict) else 'a table, or a list of texts such as ["name=value"]'
    if getattr(option, "multiple", False):
        return "text in quotes, or a list of texts"
    types: tuple[tuple[type, tuple[type, ...], str], ...] = (
        (click.types.BoolParamType, (bool,), "true or false"),
        (click.IntRange, (int,), "a whole number"),
        (click.FloatRange, (int, float), "a number"),
    )
    for option_type, allowed, wanted in types:
        if isinstance(option.type, option_type):
            return None if type(value) in allowed else wanted  # a bool is an int, too
    return "text in quotes"


def _read(path: Path, parameter: click.Parameter) -> dict[str, Any]:
    import tomllib  # not for --help

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.BadParameter(f"{path}: {error}", param=parameter) from None


def leaves(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested tables with their paths.

    >>> list(leaves({"master_name": "m", "sentinel_kwargs": {"password": "x"}}))
    [('master_name', 'm'), ('sentinel_kwargs.password', 'x')]
    """
    for name, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
