"""The queues of all brokers: which ones there are, and their sizes."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from celery_gateway.broker.queue_names import is_queue_name, parse_queues, queues_of
from celery_gateway.broker.queue_reader import QueueReader
from celery_gateway.broker.queue_reading import QueueReading
from celery_gateway.broker.urls import Broker
from celery_gateway.broker.worker_queues import WorkerQueues

DEFAULT_QUEUE: Final = "celery"
"""Celery's ``task_default_queue``: read if no name is known, and listed if it exists."""


class Queues:
    """Reads the queues of all brokers.

    Args:
        brokers: each with its name.
        names: the setting ``queues``; without names, those of events and workers are read.
        control_exchange: Celery's, to ask workers; ``None``: they are not asked.
        verbose: see ``QueueReader``.

    Raises:
        ValueError: a name is malformed.
    """

    def __init__(
        self,
        brokers: Sequence[Broker],
        names: Iterable[str] = (),
        *,
        control_exchange: str | None = None,
        verbose: bool = False,
    ) -> None:
        clusters = [broker.name for broker in brokers]
        listed = parse_queues(names)
        self._listed = {cluster: queues_of(listed, cluster, clusters) for cluster in clusters}
        self._has_listed = bool(listed)
        self._readers = {broker.name: QueueReader(broker, verbose=verbose) for broker in brokers}
        self._workers: Mapping[str | None, WorkerQueues] = {}
        if control_exchange is not None and not listed:
            self._workers = {broker.name: WorkerQueues(broker, control_exchange) for broker in brokers}

    @property
    def clusters(self) -> Collection[str | None]:
        """The names of the brokers."""
        return self._readers.keys()

    async def names(self, cluster: str | None, seen: Iterable[str]) -> Mapping[str, bool]:
        """Return the names of a broker's queues, and whether they are listed even if they do not exist.

        Args:
            seen: those in the events of all brokers. With several brokers they may be another one's.
        """
        if self._has_listed:
            return dict.fromkeys(self._listed[cluster], True)
        found = dict.fromkeys(filter(is_queue_name, seen), len(self._readers) == 1)
        if (workers := self._workers.get(cluster)) is not None:
            found |= dict.fromkeys(await workers.names(), True)
        return dict(sorted(found.items())) or {DEFAULT_QUEUE: False}

    async def read(self, cluster: str | None, names: Sequence[str]) -> list[QueueReading]:
        """Return the readings of some queues of a broker, in their order; see ``QueueReader.read``."""
        return await self._readers[cluster].read(names)

    def error(self, cluster: str | None) -> str | None:
        """Return why a broker's queues could not be read the last time; see ``QueueReader.error``."""
        return self._readers[cluster].error

    async def close(self) -> None:
        """Close all connections. May be called again."""
        for workers in self._workers.values():
            workers.close()
        await asyncio.gather(*(reader.close() for reader in self._readers.values()))
