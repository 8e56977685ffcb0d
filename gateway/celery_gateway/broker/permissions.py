"""The commands that give a broker's user the permissions that a gateway needs, and no others.

Every command can be pasted into a shell: names are quoted, and no command has a password. Pure.
"""

import re
import shlex
from collections.abc import Mapping
from typing import Any

from celery_gateway.broker.address import Address
from celery_gateway.broker.redis_channels import PIDBOX_EXCHANGE, channel_name, key_prefix

_REDIS_COMMANDS = (
    *("ping", "select", "psubscribe", "punsubscribe", "role", "publish"),
    *("rpush", "lpop", "llen", "pexpire", "del", "multi", "exec"),
)


def grant_rabbitmq(address: Address, exchange: str) -> str:
    """Return the command for RabbitMQ, which replaces the user's permissions in the vhost.

    It gives configure, write and read on the gateway's own queues, and read on the event exchange, to bind to
    it. (To declare that exchange also needs configure on it; the workers declare it.)
    """
    names = rf"{re.escape(address.queue_prefix)}\..*"
    own, read = f"^{names}", f"^({names}|{re.escape(exchange)})$"
    return shlex.join(["rabbitmqctl", "set_permissions", "-p", address.vhost, address.user, own, own, read])


def grant_redis(address: Address, exchange: str, options: Mapping[str, Any]) -> str:
    """Return the commands for Redis, which add to the user's permissions.

    They allow to subscribe to the channels of the events; and for remote control, to publish to the workers'
    channel and to keep lists for their replies. Redis refuses a pattern for a user that has all keys or all
    channels, so there are three commands.

    Args:
        options: Celery's ``broker_transport_options``.
    """
    events = channel_name(address, exchange, options)
    mailboxes = channel_name(address, PIDBOX_EXCHANGE, options, "")
    rules = (
        [f"+{command}" for command in _REDIS_COMMANDS],
        [f"&{events}", f"&{mailboxes}"],
        [f"~{key_prefix(options)}{address.queue_prefix}.*"],
    )
    user = address.user or "default"
    return "; ".join(redis_cli(address, "ACL", "SETUSER", user, *some) for some in rules)


def redis_cli(address: Address, *words: str) -> str:
    """Return a ``redis-cli`` command for an address, without the password that it may need."""
    where = ["-s", address.host] if not address.port else ["-h", address.host, "-p", str(address.port)]
    tls = ["--tls"] if address.is_tls else []
    return shlex.join(["redis-cli", *where, *tls, *words])
