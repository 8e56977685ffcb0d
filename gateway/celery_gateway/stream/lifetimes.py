"""Lifetimes: streams that end at a time, or when their owner or their session ends.

Rules: a stream that has ended for another reason leaves nothing behind. Times are rounded up to whole seconds
of loop time, so that many streams share a timer; those that are far away are looked at again on the way.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

from celery_gateway.stream.messages import CloseReason
from celery_gateway.stream.subscription import Subscription

LOOK_SECONDS: Final = 60
"""Ends that are further away are grouped by this time, so that a timer for each is not needed."""

_T = TypeVar("_T")


class _Due(NamedTuple):
    """When a stream ends, in loop time, and why."""

    at: float
    reason: CloseReason


class _Session(WeakSet[Subscription]):
    """The streams of a session. It exists as long as one of them does."""


class _Owned(NamedTuple, Generic[_T]):
    owner: _T
    session: _Session | None


class Lifetimes(Generic[_T]):
    """Ends subscriptions with ``gateway-close``."""

    def __init__(self) -> None:
        self._due: dict[int, WeakKeyDictionary[Subscription, list[_Due]]] = {}  # by the time of their timers
        self._owned: WeakKeyDictionary[Subscription, _Owned[_T]] = WeakKeyDictionary()
        self._sessions: WeakValueDictionary[str, _Session] = WeakValueDictionary()

    def end_after(self, subscription: Subscription, seconds: float, reason: CloseReason) -> None:
        """End a subscription once some seconds have passed."""
        self._schedule(subscription, _Due(asyncio.get_running_loop().time() + max(0.0, seconds), reason))

    def own(self, subscription: Subscription, owner: _T, session: str) -> None:
        """Record whose stream it is, and the id of its session; empty without one."""
        streams = None
        if session:
            streams = self._sessions.get(session)
            if streams is None:
                streams = self._sessions[session] = _Session()
            streams.add(subscription)
        self._owned[subscription] = _Owned(owner, streams)

    def end_owned(self, is_revoked: Callable[[_T], bool], reason: CloseReason) -> None:
        """End the subscriptions of the owners that are revoked.

        Args:
            is_revoked: is called with the owner of each.
        """
        for subscription, owned in tuple(self._owned.items()):
            if not subscription.is_ended and is_revoked(owned.owner):
                subscription.end(reason)

    def end_session(self, session: str, reason: CloseReason) -> None:
        """End the subscriptions of a session."""
        for subscription in tuple(self._sessions.get(session, ())):
            subscription.end(reason)

    def _schedule(self, subscription: Subscription, due: _Due) -> None:
        loop = asyncio.get_running_loop()
        timer_at = math.ceil(due.at)
        if due.at - loop.time() > 2 * LOOK_SECONDS:
            timer_at = math.floor(loop.time() / LOOK_SECONDS + 1) * LOOK_SECONDS
        subscriptions = self._due.get(timer_at)
        if subscriptions is None:
            subscriptions = self._due[timer_at] = WeakKeyDictionary()
            loop.call_at(timer_at, self._look, timer_at)
        subscriptions.setdefault(subscription, []).append(due)

    def _look(self, timer_at: int) -> None:
        """End the subscriptions that are due at the time of a timer, and schedule the others again."""
        for subscription, ends in tuple(self._due.pop(timer_at).items()):
            for due in ends:
                if subscription.is_ended:
                    break
                if due.at <= timer_at:
                    subscription.end(due.reason)
                else:
                    self._schedule(subscription, due)
