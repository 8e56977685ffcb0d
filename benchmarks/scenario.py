"""What every scenario has: its arguments, and the size of the measurements."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from benchmarks.child import ChildError
from benchmarks.lab import Lab
from benchmarks.results import Results
from benchmarks.servers import Contender, Unavailable
from tests.support.rabbitmq import ProcessError


class Scale(NamedTuple):
    """The size of the measurements.

    Attributes:
        seconds: the duration of each load.
        rounds: the rounds of each comparison.
        connections: the number of connections whose memory is measured.
        idle_connections: the number of connections held for ``idle_seconds``, with ``keepalive_seconds``.
    """

    seconds: float
    rounds: int
    connections: int
    idle_connections: int
    idle_seconds: float
    keepalive_seconds: float


FULL = Scale(4.0, 3, 2000, 10_000, 48.0, 15.0)
QUICK = Scale(1.0, 1, 500, 2000, 5.0, 2.0)


class Run(NamedTuple):
    """The arguments of every scenario; ``send`` prints progress."""

    lab: Lab
    scale: Scale
    contenders: Sequence[Contender]
    results: Results
    send: Callable[[str], None]

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Note an error of the block, and leave its measurement out."""
        try:
            yield
        except (Unavailable, ChildError, ProcessError) as error:
            text = f"{what}: not measured: {' '.join(str(error).split())[:300]}"
            self.send(text)
            self.results.note(text)
