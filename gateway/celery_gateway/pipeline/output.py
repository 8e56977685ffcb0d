"""Where joined events go: to the hub, or first into a shared log (``replication``)."""

from collections.abc import Callable
from typing import Protocol

from celery_gateway.events.event import Event, Keys
from celery_gateway.stream.completion import Completions
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.messages import ControlMessage


class Output(Protocol):
    """Gets what the tables emit, in order."""

    def append(self, event: Event, origin: Keys) -> None:
        """Append an event; ``origin``: see ``Hub.append``."""

    def broadcast(self, message_at: Callable[[bytes], ControlMessage]) -> None:
        """Append a control message to all streams; ``message_at`` makes it, given its id."""


class DirectOutput:
    """The output without a shared log."""

    def __init__(self, hub: Hub, completions: Completions) -> None:
        self._hub = hub
        self._completions = completions

    def append(self, event: Event, origin: Keys) -> None:
        self._hub.append(event, origin)
        self._completions.on_event(event, origin)

    def broadcast(self, message_at: Callable[[bytes], ControlMessage]) -> None:
        self._hub.broadcast(message_at)
