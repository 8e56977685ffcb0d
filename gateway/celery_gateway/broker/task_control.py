"""Revoking tasks: the command ``revoke`` to the workers of one broker (celery/worker/control.py).

- Each command has a connection of its own, in a thread. RabbitMQ confirms it; Redis has published it.
- The command goes to all workers that run now. A worker that starts later does not have it.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from celery_gateway.broker.daemon_thread import started
from celery_gateway.broker.diagnosis import Phase, diagnose
from celery_gateway.broker.pidbox_client import BLOCKED, broadcast
from celery_gateway.broker.source import Status
from celery_gateway.broker.urls import Broker
from celery_gateway.errors import OverLimit, WorkerControlError

MAX_SENDING: Final = 4
"""Maximum number of connections at a time."""
MAX_WAITING: Final = 100
BATCH_TASKS: Final = 500
"""Maximum number of tasks in one command."""

log = logging.getLogger(__name__)


class TaskControl:
    """Sends commands that change tasks. All calls belong to one running event loop.

    Args:
        broker: all its URLs are tried.
        control_exchange: Celery's.
        verbose: whether errors have the broker's address, vhost and user.
    """

    def __init__(self, broker: Broker, control_exchange: str = "celery", *, verbose: bool = False) -> None:
        self._broker = broker
        self._control_exchange = control_exchange
        self._verbose = verbose
        self._title = f"actions of {broker.name}" if broker.name else "actions"
        self._sending = asyncio.Semaphore(MAX_SENDING)
        self._waiting = 0

    async def revoke(self, uuids: Sequence[str], signal: str | None) -> None:
        """Revoke tasks: workers that have not started them drop them.

        Args:
            uuids: ``BATCH_TASKS`` at most. Numbers are texts, too, although workers do not find them then:
                a number is an error in the worker, and with results in files or Redis it ends the worker.
            signal: ends the process of each task that is running; ``None``: running tasks go on.

        Raises:
            OverLimit: too many commands wait.
            WorkerControlError: no broker has taken the command; the text is fit to be shown.
        """
        if self._waiting >= MAX_WAITING:
            message = f"{MAX_WAITING} actions wait for the broker, the maximum; try again later"
            raise OverLimit("actions", message)
        arguments = {"task_id": list(uuids), "terminate": signal is not None, "signal": signal}
        self._waiting += 1
        try:
            async with self._sending:
                await self._send("revoke", arguments)
        finally:
            self._waiting -= 1

    async def _send(self, method: str, arguments: dict[str, Any]) -> None:
        shown = ""
        for url in self._broker.urls:
            try:
                await started(partial(self._broadcast, url, method, arguments), "celery-gateway-action")
                return
            except Exception as error:
                status = self._status(error, url)
                shown = status.reason if self._verbose else status.brief
                log.warning("%s: the command %s could not be sent: %s", self._title, method, status.reason)
        raise WorkerControlError(shown)

    def _status(self, error: Exception, url: str) -> Status:
        if str(error) == BLOCKED:
            return Status(False, BLOCKED, "publishers-blocked")
        cause = error.__cause__ or error
        diagnosis = diagnose(cause, url, phase=Phase.CONNECT, access=self._broker.access)
        return Status(False, diagnosis.what, diagnosis.code)

    def _broadcast(self, url: str, method: str, arguments: dict[str, Any]) -> None:
        broadcast(
            url,
            method,
            arguments,
            access=self._broker.access,
            control_exchange=self._control_exchange,
        )
