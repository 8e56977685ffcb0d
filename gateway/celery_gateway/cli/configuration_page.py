"""Print docs/configuration.md, generated from ``settings``.

Run ``python -m celery_gateway.cli.configuration_page > docs/configuration.md``.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from celery_gateway.settings import APP_SETTINGS, DEFAULTS, OPTIONS, Option

_BEGINNING: Final = """\
<!-- Generated. Do not edit this page: change gateway/celery_gateway/settings.py, or the texts in
gateway/celery_gateway/cli/configuration_page.py, and run
python -m celery_gateway.cli.configuration_page > docs/configuration.md -->

# Configuration

The settings of `celery-gateway serve` and `celery -A proj gateway`. `celery-gateway check` and
`celery-gateway demo` have some of them. Each setting has a flag, an environment variable, and a key in
the TOML file of `--config FILE` or `GATEWAY_CONFIG`. For the options of one command, use `--help`.
"""
_APP_SETTINGS: Final = """
## Settings of a Celery app

These settings have no flag. `celery -A proj gateway` takes them from the app, and `serve` uses the default.
The broker, the exchange and the transport options also come from the app unless they are set here. See
[Celery command](celery-command.md).
"""
_FIELDS: Final = """
## Fields of Settings

An application that [mounts the gateway](mounting.md) sets the fields of `celery_gateway.settings.Settings`. A
field has the name of the flag with underscores, except for these:
"""
_END: Final = """
## Precedence

From high to low:

1. the command line
2. the environment
3. the file of `--config`
4. the Celery app (`celery -A proj gateway` only)
5. the default

A setting with several values is taken from one of these places; the values are not combined. There is one
exception: `celery -A proj gateway` adds transport options to those of the app.

## File

```toml
broker = ["amqp://guest:guest@localhost:5672//", "amqp://guest:guest@standby:5672//"]
host = "0.0.0.0"
port = 9000
auth = "auth.toml"
public-url = "https://events.example/celery"
allow-origin = ["https://shop.example"]
keepalive = 10
control = true

[transport_options]
global_keyprefix = "shop."
```

Keys may have `_` instead of `-`. A setting with several values takes a list or one string. An unknown key is
an error that lists all keys.

## Environment variables

A switch is `true` or `false`, or `1` or `0`. Several values are separated by spaces. `celery-gateway
tail` reads the token of `--token` from `GATEWAY_TOKEN`.

### Misspelled names

A variable that resembles the name of a setting (`GATEWAY_PRT`, `GATEWAY_BROKER_URL`) has no effect. The
commands warn of it and print the right name.

### Variables of Kubernetes

Kubernetes sets variables in each pod for each Service. Those of a Service named `gateway` begin with
`GATEWAY_` too. The commands ignore them:

| variable | treatment |
|---|---|
| `GATEWAY_SERVICE_HOST`, `GATEWAY_PORT_8555_TCP_ADDR` and the like | ignored |
| `GATEWAY_PORT=tcp://10.96.0.12:8555` | ignored with a warning; the port is that of the file, or 8555 |

To avoid these variables, set `enableServiceLinks: false` in the specification of the pod, as in
[deploy/kubernetes](../deploy/README.md#kubernetes).
"""
_SIZES: Final = ((1 << 20, "MiB"), (1 << 10, "KiB"))


def page() -> str:
    """Return the page in Markdown."""
    parts = [_BEGINNING]
    for group, names in groupby(OPTIONS, key=lambda name: OPTIONS[name].group):
        head = ("Flag", "Variable", "File", "Value", "Default", "Meaning")
        parts.append(f"\n## {group}\n\n{_table(head, map(_row, names))}")
    parts += [_APP_SETTINGS, "\n", _table(("Field", "Celery", "Default", "Meaning"), _app_rows())]
    parts += [_FIELDS, "\n", _table(("Field", "Flag"), _field_rows())]
    return "".join([*parts, _END])


def _row(name: str) -> tuple[str, ...]:
    option, default = OPTIONS[name], getattr(DEFAULTS, name)
    is_switch = isinstance(default, bool)
    flags = [f"--{option.flag}", f"--no-{option.flag}"] if is_switch else [f"--{option.flag}"]
    key = "[transport_options]" if name == "transport_options" else option.flag
    return (
        _codes(flags),
        _codes(option.variables),
        _codes([key]),
        "`true` or `false`" if is_switch else _value(option),
        _default(option, default),
        option.help,
    )


def _value(option: Option) -> str:
    """Return the kind and the range of a setting's values.

    >>> _value(OPTIONS["slow_seconds"]), _value(OPTIONS["max_event_bytes"])
    ('seconds, 0.1 to 86400', 'bytes, 0 or at least 2000')
    """
    kind = option.metavar.lower() if option.minimum is not None else f"`{option.metavar}`"
    if option.minimum is None:
        return f"{kind}, repeatable" if option.is_repeated else kind
    if option.maximum is not None:
        return f"{kind}, {option.minimum:g} to {option.maximum:g}"
    return f"{kind}, {'0 or ' if option.zero else ''}at least {_number(option.minimum)}"


def _number(value: float) -> str:
    """Return a number, a large one also in binary units.

    >>> _number(0.1), _number(2000), _number(1 << 24)
    ('0.1', '2000', '16777216 (16 MiB)')
    """
    for size, unit in _SIZES:
        if value >= size and value % size == 0:
            return f"{value} ({int(value) // size} {unit})"
    return f"{value:.10g}"


def _default(option: Option, value: object) -> str:
    if isinstance(value, bool):
        text = f"`{str(value).lower()}`"
    elif isinstance(value, int | float):
        text = _number(value)
    else:
        text = f"`{value}`" if value else "none"
    return f"{text}, or that of the app" if option.has_app_default else text


def _app_rows() -> Iterator[tuple[str, ...]]:
    for name, setting in APP_SETTINGS.items():
        yield _codes([name]), _codes(setting.celery), f"`{getattr(DEFAULTS, name)!r}`", setting.help


def _field_rows() -> Iterator[tuple[str, ...]]:
    for name, option in OPTIONS.items():
        if name != option.flag.replace("-", "_"):
            yield _codes([name]), _codes([f"--{option.flag}"])


def _codes(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table in Markdown; cells may have bars."""
    lines = (" | ".join(cell.replace("|", r"\|") for cell in row) for row in rows)
    return "\n".join(
        ["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *(f"| {line} |" for line in lines), ""]
    )


if __name__ == "__main__":
    print(page(), end="")
