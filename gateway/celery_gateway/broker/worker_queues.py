"""The names of the queues that the workers of one broker consume from: their replies to ``active_queues``."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from celery_gateway.broker.daemon_thread import started
from celery_gateway.broker.pidbox import Command
from celery_gateway.broker.pidbox_client import request
from celery_gateway.broker.queue_names import MAX_QUEUES, is_queue_name
from celery_gateway.broker.urls import Broker

INTERVAL_SECONDS: Final = 60.0
FIRST_INTERVAL_SECONDS: Final = 5.0
"""While no name is known: the workers may start later."""
WAIT_SECONDS: Final = 3.0
"""How long a request waits while no name is known yet."""
SILENCE_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


class WorkerQueues:
    """Asks the workers when the names are requested, and at most once in ``INTERVAL_SECONDS``.

    Args:
        control_exchange: Celery's.
    """

    def __init__(self, broker: Broker, control_exchange: str = "celery") -> None:
        self._broker = broker
        self._control_exchange = control_exchange
        self._names: tuple[str, ...] = ()
        self._asked_at = -INTERVAL_SECONDS  # loop time
        self._asking: asyncio.Task[None] | None = None

    async def names(self) -> Sequence[str]:
        """Return the names that are known, sorted; ``MAX_QUEUES`` at most."""
        now = asyncio.get_running_loop().time()
        interval_seconds = INTERVAL_SECONDS if self._names else FIRST_INTERVAL_SECONDS
        if self._asking is None and now - self._asked_at >= interval_seconds:
            self._asked_at = now
            self._asking = asyncio.create_task(self._ask(), name="active queues")
        if self._asking is not None and not self._names:
            await asyncio.wait([self._asking], timeout=WAIT_SECONDS)
        return self._names

    def close(self) -> None:
        """Wait for no further replies."""
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self) -> None:
        try:
            names = await started(self._request, "celery-gateway-active-queues")
        except Exception as error:  # the names of the last replies stay
            log.debug("the queues of the workers are not known: %s", error)
        else:
            self._names = names
        finally:
            self._asking = None

    def _request(self) -> tuple[str, ...]:
        names: set[str] = set()
        for reply in request(
            self._broker.urls[0],
            (Command.ACTIVE_QUEUES,),
            None,
            SILENCE_SECONDS,
            access=self._broker.access,
            control_exchange=self._control_exchange,
        ):
            names.update(name for name in reply.queues if is_queue_name(name))
        return tuple(sorted(names)[:MAX_QUEUES])
