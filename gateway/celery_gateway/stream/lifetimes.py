"""Lifetimes: streams that end at a time, or when their owner or their session ends.

Rules: a stream that has ended for another reason is not kept; a reference of 150 bytes stays for at most
two minutes. Times are rounded up to whole seconds of loop time, so that many streams share a timer; ends that
are far away are looked at again on the way.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary, ref

from celery_gateway.stream.messages import CloseReason
from celery_gateway.stream.subscription import Subscription

LOOK_SECONDS: Final = 60
"""Ends that are further away are grouped by this time, so that a timer for each is not needed."""

_T = TypeVar("_T")


_Due = tuple[ref[Subscription], float, CloseReason]
"""A stream, when it ends, in loop time, and why."""


class _Session(WeakSet[Subscription]):
    """The streams of a session. It exists as long as one of them does."""


class Lifetimes(Generic[_T]):
    """Ends subscriptions with ``gateway-close``."""

    def __init__(self) -> None:
        self._due: dict[int, list[_Due]] = {}  # by the time of their timers
        self._owned: WeakKeyDictionary[Subscription, tuple[_T, _Session | None]] = WeakKeyDictionary()
        self._sessions: WeakValueDictionary[str, _Session] = WeakValueDictionary()

    def end_after(self, subscription: Subscription, seconds: float, reason: CloseReason) -> None:
        """End a subscription once some seconds have passed."""
        loop = asyncio.get_running_loop()
        self._schedule(loop, (ref(subscription), loop.time() + max(0.0, seconds), reason))

    def own(self, subscription: Subscription, owner: _T, session: str) -> None:
        """Record whose stream it is, and the id of its session; empty without one."""
        streams = None
        if session:
            streams = self._sessions.get(session)
            if streams is None:
                streams = self._sessions[session] = _Session()
            streams.add(subscription)
        self._owned[subscription] = owner, streams

    def end_owned(self, is_revoked: Callable[[_T], bool], reason: CloseReason) -> None:
        """End the subscriptions of the owners that are revoked.

        Args:
            is_revoked: is called with the owner of each.
        """
        for subscription, (owner, _) in tuple(self._owned.items()):
            if not subscription.is_ended and is_revoked(owner):
                subscription.end(reason)

    def end_session(self, session: str, reason: CloseReason) -> None:
        """End the subscriptions of a session."""
        for subscription in tuple(self._sessions.get(session, ())):
            subscription.end(reason)

    def _schedule(self, loop: asyncio.AbstractEventLoop, due: _Due) -> None:
        now, at = loop.time(), due[1]
        is_far = at - now > 2 * LOOK_SECONDS
        timer_at = (int(now / LOOK_SECONDS) + 1) * LOOK_SECONDS if is_far else math.ceil(at)
        waiting = self._due.get(timer_at)
        if waiting is None:
            waiting = self._due[timer_at] = []
            loop.call_at(timer_at, self._look, timer_at)
        waiting.append(due)

    def _look(self, timer_at: int) -> None:
        """End the subscriptions that are due at the time of a timer, and schedule the others again."""
        loop = asyncio.get_running_loop()
        for due in self._due.pop(timer_at):
            reference, at, reason = due
            subscription = reference()
            if subscription is None or subscription.is_ended:
                continue
            if at <= timer_at:
                subscription.end(reason)
            else:
                self._schedule(loop, due)
