"""Limits on what clients may use: shared budgets, and counts of refused clients.

Rules:

- A budget is one amount for all clients. A client may use at most as much of it as it leaves free: half if it
  is alone, a third if another client uses as much. So a client that asks for too much is refused, and there
  is room for others.
- A part of a budget is a ``Reservation``. A smaller amount is always allowed.
- With authentication the client is the principal, and its quota holds, too (``celery_gateway.access.quota``).

Pure but for the log.
"""

import logging
import time
from collections import Counter
from typing import Final, NamedTuple

from celery_gateway.access.failures import Failures
from celery_gateway.access.quota import UNLIMITED, Quota, Quotas, QuotaStatistics
from celery_gateway.errors import OverLimit, QuotaExceeded

DEFAULT_MEMORY_BYTES: Final = 256 << 20
MAX_FILTER_COST: Final = 100_000
"""Maximum cost of all filters (see ``Filter.cost``)."""
LOG_SECONDS: Final = 60.0
REASONS: Final = (
    "actions",
    "body",
    "connections",
    "filters",
    "head",
    "input-rate",
    "lookups",
    "memory",
    "pipelining",
    "slow-request",
    "slow-response",
    "url",
)
"""Why a client was refused or disconnected, in alphabetical order."""

log = logging.getLogger(__name__)


class Budget:
    """An amount that clients share.

    Args:
        limit: the amount.
        reason: one of ``REASONS``, for ``OverLimit``.
        name: what the amount is of, for people.
        share: a client may use so many times as much as it leaves free.
        quotas: those of principals, by the name ``quota``.
    """

    def __init__(
        self,
        limit: int,
        reason: str,
        name: str,
        *,
        share: int = 1,
        quotas: Quotas | None = None,
        quota: str = "",
    ) -> None:
        self.limit = limit
        self._share = share
        self._quotas = quotas
        self._quota = quota
        self._reason = reason
        self._name = name
        self._used = 0
        self._by_client: dict[str, int] = {}

    @property
    def used(self) -> int:
        """The amount in use."""
        return self._used

    def used_by(self, client: str) -> int:
        """Return the amount that a client uses."""
        return self._by_client.get(client, 0)

    def reserve(self, client: str | None = None) -> "Reservation":
        """Return a reservation, empty at first.

        Args:
            client: who is charged, an IP address or the name of a principal; ``None`` for what several
                clients share, which only has to fit into the whole budget.
        """
        quota = UNLIMITED if self._quotas is None or client is None else self._quotas.find(client)
        return Reservation(self, client, quota)

    def over_limit(self, client: str | None, quota: Quota, by: int) -> OverLimit:
        """Return the error for a client that asks for ``by`` more and does not get it."""
        own = 0 if client is None else self.used_by(client)
        if quota is not UNLIMITED and own + by > quota.limit(self._quota):
            return quota.exceeded(self._quota, own)
        return OverLimit(
            self._reason,
            f"{self._name} are in use: a client may use at most as much as it leaves free"
            f"{'' if quota is not UNLIMITED else f' ({self._used:,} of {self.limit:,} are in use)'}; "
            "ask for less, or try again later",
        )

    def _change(self, client: str | None, quota: Quota, by: int) -> bool:
        own = 0 if client is None else self._by_client.get(client, 0)
        if by > 0:
            free = self.limit - self._used - by
            if free < 0 or (client is not None and own + by > self._share * free):
                return False
            if quota is not UNLIMITED and own + by > quota.limit(self._quota):
                return False
        self._used += by
        if client is not None:
            if own + by:
                self._by_client[client] = own + by
            else:
                self._by_client.pop(client, None)
        return True


class Reservation:
    """A part of a budget. ``release`` it when it is no longer needed.

    Attributes:
        amount: the reserved amount.
    """

    __slots__ = ("_budget", "_client", "_quota", "amount")

    def __init__(self, budget: Budget, client: str | None, quota: Quota) -> None:
        self._budget = budget
        self._client = client
        self._quota = quota  # referred to, so that it is not forgotten
        self.amount = 0

    def resize(self, amount: int) -> bool:
        """Set the amount; return False and change nothing if the budget does not allow it."""
        is_allowed = self._budget._change(self._client, self._quota, amount - self.amount)
        if is_allowed:
            self.amount = amount
        return is_allowed

    def grow(self, by: int) -> None:
        """Increase the amount.

        Raises:
            OverLimit: the budget or the quota does not allow it; the amount stays as it is.
        """
        if not self.resize(self.amount + by):
            raise self.over_limit(self.amount + by)

    def over_limit(self, amount: int) -> OverLimit:
        """Return the error for an amount that is not allowed (``resize``)."""
        return self._budget.over_limit(self._client, self._quota, amount - self.amount)

    def release(self) -> None:
        """Set the amount to zero. May be called again."""
        self.resize(0)


class LimitsStatistics(NamedTuple):
    """What is in use, and counts of refused clients that only grow."""

    memory_bytes: int
    filter_cost: int
    refused: dict[str, int]
    quotas: QuotaStatistics
    failed_authentications: int


class Limits:
    """What all clients together may use, and the counts of refused clients.

    Attributes:
        memory: bytes that are kept for clients, or because of them.
        filters: the cost of their filters (``Filter.cost``).
        quotas: what each principal may use.
        failures: failed authentications.
        refused: how often a client was refused or disconnected, by reason (``REASONS``).
    """

    def __init__(self, *, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        self.quotas = quotas = Quotas()
        self.failures = Failures()
        self.memory = Budget(
            memory_bytes,
            "memory",
            "memory for clients (--client-memory)",
            quotas=quotas,
            quota="memory_bytes",
        )
        self.filters = Budget(
            MAX_FILTER_COST, "filters", "filters of all clients", quotas=quotas, quota="filter_cost"
        )
        self.refused: Counter[str] = Counter()
        self._logged_at: dict[str, float] = {}  # by reason, monotonic time

    def statistics(self) -> LimitsStatistics:
        """Return what is in use, and the counts."""
        return LimitsStatistics(
            self.memory.used,
            self.filters.used,
            dict(self.refused),
            self.quotas.statistics(),
            self.failures.count,
        )

    def count(self, reason: str, details: str = "") -> None:
        """Count a client that was refused or disconnected; log each reason at most once a minute.

        Args:
            reason: one of ``REASONS``.
        """
        self.refused[reason] += 1
        if self._is_log_due(reason):
            log.warning(
                "limits: a client was refused or disconnected: %s%s (%d so far; logged once a minute)",
                reason,
                f": {details}" if details else "",
                self.refused[reason],
            )

    def count_error(self, error: OverLimit, details: str = "") -> None:
        """Count a client that was refused or disconnected because of an error, as ``count`` does."""
        if not isinstance(error, QuotaExceeded):
            self.count(error.reason, details)
            return
        self.quotas.exceeded[error.reason] += 1
        if self._is_log_due(f"quota {error.reason}"):
            log.warning(
                "limits: the principal %r: %s%s (%d so far for all principals; logged once a minute)",
                error.principal,
                f"{details}: " if details else "",
                error,
                self.quotas.exceeded[error.reason],
            )

    def _is_log_due(self, reason: str) -> bool:
        now = time.monotonic()
        is_due = now - self._logged_at.get(reason, -LOG_SECONDS) >= LOG_SECONDS
        if is_due:
            self._logged_at[reason] = now
        return is_due
