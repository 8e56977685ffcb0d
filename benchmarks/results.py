"""The results of a run, by scenario; ``None`` if a scenario was not run.

A figure of several rounds is their median. A ratio is computed within each round first: the speed of a shared
machine drifts, and the rows of one round are measured within seconds of each other.
"""

from dataclasses import dataclass, field
from statistics import median

from benchmarks.measure import Delivery, Load

REFERENCE = "nchan"


@dataclass
class FanOut:
    """A load on each contender: deliveries by contender and number of the round."""

    load: Load
    rows: dict[str, dict[int, Delivery]] = field(default_factory=dict)

    def cpu_us(self, name: str) -> float:
        """Return CPU microseconds per delivery."""
        return median(round.cpu_us_per_delivery for round in self.rows[name].values())

    def p50_ms(self, name: str) -> float:
        return median(round.p50_seconds for round in self.rows[name].values()) * 1e3

    def p99_ms(self, name: str) -> float:
        return median(round.p99_seconds for round in self.rows[name].values()) * 1e3

    def ratio(self, name: str, reference: str = REFERENCE) -> float | None:
        """Return CPU per delivery relative to another contender; ``None`` without a common round."""
        own, others = self.rows.get(name, {}), self.rows.get(reference, {})
        ratios = [
            own[number].cpu_us_per_delivery / others[number].cpu_us_per_delivery
            for number in own.keys() & others.keys()
        ]
        return median(ratios) if ratios else None


@dataclass
class Roots:
    """Subscribers with one root id each, compared with one subscriber whose filter matches nothing."""

    load: Load
    many: list[Delivery] = field(default_factory=list)
    one: list[Delivery] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    """The number of events in the gateway's history at the end of each round of ``one``."""

    @property
    def ratio(self) -> float:
        pairs = zip(self.many, self.one, strict=True)
        return median(many.cpu_us_per_event / one.cpu_us_per_event for many, one in pairs)


@dataclass(frozen=True)
class Connections:
    """Idle connections of one server."""

    connections: int
    bytes_per_connection: float
    accepted_per_second: float
    cpu_us_per_connection: float


@dataclass(frozen=True)
class Idle:
    """Many idle connections. Keep-alives are counted per connection; silence is the time without a byte."""

    connections: int
    seconds: float
    keepalive_seconds: float
    closed: int
    cpu_share: float
    fewest_keepalives: int
    most_keepalives: int
    silence_p99_seconds: float
    silence_worst_seconds: float


@dataclass
class Stalled:
    """Healthy readers, with and without stalled ones beside them."""

    load: Load
    readers: int
    beside: list[Delivery] = field(default_factory=list)
    without: list[Delivery] = field(default_factory=list)
    grown_bytes: list[int] = field(default_factory=list)
    """The gateway's memory at the end of each round with stalled readers, minus that without."""

    @property
    def p99_ratio(self) -> float:
        return self.p99_ms(self.beside) / self.p99_ms(self.without)

    @staticmethod
    def p99_ms(rounds: list[Delivery]) -> float:
        return median(round.p99_seconds for round in rounds) * 1e3


@dataclass
class Ingest:
    """CPU microseconds per event of intake, by consumer and by events per message."""

    rate: int
    rows: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    def cpu_us(self, name: str, batch: int) -> float | None:
        rounds = self.rows.get(name, {}).get(batch)
        return median(rounds) if rounds else None

    def ratio(self, name: str, reference: str, batch: int) -> float | None:
        """Return CPU per event relative to another consumer in the same round."""
        own, others = (self.rows.get(row, {}).get(batch, []) for row in (name, reference))
        ratios = [mine / theirs for mine, theirs in zip(own, others, strict=False)]
        return median(ratios) if ratios else None


@dataclass
class State:
    """The cost of keeping the state of tasks, and the latency of requests for it under load.

    ``state_us`` is in addition to ``normalize_us`` (decoding an event) and ``join_us`` (adding its names).
    """

    rate: int
    normalize_us: list[float] = field(default_factory=list)
    join_us: list[float] = field(default_factory=list)
    state_us: list[float] = field(default_factory=list)
    lookups: int = 0
    p50_seconds: list[float] = field(default_factory=list)
    p99_seconds: list[float] = field(default_factory=list)


@dataclass
class Statistics:
    """CPU microseconds per event, of the stages from decoding to the task table.

    ``statistics_us``: of the statistics of names, in addition to ``without_us``.
    """

    without_us: list[float] = field(default_factory=list)
    statistics_us: list[float] = field(default_factory=list)


@dataclass
class SharedLog:
    """CPU microseconds per event by gateway and by events per message, and latency at a calm rate.

    ``resumed``: how many clients resumed at once, their deliveries, and the seconds for that;
    ``live_p99_seconds``: of live subscribers without and beside them.
    """

    rate: int
    calm_rate: int
    rows: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    p50_seconds: dict[str, list[float]] = field(default_factory=dict)
    resumed: tuple[int, int, float] | None = None
    live_p99_seconds: tuple[float, float] = (0.0, 0.0)

    def extra_us(self, name: str, batch: int) -> float | None:
        """Return CPU per event in addition to that of the log in memory, in the same round."""
        own, others = (self.rows.get(row, {}).get(batch, []) for row in (name, "memory"))
        extra = [mine - theirs for mine, theirs in zip(own, others, strict=False)]
        return median(extra) if extra else None

    def cpu_us(self, name: str, batch: int) -> float | None:
        """Return CPU per event."""
        rounds = self.rows.get(name, {}).get(batch)
        return median(rounds) if rounds else None


@dataclass
class Results:
    """A whole run. ``notes`` has what was left out, with the reason."""

    fan_out: list[FanOut] = field(default_factory=list)
    roots: Roots | None = None
    connections: dict[str, Connections] = field(default_factory=dict)
    idle: Idle | None = None
    stalled: Stalled | None = None
    ingest: Ingest | None = None
    state: State | None = None
    statistics: Statistics | None = None
    shared_log: SharedLog | None = None
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a note, unless it exists."""
        if text not in self.notes:
            self.notes.append(text)
