"""The results of a soak test: the figures, the verdict, and the published page."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_GROWTH_BYTES = 15 << 20
"""How much the gateway's memory may grow after ``WARM_SECONDS``. Its tables are full by then. The
allocator still varies, and so does the unread data of stalled subscribers."""
WARM_SECONDS = 180.0
MAX_TASKS = 20_000
"""Fewer than the gateway's default, so that the task table and the history are full within a minute: anything
that grows after that has no bound."""
ABSENT = ("nginx", "Nchan", "nats-server", "gcc")
"""The programs of the benchmarks that this test does not use."""


class Sample(NamedTuple):
    """One sample. Counts are from the beginning; memory and CPU time are those of the gateway."""

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
    """A run: its options and its results.

    Attributes:
        restarts: restarts of the broker.
        counts: counts of the subscribers, by name.
        told: the first violations, as text.
        errors: errors in the gateway's log, and other errors of the gateway.
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
        """The first sample after ``WARM_SECONDS``."""
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
        """Yield the results, by name."""
        counts, end = Counter(self.counts), self.end
        yield "time", f"{self.seconds / 60:.1f} minutes"
        yield "events published", f"{end.published:,} ({end.published / self.seconds:,.0f} per second)"
        yield (
            "events delivered",
            f"{counts['delivered']:,} ({counts['delivered'] / self.seconds:,.0f} per second)",
        )
        yield "broker restarts", f"{self.restarts}"
        yield (
            "subscribers",
            f"{self.subscribers}, a few of them away at any time; streams: {_parts(counts, 'opened')}",
        )
        done = {"left": "left", "cut, to come back": "disconnected, to resume", "stalls": "stalled"}
        yield "actions of subscribers", ", ".join(f"{text}: {counts[name]:,}" for name, text in done.items())
        yield "gaps reported", _parts(counts, "gaps")
        yield "events lost inside reported gaps", f"{counts['lost inside gaps']:,}"
        yield "streams ended by the gateway", _parts(counts, "closed")
        yield "violations", f"{counts['violations']:,}"
        yield "errors of the gateway", f"{len(self.errors)}"
        yield (
            "memory of the gateway",
            f"{_mib(self.warm.resident_bytes)} after {self.warm.at_seconds / 60:.1f} minutes, "
            f"{_mib(max(sample.resident_bytes for sample in self.samples))} at most, "
            f"{_mib(end.resident_bytes)} at the end",
        )
        yield "CPU time of the gateway", f"{end.cpu_seconds / self.seconds:.2f} s per second"

    def verdict(self) -> Iterator[str]:
        """Yield the lines to print at the end."""
        yield from (f"{name}: {value}" for name, value in self.figures())
        yield from (f"violation: {text}" for text in self.told)
        yield from (f"error: {text}" for text in self.errors)
        if self.growth_bytes > MAX_GROWTH_BYTES:
            yield f"the memory grew by {_mib(self.growth_bytes)}; {_mib(MAX_GROWTH_BYTES)} are allowed"
        yield "PASSED" if self.is_good else "FAILED"


def document(soak: Soak, where: Mapping[str, str], what: Mapping[str, str], command: str, date: str) -> str:
    """Return the page as Markdown."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in soak.figures())
    wrong = "".join(f"- {line}\n" for line in (*soak.told, *soak.errors))
    every = max(1, len(soak.samples) // 20)
    course = "\n".join(
        f"| {s.at_seconds / 60:.1f} | {s.published:,} | {s.delivered:,} | {s.connected} | {s.gaps:,} "
        f"| {_mib(s.resident_bytes)} | {s.cpu_seconds:.0f} s |"
        for s in (*soak.samples[:-1:every], soak.end)
    )
    return f"""# Soak test

`{command}`, {date}. Publishers send numbered events for {soak.seconds / 60:.0f} minutes.
Subscribers read over SSE, NDJSON and WebSocket, with many kinds of filters. They connect, stall, are
disconnected, and resume with their last id. Once a minute the broker stops: in order and killed, in turn.
Each subscriber checks two things: each event that its filter selects arrives once and in order, and each
event that does not arrive lies in a reported `gateway-gap`.

On {_list(where)}. With {_list({name: text for name, text in what.items() if name not in ABSENT})}.

**{"Passed" if soak.is_good else "Failed"}.** The test fails if there is a violation, an error in the
log of the gateway, or if the memory at the end is more than {_mib(MAX_GROWTH_BYTES)} above that after
three minutes. By then all tables are full; the test runs with `--max-tasks {MAX_TASKS}` and the default
history of 64 MiB.

| | |
|---|---|
{rows}

{wrong}
| minute | published | delivered | connected | gaps | memory | CPU |
|---|---|---|---|---|---|---|
{course}

"Gaps" counts those of each subscriber: a restart of the broker is reported to all of them, as `broker`.
`evicted` is reported to a subscriber that stalled or was away for longer than the history reaches back.
"""


def _parts(counts: Mapping[str, int], name: str) -> str:
    """Return counts such as ``gaps (broker)`` as text."""
    parts = {key[len(name) + 2 : -1]: n for key, n in sorted(counts.items()) if key.startswith(f"{name} (")}
    return ", ".join(f"{n:,} {part}" for part, n in parts.items()) or "none"


def _list(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / (1 << 20):.0f} MiB"
