"""The names of Redis pub/sub channels, as kombu builds them, and the transport options that lead to them.

A channel has four parts: ``global_keyprefix``, ``fanout_prefix``, the exchange, and a routing key
(kombu/transport/redis.py): ``shop./0.celeryev/task.started``.

Pure.
"""

import re
from collections.abc import Mapping
from typing import Any

from celery_gateway.broker.address import Address

PIDBOX_EXCHANGE = "celery.pidbox"
"""The exchange of the workers' mailboxes, by the default ``control_exchange`` (celery/app/control.py)."""


def channel_name(address: Address, exchange: str, options: Mapping[str, Any], key: str = "*") -> str:
    """Return the channel (or the pattern of the channels) of an exchange.

    Args:
        options: Celery's ``broker_transport_options``.
        key: a routing key, or a pattern of routing keys; empty for none.
    """
    fanout = options.get("fanout_prefix", True)
    before = fanout if isinstance(fanout, str) else "/{db}." if fanout else ""
    ending = f"/{key}" if key and options.get("fanout_patterns", True) else ""
    return f"{key_prefix(options)}{before.replace('{db}', address.vhost or '0')}{exchange}{ending}"


def key_prefix(options: Mapping[str, Any]) -> str:
    """Return the first part of all keys and channels: ``global_keyprefix``."""
    return str(options.get("global_keyprefix") or "")


def escaped(text: str) -> str:
    """Return a pattern of Redis that matches a text, and nothing else."""
    return re.sub(r"([][*?\\])", r"\\\1", text)


def is_of_exchange(channel: str, exchange: str) -> bool:
    """Return whether a channel belongs to an exchange, with any prefix and database."""
    return bool(_pattern(exchange).fullmatch(channel))


def is_match(channel: str, topic: str) -> bool:
    """Return whether a channel matches one of ``RedisConnection.topics``: a name, or a prefix and ``/*``."""
    return channel.startswith(topic[:-1]) if topic.endswith("/*") else channel == topic


def options_for(channel: str, exchange: str, database: str) -> tuple[dict[str, Any], str]:
    """Return the transport options and the database with which a gateway subscribes to a channel.

    Args:
        exchange: the exchange that the channel belongs to.
        database: the result's database if the channel has none.

    >>> options_for("shop./1.celeryev/worker.heartbeat", "celeryev", "0")
    ({'global_keyprefix': 'shop.'}, '1')
    """
    match = _pattern(exchange).fullmatch(channel)
    if match is None:
        return {}, database
    options: dict[str, Any] = {}
    if match["db"] == "{db}":
        options["sentinel_fanout_compat"] = True
    elif match["fanout"] is None:
        options["fanout_prefix"] = False
    if match["prefix"]:
        options["global_keyprefix"] = match["prefix"]
    if match["key"] is None:
        options["fanout_patterns"] = False
    return options, match["db"] if (match["db"] or "").isdecimal() else database


def _pattern(exchange: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?P<prefix>.*?)(?P<fanout>/(?P<db>\d+|\{{db\}})\.)?{re.escape(exchange)}(?:/(?P<key>.*))?",
        re.DOTALL,
    )
