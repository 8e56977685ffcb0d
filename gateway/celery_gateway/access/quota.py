"""Quotas: what each principal may use at a time, and how often. Pure; the clock is an argument.

Rules:

- A quota by rate (``…_per_second``) has a burst of ``BURST_SECONDS``. All others limit what is in use at a
  time.
- A principal without a name has no quota: there is no authentication, and clients are charged by address.
- A ``Quota`` exists while something refers to it (a request, a place, a reservation of
  ``celery_gateway.stream.limits``), or until its rates are as if it had not been used. Then it is forgotten.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil, inf
from time import monotonic
from types import MappingProxyType
from typing import Final, NamedTuple, Self
from weakref import WeakValueDictionary

from celery_gateway.access.principal import Principal
from celery_gateway.errors import QuotaExceeded

QUOTA_DEFAULTS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "streams": 100,
        "new_streams_per_second": 20,
        "filter_cost": 10_000,
        "snapshots": 50,
        "lookups": 50,
        "memory_bytes": 32 << 20,
        "operations_per_second": 50,
    }
)
"""The quotas of a principal by name. A user with many tabs does not reach them."""
MINIMA: Final[Mapping[str, int]] = MappingProxyType({"memory_bytes": 1 << 20})
"""The lowest values; 1 for the others. With less memory hardly a request is possible."""
BURST_SECONDS: Final = 5.0
"""A rate allows at once what it allows in this time: all streams of a client that reconnects."""
RETRY_SECONDS: Final = 5.0
"""When to try again if it is not known when there will be room."""
MAX_RECENT: Final = 10_000
"""Maximum number of principals whose rates are remembered. The one used least recently is forgotten first."""
FORGET_SECONDS: Final = 1.0
"""Interval of looking for principals to forget."""
_TOLERANCE_SECONDS: Final = 1e-6
"""Sums of floats may be too large by this."""
_IN_USE: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "streams": ("streams are open", "close some"),
        "filter_cost": ("units of filter cost are in use", "use simpler filters, or close streams"),
        "snapshots": ("snapshots are being read", "request fewer at the same time"),
        "lookups": ("lookups are queued or running", "send fewer at the same time"),
        "memory_bytes": ("bytes are in use", "request less (fields=, limit=), or read faster"),
    }
)
"""What is in use, and what a client can do about it. The other quotas are rates."""
_RATES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "new_streams_per_second": "new streams",
        "operations_per_second": "operations on WebSockets, and actions",
    }
)
COUNTED: Final = ("streams", "snapshots", "lookups")
"""The quotas of which a ``Place`` is one."""


def check_quota(table: Mapping[str, object]) -> Mapping[str, float]:
    """Return the checked values of a table ``quota`` of the access file; others keep their defaults.

    Raises:
        ValueError: a name is unknown, or a value is not allowed.
    """
    checked: dict[str, float] = {}
    for name, value in table.items():
        if name not in QUOTA_DEFAULTS:
            raise ValueError(f"unknown quota {name!r}; allowed are {', '.join(QUOTA_DEFAULTS)}")
        minimum = MINIMA.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise ValueError(
                f"invalid quota {name} = {value!r}: it must be a whole number from {minimum:,} up"
            )
        checked[name] = value
    return checked


class QuotaStatistics(NamedTuple):
    """What principals use, and how often their quotas were exceeded.

    ``principals``: how many are remembered. ``in_use``: by name, of ``COUNTED``. ``exceeded``: by name.
    """

    principals: int
    in_use: dict[str, int]
    exceeded: dict[str, int]


class Place:
    """One of the streams, snapshots or lookups that a principal may have. ``release`` it at the end.

    A context manager, too.
    """

    __slots__ = ("_name", "_quota")

    def __init__(self, quota: "Quota | None", name: str) -> None:
        self._quota = quota
        self._name = name

    def release(self) -> None:
        """Give the place back. May be called again."""
        quota, self._quota = self._quota, None
        if quota is not None:
            quota._leave(self._name)

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """Release the place for one that is reserved within the block; keep it if the block raises.

        The block must not wait, since others could take the place.
        """
        quota = self._quota
        self.release()
        try:
            yield
        except BaseException:
            if quota is not None:
                quota._enter(self._name)
                self._quota = quota
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


class Quota:
    """What one principal may use, and what it uses. Made by ``Quotas.of``.

    Attributes:
        name: that of the principal.
    """

    __slots__ = ("__weakref__", "_full_at", "_limits", "_own", "_quotas", "_used", "name")

    def __init__(self, quotas: "Quotas", name: str) -> None:
        self.name = name
        self._quotas = quotas
        self._own: tuple[tuple[str, float], ...] = ()
        self._limits: Mapping[str, float] = {}  # the same
        self._used: Counter[str] = Counter()
        self._full_at: dict[str, float] = {}  # when each rate has its whole burst again

    def limit(self, name: str) -> float:
        """Return the limit of a quota: the principal's own, or the general one."""
        return self._limits[name] if name in self._limits else self._quotas.general[name]

    def set_own(self, limits: tuple[tuple[str, float], ...]) -> None:
        """Replace the principal's own limits."""
        if limits != self._own:
            self._own, self._limits = limits, dict(limits)

    def reserve(self, name: str) -> Place:
        """Return a place, until it is released.

        Args:
            name: one of ``COUNTED``.

        Raises:
            QuotaExceeded: all places are in use.
        """
        if self._used[name] >= self.limit(name):
            raise self.exceeded(name, self._used[name])
        self._enter(name)
        return Place(self, name)

    def take(self, name: str) -> None:
        """Count one new stream, or one operation.

        Args:
            name: one of the quotas by rate.

        Raises:
            QuotaExceeded: there were too many; this one does not count.
        """
        now, interval_seconds = self._quotas.clock(), 1 / self.limit(name)
        full_at = max(now, self._full_at.get(name, now)) + interval_seconds
        wait_seconds = full_at - now - BURST_SECONDS
        if wait_seconds > _TOLERANCE_SECONDS:
            raise self.exceeded(name, retry_seconds=wait_seconds)
        self._full_at[name] = full_at
        self._quotas.remember(self)

    def exceeded(self, name: str, used: float = 0, retry_seconds: float = RETRY_SECONDS) -> QuotaExceeded:
        """Return the error for a request beyond a quota.

        Args:
            used: how much is in use; unused for a rate.
            retry_seconds: when there will be room, in seconds from now.
        """
        limit = self.limit(name)
        if name in _RATES:
            message = (
                f"too many {_RATES[name]}: at most {limit:,} a second, and {limit * BURST_SECONDS:,.0f} at "
                f"once, are allowed; send fewer, or retry in {ceil(retry_seconds)} s"
            )
        else:
            what, remedy = _IN_USE[name]
            message = f"{used:,} {what}; {limit:,} are allowed at a time; {remedy}, or retry later"
        message = f"quota {name} exceeded: {message}"
        return QuotaExceeded(name, message, retry_seconds, limit=limit, principal=self.name)

    def is_unused(self, now: float) -> bool:
        """Return whether all rates have their whole burst."""
        return all(full_at <= now for full_at in self._full_at.values())

    def _enter(self, name: str) -> None:
        self._used[name] += 1
        self._quotas.in_use[name] += 1

    def _leave(self, name: str) -> None:
        self._used[name] -= 1
        self._quotas.in_use[name] -= 1


class _Unlimited(Quota):
    """The quota of principals without a name."""

    __slots__ = ()

    def limit(self, name: str) -> float:
        return inf

    def reserve(self, name: str) -> Place:
        return _NO_PLACE

    def take(self, name: str) -> None:
        pass


_NO_PLACE: Final = Place(None, "")
"""One of as many as there may be."""


class Quotas:
    """The quotas of all principals.

    Args:
        general: the limits of all principals by name; the others are ``QUOTA_DEFAULTS``.
        clock: the time in seconds, which never goes back.

    Attributes:
        general: all general limits. May be replaced (``set_general``).
        in_use: how many places of each kind are reserved.
        exceeded: how often each quota was exceeded. Counted by the caller that responds.
    """

    def __init__(
        self, general: Mapping[str, float] | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.clock = clock
        self.in_use: Counter[str] = Counter()
        self.exceeded: Counter[str] = Counter()
        self._has_principals = False  # without authentication, nothing has to be found
        self._by_name: WeakValueDictionary[str, Quota] = WeakValueDictionary()
        self._forgets_at = -inf
        self._recent: OrderedDict[str, Quota] = OrderedDict()  # by the time of their last ``take``
        self.set_general(general or {})

    def set_general(self, general: Mapping[str, float]) -> None:
        """Replace the limits of all principals that have none of their own. They hold at once."""
        self.general: Mapping[str, float] = {**QUOTA_DEFAULTS, **general}

    def of(self, principal: Principal) -> Quota:
        """Return the quota of a principal. Keep it while the principal's request is served.

        The limits are those of the newest principal with this name: its token may have been changed.
        """
        if not principal.name:
            return UNLIMITED
        self._has_principals = True
        quota = self._by_name.get(principal.name)
        if quota is None:
            quota = self._by_name[principal.name] = Quota(self, principal.name)
        quota.set_own(principal.quota)
        return quota

    def find(self, name: str) -> Quota:
        """Return the quota of a principal that is being served, by its name.

        Returns:
            A quota without limits for any other name, such as an address.
        """
        return self._by_name.get(name, UNLIMITED) if self._has_principals else UNLIMITED

    def remember(self, quota: Quota) -> None:
        """Keep a quota until its rates are as if it had not been used."""
        self._recent[quota.name] = quota
        self._recent.move_to_end(quota.name)
        self._forget()

    def statistics(self) -> QuotaStatistics:
        """Return what is in use, and the counts."""
        self._forget()
        return QuotaStatistics(len(self._by_name), dict(self.in_use), dict(self.exceeded))

    def _forget(self) -> None:
        """Forget principals that have not used their rates for a while."""
        now, recent = self.clock(), self._recent
        if now < self._forgets_at and len(recent) <= MAX_RECENT:
            return
        self._forgets_at = now + FORGET_SECONDS
        # In order: each has its whole burst BURST_SECONDS after its last ``take`` at the latest.
        while recent and (len(recent) > MAX_RECENT or next(iter(recent.values())).is_unused(now)):
            recent.popitem(last=False)


UNLIMITED: Final[Quota] = _Unlimited(Quotas(), "")
"""The quota without limits."""
