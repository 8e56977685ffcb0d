"""What a soak test found: its figures, its verdict, and the page that publishes them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_GROWTH_BYTES = 15 << 20
"""How much more memory the gateway may have at the end than after a minute. Its tables are full by then; what
still moves is the allocator, and how much waits for those who stall."""
WARM_SECONDS = 180.0
MAX_TASKS = 20_000
"""Fewer than the gateway's default, so that the table of tasks is full about when the history is, within a
minute: what grows after that has no bound."""
ABSENT = ("nginx", "Nchan", "nats-server", "gcc")
"""Of the benchmarks' programs, those that take no part."""


class Sample(NamedTuple):
    """How things stood at a time. Counts are from the beginning; memory and CPU time are the gateway's."""

    at_seconds: float
    published: int
    delivered: int
    connected: int
    gaps: int
    violations: int
    resident_bytes: int
    cpu_seconds: float


@dataclass
class Soak:
    """A run: what was asked for, and what was seen.

    Attributes:
        restarts: of the broker.
        counts: the audience's, by name.
        told: the first violations, in words.
        errors: what the gateway logged as errors, and what else went wrong with it.
    """

    minutes: float
    rate: float
    subscribers: int
    seconds: float = 0.0
    restarts: int = 0
    samples: list[Sample] = field(default_factory=list)
    counts: Mapping[str, int] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def warm(self) -> Sample:
        """The first sample after a minute."""
        return next((s for s in self.samples if s.at_seconds >= WARM_SECONDS), self.samples[-1])

    @property
    def end(self) -> Sample:
        return self.samples[-1]

    @property
    def growth_bytes(self) -> int:
        return self.end.resident_bytes - self.warm.resident_bytes

    @property
    def is_good(self) -> bool:
        return not (self.counts.get("violations", 0) or self.errors or self.growth_bytes > MAX_GROWTH_BYTES)

    def figures(self) -> Iterator[tuple[str, str]]:
        """Yield what was measured, by name."""
        counts, end = Counter(self.counts), self.end
        yield "time", f"{self.seconds / 60:.1f} minutes"
        yield "events published", f"{end.published:,} ({end.published / self.seconds:,.0f} a second)"
        yield (
            "events delivered",
            f"{counts['delivered']:,} ({counts['delivered'] / self.seconds:,.0f} a second)",
        )
        yield "broker restarts", f"{self.restarts}"
        yield (
            "subscribers",
            f"{self.subscribers}, a few of them away at any time; streams: {_parts(counts, 'opened')}",
        )
        left = "left", "cut, to come back", "stalls"
        yield "what they did", ", ".join(f"{name}: {counts[name]:,}" for name in left)
        yield "gaps told", _parts(counts, "gaps")
        yield "events lost inside told gaps", f"{counts['lost inside gaps']:,}"
        yield "streams ended by the gateway", _parts(counts, "closed")
        yield "violations", f"{counts['violations']:,}"
        yield "errors of the gateway", f"{len(self.errors)}"
        yield (
            "memory of the gateway",
            f"{_mib(self.warm.resident_bytes)} after {self.warm.at_seconds / 60:.1f} minutes, "
            f"{_mib(max(sample.resident_bytes for sample in self.samples))} at most, "
            f"{_mib(end.resident_bytes)} at the end",
        )
        yield "CPU time of the gateway", f"{end.cpu_seconds / self.seconds:.2f} s a second"

    def verdict(self) -> Iterator[str]:
        """Yield lines for the one who waits."""
        yield from (f"{name}: {value}" for name, value in self.figures())
        yield from (f"violation: {text}" for text in self.told)
        yield from (f"error: {text}" for text in self.errors)
        if self.growth_bytes > MAX_GROWTH_BYTES:
            yield f"the memory grew by {_mib(self.growth_bytes)}; {_mib(MAX_GROWTH_BYTES)} are allowed"
        yield "GOOD" if self.is_good else "NOT GOOD"


def document(soak: Soak, where: Mapping[str, str], what: Mapping[str, str], command: str, date: str) -> str:
    """Return the page, in Markdown."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in soak.figures())
    wrong = "".join(f"- {line}\n" for line in (*soak.told, *soak.errors))
    every = max(1, len(soak.samples) // 20)
    course = "\n".join(
        f"| {s.at_seconds / 60:.1f} | {s.published:,} | {s.delivered:,} | {s.connected} | {s.gaps:,} "
        f"| {_mib(s.resident_bytes)} | {s.cpu_seconds:.0f} s |"
        for s in (*soak.samples[:-1:every], soak.end)
    )
    return f"""# The soak test

`{command}`, {date}. Events numbered by their authors; subscribers over SSE, NDJSON and
WebSocket, with filters of all kinds, that come, stall, are cut and return with their `Last-Event-ID`; and a
broker that goes away once a minute, by turns in good order and killed. Each subscriber checks that what it
asked for came once and in its author's order, and that whatever did not come lies in a `gateway-gap` that it
was told.

On {_list(where)}. With {_list({name: text for name, text in what.items() if name not in ABSENT})}.

**{"Good" if soak.is_good else "Not good"}.** A violation would make it not so, an error in the gateway's log,
or more than {_mib(MAX_GROWTH_BYTES)} of memory more at the end than after three minutes, when its tables are
full, that of forgotten tasks as the last (it ran with room for {MAX_TASKS:,} tasks; the history had its
default of 64 MiB).

| | |
|---|---|
{rows}

{wrong}
| minute | published | delivered | connected | gaps told | memory | CPU |
|---|---|---|---|---|---|---|
{course}

"Gaps told" counts each subscriber's: a restart of the broker is told to all of them, as `broker`. `evicted`
is told to one that stalled or stayed away for longer than the history reaches back.
"""


def _parts(counts: Mapping[str, int], name: str) -> str:
    """Return counts such as ``gaps (broker)`` as text."""
    parts = {key[len(name) + 2 : -1]: n for key, n in sorted(counts.items()) if key.startswith(f"{name} (")}
    return ", ".join(f"{n:,} {part}" for part, n in parts.items()) or "none"


def _list(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / (1 << 20):.0f} MiB"
