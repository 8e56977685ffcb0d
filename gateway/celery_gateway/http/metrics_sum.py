"""The metrics of the processes of one gateway as one. Pure; light, since the supervisor imports it.

A process reports its series; ``total`` combines the reports of all. Counters of processes that have ended
are kept (``counters``), so that no counter goes back when a process is replaced.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

PEERS: Final = "celery_gateway.peers"
"""The key of ``Peers`` in the state of a server's lifespan, if the gateway has several processes."""
REPLACED: Final = "processes_replaced"
"""The name of the counter of the supervisor."""


class Across(StrEnum):
    """How the values of several processes become one."""

    SUM = "sum"
    """Each process counts its own: its clients, or what only the leader of the log does."""
    MAX = "max"
    """All processes have the same, because all read the same log: the value of the one that is furthest."""


class Series(NamedTuple):
    """A metric with one combination of labels.

    Attributes:
        name: the metric's, without prefix and suffix.
        labels: names and values.
    """

    name: str
    labels: tuple[tuple[str, str], ...]
    is_counter: bool
    across: Across
    value: float


Report = Sequence[Series]


class Peers(Protocol):
    """The other processes of the gateway."""

    async def total(self, own: Report) -> Report:
        """Return the metrics of all processes.

        Args:
            own: the metrics of this one.

        Raises:
            TimeoutError: the supervisor does not answer.
        """


def total(reports: Iterable[Report]) -> list[Series]:
    """Return the metrics of several processes as one report; the series of a metric follow each other."""
    combined: dict[tuple[str, tuple[tuple[str, str], ...]], Series] = {}
    for series in (series for report in reports for series in report):
        key = series.name, series.labels
        before = combined.get(key)
        if before is None:
            combined[key] = series
        else:
            values = before.value, series.value
            value = sum(values) if series.across is Across.SUM else max(values)
            combined[key] = series._replace(value=value)
    order = {name: index for index, (name, _) in enumerate(reversed(combined))}
    return sorted(combined.values(), key=lambda series: -order[series.name])


def counters(report: Report) -> list[Series]:
    """Return what remains of a process that has ended."""
    return [series for series in report if series.is_counter]
