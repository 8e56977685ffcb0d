"""Lifetimes: streams that end at a time, or when the credential of their client is revoked.

Rules: a stream that has ended for another reason costs nothing more. Times are rounded up to whole seconds of
loop time, so that many streams share a timer.
"""

import asyncio
import math
from collections.abc import Callable, Hashable
from weakref import WeakKeyDictionary, WeakSet

from celery_gateway.stream.messages import CloseReason
from celery_gateway.stream.subscription import Subscription


class Lifetimes:
    """Ends subscriptions with ``gateway-close``; each is forgotten when it has ended."""

    def __init__(self) -> None:
        self._due: dict[tuple[int, CloseReason], WeakSet[Subscription]] = {}
        self._owners: WeakKeyDictionary[Subscription, Hashable] = WeakKeyDictionary()

    def end_after(self, subscription: Subscription, seconds: float, reason: CloseReason) -> None:
        """End a subscription once some seconds have passed."""
        loop = asyncio.get_running_loop()
        due = math.ceil(loop.time() + max(0.0, seconds)), reason
        subscriptions = self._due.get(due)
        if subscriptions is None:
            subscriptions = self._due[due] = WeakSet()
            loop.call_at(due[0], self._end, due)
        subscriptions.add(subscription)

    def own(self, subscription: Subscription, owner: Hashable) -> None:
        """Record whose stream it is, for ``end_owned``."""
        self._owners[subscription] = owner

    def end_owned(self, is_revoked: Callable[[Hashable], bool], reason: CloseReason) -> None:
        """End the subscriptions of the owners that are revoked.

        Args:
            is_revoked: is called with each owner.
        """
        for subscription, owner in tuple(self._owners.items()):
            if not subscription.is_ended and is_revoked(owner):
                subscription.end(reason)

    def _end(self, due: tuple[int, CloseReason]) -> None:
        for subscription in tuple(self._due.pop(due, ())):
            subscription.end(due[1])
