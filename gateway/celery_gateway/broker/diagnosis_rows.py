"""What the tables of diagnoses are made of: rows of templates, and the values that fill them.

- A row has a code and two templates (``str.format``): what happened, and the remedy.
- ``Case`` has the values: the parts of the broker's URL, names, and commands to paste. Names in commands are
  quoted for a shell. No value has a password.

Pure.
"""

import shlex
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from celery_gateway.broker.address import Address
from celery_gateway.broker.permissions import grant_rabbitmq, grant_redis, redis_cli
from celery_gateway.broker.redaction import without_passwords
from celery_gateway.broker.urls import Access

_PORT_HINTS = {
    15672: " (15672 is the port of RabbitMQ's management page; AMQP is on 5672)",
    25672: " (25672 is the port between RabbitMQ's nodes; AMQP is on 5672)",
    5671: " (5671 is usually the port for TLS: amqps://)",
}
_COMMANDS = {
    "getent": ("getent", "hosts", "{host}"),
    "nc": ("nc", "-vz", "{host}", "{port}"),
    "add_vhost": ("rabbitmqctl", "add_vhost", "{vhost}"),
    "change_password": ("rabbitmqctl", "change_password", "{who}"),
    "list_exchanges": ("rabbitmqctl", "list_exchanges", "-p", "{vhost}"),
    "clear_topic_permissions": (
        *("rabbitmqctl", "clear_topic_permissions", "-p", "{vhost}", "{user}", "{exchange}"),
    ),
    "delete_exchange": ("rabbitmqadmin", "--vhost={vhost}", "delete", "exchange", "name={exchange}"),
}
_REDIS_COMMANDS = {
    "redis_ping": ("PING",),
    "redis_set_password": ("CONFIG", "SET", "requirepass"),
    "redis_databases": ("CONFIG", "GET", "databases"),
    "redis_replication": ("INFO", "replication"),
    "redis_persistence": ("INFO", "persistence"),
    "redis_clients": ("CLIENT", "LIST"),
    "redis_set_maxclients": ("CONFIG", "SET", "maxclients", "10000"),
    "redis_set_maxmemory": ("CONFIG", "SET", "maxmemory", "0"),
    "redis_masters": ("SENTINEL", "MASTERS"),
}


class Phase(Enum):
    """How far a connection had come when an error ended it; each phase has a generic diagnosis."""

    CONNECT = "connect"
    """The name, TCP and TLS."""
    LOGIN = "login"
    """The handshake of the protocol, up to the vhost or the database."""
    CONSUME = "consume"
    """Declaring, binding and subscribing."""
    LOST = "lost"
    """Events were consumed before."""


class Diagnosis(NamedTuple):
    """A problem and its fix. Both texts are fit to be shown; neither has a password.

    Attributes:
        code: one of ``diagnosis.CODES``.
        what: what happened.
        remedy: what to do.
    """

    code: str
    what: str
    remedy: str


class Row(NamedTuple):
    """A diagnosis with templates for texts."""

    code: str
    what: str
    remedy: str


class Case:
    """One error's surroundings.

    Args:
        address: where the broker's URL leads.
        exchange: Celery's ``event_exchange``.
        access: how the gateway connects.
        phase: how far the connection had come.
        hosts: how many sentinels the URL has; 1 without sentinels.
    """

    def __init__(self, address: Address, exchange: str, access: Access, phase: Phase, hosts: int = 1) -> None:
        self.address = address._replace(queue_prefix=access.queue_prefix)
        self.exchange = exchange
        self.access = access
        self.phase = phase
        self.hosts = hosts

    def diagnosis(self, row: Row, **more: str) -> Diagnosis:
        """Return a row with its templates filled.

        Args:
            more: values beside those of the case; passwords of URLs in them are removed.
        """
        values = self._values() | {name: without_passwords(value) for name, value in more.items()}
        return Diagnosis(row.code, row.what.format_map(values), row.remedy.format_map(values))

    def command(self, words: Iterable[str], **more: str) -> str:
        """Return a command whose words are templates, quoted for a shell."""
        values = self._values() | more
        return shlex.join(word.format_map(values) for word in words)

    def _values(self) -> dict[str, str]:
        address, exchange, options = self.address, self.exchange, self.access.transport_options
        values = {
            "at": address.host_and_port,
            "scheme": address.scheme,
            "host": address.host,
            "port": str(address.port),
            "user": address.user,
            "who": address.user or "the user",
            "vhost": address.vhost,
            "vhost_or_database": "vhost" if address.is_amqp else "database",
            "exchange": exchange,
            "queue_prefix": address.queue_prefix,
            "port_hint": _PORT_HINTS.get(address.port, "") if address.is_amqp else "",
            "master_name": repr(self.access.transport_options.get("master_name")),
            "grant": grant_rabbitmq(address, exchange),
            "grant_redis": grant_redis(address, exchange, options),
        }
        commands = {
            name: shlex.join(word.format_map(values) for word in words) for name, words in _COMMANDS.items()
        }
        redis = {name: redis_cli(address, *words) for name, words in _REDIS_COMMANDS.items()}
        return values | commands | redis
