"""The options of kombu's transports for Redis, as users write them: ``NAME=VALUE``.

- The names are those that kombu reads (kombu/transport/redis.py, ``from_transport_options``); any other name
  is an error, with the nearest name as a suggestion.
- A dot separates levels: ``sentinel_kwargs.password=…``.
- A value is JSON if it can be read as JSON, otherwise text. Options that are texts are never read as JSON.

Pure.
"""

import difflib
import json
from collections.abc import Iterable
from typing import Any

TEXTS = frozenset(
    {"client_name", "global_keyprefix", "master_name", "queue_order_strategy", "sep"}
    | {"credential_provider", "unacked_key", "unacked_index_key", "unacked_mutex_key"}
)
SWITCHES = frozenset(
    {"ack_emulation", "fanout_patterns", "retry_on_timeout", "sentinel_fanout_compat", "socket_keepalive"}
)
NUMBERS = frozenset(
    {"health_check_interval", "max_connections", "min_other_sentinels", "reauth_check_interval"}
    | {"socket_connect_timeout", "socket_timeout", "unacked_mutex_expire", "unacked_restore_interval"}
    | {"unacked_restore_limit", "unacked_restore_throttle", "visibility_timeout"}
)
_OTHERS = frozenset({"fanout_prefix", "priority_steps", "sentinel_kwargs", "socket_keepalive_options"})
TRANSPORT_OPTIONS = TEXTS | SWITCHES | NUMBERS | _OTHERS
"""The names of all options."""
_NESTED = frozenset({"sentinel_kwargs", "socket_keepalive_options"})
_SWITCH_VALUES = {
    "1": True,
    "0": False,
    "yes": True,
    "no": False,
    "on": True,
    "off": False,
    "true": True,
    "false": False,
}

OptionPath = tuple[str, ...]
"""The levels of an option's name: ``("sentinel_kwargs", "password")``."""


def transport_option(text: str) -> tuple[OptionPath, Any]:
    """Read one option.

    Args:
        text: ``NAME=VALUE``, where NAME may have levels, separated by dots.

    Returns:
        The levels of the name, and the value.

    Raises:
        ValueError: the option is unknown, or the value has another type; the text lists what is allowed.

    >>> transport_option("master_name=mymaster")
    (('master_name',), 'mymaster')
    >>> transport_option("socket_timeout=2.5")
    (('socket_timeout',), 2.5)
    """
    name, equals, raw = text.partition("=")
    path = tuple(name.split("."))
    if not equals or not all(path):
        raise ValueError(
            f"invalid transport option {name!r}: write NAME=VALUE, for example master_name=mymaster"
        )
    if path[0] not in TRANSPORT_OPTIONS:
        raise ValueError(f"unknown transport option {path[0]!r}{suggestion(path[0], TRANSPORT_OPTIONS)}")
    if len(path) > (2 if path[0] in _NESTED else 1):
        raise ValueError(f"invalid transport option {name!r}: {path[0]!r} has no parts")
    return path, _value(path, raw)


def merged_options(options: Iterable[tuple[OptionPath, Any]]) -> dict[str, Any]:
    """Merge options into one mapping; a later one replaces an earlier one.

    >>> merged_options([(("sentinel_kwargs", "password"), "x"), (("master_name",), "m")])
    {'sentinel_kwargs': {'password': 'x'}, 'master_name': 'm'}
    """
    merged: dict[str, Any] = {}
    for path, value in options:
        put_option(merged, path, value)
    return merged


def put_option(options: dict[str, Any], path: OptionPath, value: Any) -> None:
    """Set one option, and create its levels as needed."""
    for level in path[:-1]:
        options = options.setdefault(level, {})
    options[path[-1]] = value


def suggestion(name: str, allowed: frozenset[str]) -> str:
    """Return the end of an error message: the nearest allowed name, or all allowed names."""
    near = difflib.get_close_matches(name, allowed, n=1)
    return f": did you mean {near[0]!r}?" if near else f": the allowed ones are {', '.join(sorted(allowed))}"


def _value(path: OptionPath, raw: str) -> Any:
    name = path[0]
    try:
        value = json.loads(raw)
    except ValueError:
        value = raw
    if name in TEXTS or path[-1] in ("password", "username"):
        return value if isinstance(value, str) else raw
    if len(path) > 1:
        return value
    if name in SWITCHES:
        if not isinstance(value, bool):
            value = _SWITCH_VALUES.get(raw.lower(), value)
        if not isinstance(value, bool):
            raise ValueError(f"invalid transport option {name}={raw!r}: the value must be true or false")
    elif name in NUMBERS and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise ValueError(f"invalid transport option {name}={raw!r}: the value must be a number")
    elif name in _NESTED and not isinstance(value, dict):
        raise ValueError(
            f"invalid transport option {name}: the value must be a JSON object; or use {name}.PART=…"
        )
    return value
