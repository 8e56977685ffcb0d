"""The other gateways that read the log, as their ``seen`` messages tell. Pure."""

from typing import NamedTuple

from celery_gateway.log.batch import Head

FORGET_SECONDS = 35.0
"""A gateway that has written nothing for this time is not listed any more."""


class Peer(NamedTuple):
    """A gateway that does not lead: the position that it had read, and when, in epoch seconds."""

    position: int
    at: float


class Peers:
    """The gateways that do not lead, as ``by_name``."""

    def __init__(self) -> None:
        self.by_name: dict[str, Peer] = {}

    def on_seen(self, head: Head) -> None:
        """Record a ``seen`` message of another gateway."""
        self.by_name[head.gateway] = Peer(head.first, head.at)
        for name in [name for name, peer in self.by_name.items() if head.at - peer.at > FORGET_SECONDS]:
            del self.by_name[name]

    def on_batch(self, head: Head) -> None:
        """Record that a gateway leads."""
        self.by_name.pop(head.gateway, None)
