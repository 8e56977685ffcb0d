"""The names and properties of what the gateway declares at RabbitMQ, and how it reports foreign ones.

- Every name begins with the queue prefix and a dot: ``celery-gateway.``
- A queue or an exchange of another owner that has one of these names is never changed or deleted. It is
  logged, and the gateway uses another name.
"""

import logging
import os
import platform
import secrets
import shlex
from collections.abc import Awaitable, Callable

from aiormq.abc import AbstractChannel
from pamqp.common import FieldValue

QUEUE_ARGUMENTS: dict[str, FieldValue] = {
    "x-message-ttl": 60_000,  # milliseconds
    "x-expires": 60_000,  # milliseconds
    "x-max-length": 100_000,
    "x-max-length-bytes": 64 << 20,
    "x-overflow": "drop-head",
}
"""The limits of the event queue: the broker drops the oldest events beyond them."""
EXPECTED_QUEUE = "exclusive, auto-delete, not durable"
EXPECTED_OVERFLOW_EXCHANGE = "type fanout, internal, auto-delete, not durable, no arguments"
EXPECTED_TRIPWIRE = "type direct, auto-delete, not durable, no arguments"

OpenChannel = Callable[[], Awaitable[AbstractChannel]]
"""Opens a new channel of the connection. (A refused declaration closes its channel.)"""
ReportForeign = Callable[[str, str, str, Exception], None]
"""Called with ``queue`` or ``exchange``, its name, what was expected, and the broker's error."""

log = logging.getLogger(__name__)


def event_queue_name(prefix: str) -> str:
    """Return a new name for an event queue."""
    return f"{prefix}.{platform.node()}.{os.getpid()}.{secrets.token_hex(8)}"


class ForeignNames:
    """Logs each foreign queue and exchange once.

    Args:
        broker: the broker's name, ``None`` if it is the only one.
    """

    def __init__(self, broker: str | None) -> None:
        self._title = f"broker {broker}" if broker else "broker"
        self._reported: set[str] = set()

    def report(self, vhost: str, kind: str, name: str, expected: str, error: Exception) -> None:
        """Log that a queue or an exchange with one of our names belongs to another owner."""
        if name in self._reported:
            return
        self._reported.add(name)
        log.warning(
            "%s: the %s %s in the vhost %s does not belong to a gateway (expected: %s; error of the broker: "
            "%s). The gateway does not change it and uses another name. Set another --queue-prefix; or, if "
            "the %s is not needed, delete it: %s",
            self._title,
            kind,
            name,
            vhost,
            expected,
            error.args[0] if error.args else error,
            kind,
            shlex.join(["rabbitmqadmin", f"--vhost={vhost}", "delete", kind, f"name={name}"]),
        )
