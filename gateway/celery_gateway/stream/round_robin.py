"""A queue that is fair to clients: they take turns, and so do the items of each client.

Rules:

- The next item is that of the client that has waited longest; then all other waiting clients have their turn.
- The items of one client are in the order in which they were added.
- An item can be in the queue once. All calls take constant time.

A client with a thousand items therefore delays another client by one item at a time. Pure.
"""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class RoundRobin(Generic[T]):
    """Items that wait, by client. Falsy when it is empty."""

    __slots__ = ("_by_client", "_clients")

    def __init__(self) -> None:
        self._by_client: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()  # the next client first
        self._clients: dict[T, str] = {}

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._clients)

    def __contains__(self, item: T) -> bool:
        return item in self._clients

    def count(self, client: str) -> int:
        """Return the number of items of one client."""
        return len(self._by_client.get(client, ()))

    def add(self, client: str, item: T) -> None:
        """Add an item behind the other items of its client; an item that waits already keeps its place."""
        if item in self._clients:
            return
        self._clients[item] = client
        items = self._by_client.get(client)
        if items is None:
            items = self._by_client[client] = OrderedDict()
        items[item] = None

    def pop(self) -> T:
        """Remove and return the next item.

        Raises:
            KeyError: the queue is empty.
        """
        client, items = self._by_client.popitem(last=False)
        item, _ = items.popitem(last=False)
        del self._clients[item]
        if items:
            self._by_client[client] = items  # behind the other clients
        return item

    def discard(self, item: T) -> None:
        """Remove an item, if it is there. Its client keeps its place while it has other items."""
        client = self._clients.pop(item, None)
        if client is not None:
            items = self._by_client[client]
            del items[item]
            if not items:
                del self._by_client[client]
