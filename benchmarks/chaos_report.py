"""The results of the chaos test: the figures, the verdict, and the published page."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.chaos_faults import Record

USED = ("celery-gateway", "Python", "RabbitMQ", "nginx", "aio-pika", "uvicorn", "uvloop", "celery", "kombu")
"""The programs of ``machine.versions`` that take part."""


@dataclass
class Run:
    """A run: its options and its results.

    Attributes:
        fault_seconds: how long faults were injected; ``seconds``: with the checks.
        uncertain: events that the broker has not confirmed, because it was stopped.
        failovers: how often a gateway has begun to lead.
        delays: by the number of the fault, of each probe.
        errors: those in the logs of the gateways.
    """

    engine: str
    seed: int
    faults: int
    rate: float
    subscribers: int
    seconds: float = 0.0
    fault_seconds: float = 0.0
    published: int = 0
    uncertain: int = 0
    failovers: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    delays: Mapping[int, list[float]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return bool(self.counts) and not self.violations and not self.errors

    def figures(self) -> Iterator[tuple[str, str]]:
        """Yield the results, by name."""
        counts = Counter(self.counts)
        yield "time", f"{self.seconds / 60:.1f} minutes, {self.fault_seconds / 60:.1f} of them with faults"
        yield "faults", f"{len(self.records)}, and {counts['cut']:,} clients cut"
        yield "failovers", f"{self.failovers}"
        yield "events published", f"{self.published:,}, {self.uncertain} of them not confirmed"
        yield "entries of the log", f"{counts['entries']:,}, in {counts['terms']} terms"
        dropped = counts["dropped by the broker"]
        yield "gaps in the log", f"{counts['gaps']}, for {dropped:,} events that the broker has dropped"
        yield "events delivered", f"{counts['delivered']:,}"
        yield "tasks compared", f"{counts['tasks']:,}"
        yield "streams opened", _parts(counts, "opened")
        yield "streams ended", _parts(counts, "closed")
        yield "connections lost", _parts(counts, "ended")
        yield "requests refused", _parts(counts, "refused")
        yield "violations", f"{max(counts['violations'], len(self.violations))}"
        yield "errors in the logs", f"{len(self.errors)}"

    def verdict(self) -> Iterator[str]:
        """Yield the lines to print at the end."""
        yield from (f"{name}: {value}" for name, value in self.figures())
        yield from (f"violation: {text}" for text in self.violations)
        yield from (f"error: {text}" for text in self.errors[:20])
        yield from (" | ".join(row) for row in delay_rows([self]))
        yield "PASSED" if self.is_good else "FAILED"


def delay_rows(runs: Sequence[Run]) -> Iterator[tuple[str, ...]]:
    """Yield kind, count, then p50, p95 and maximum of the delays in seconds: of faults alone, and of all."""
    found: dict[str, tuple[int, list[float], list[float]]] = {}
    for run in runs:
        for record in run.records:
            kind = record.kind + (" (leader)" if record.is_leader else "")
            number, alone, every = found.get(kind, (0, [], []))
            delays = run.delays.get(record.number, [])
            found[kind] = (
                number + 1,
                alone + (delays if record.is_alone else []),
                every + delays,
            )
    for kind, (number, alone, every) in sorted(found.items()):
        yield kind, str(number), *_distribution(alone), *_distribution(every)


def _distribution(values: list[float]) -> tuple[str, str, str]:
    if not values:
        return "", "", ""
    ordered = sorted(values)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.95)]
    return f"{at[0]:.2f}", f"{at[1]:.2f}", f"{ordered[-1]:.2f}"


def document(
    runs: Sequence[Run], where: Mapping[str, str], what: Mapping[str, str], command: str, date: str
) -> str:
    """Return the page as Markdown."""
    is_good = all(run.is_good for run in runs)
    names = [name for name, _ in runs[0].figures()]
    values = [[value for _, value in run.figures()] for run in runs]
    head = " | ".join(f"{run.engine}, seed {run.seed}" for run in runs)
    figures = "\n".join(
        f"| {name} | {' | '.join(column[at] for column in values)} |" for at, name in enumerate(names)
    )
    delays = "\n".join(f"| {' | '.join(row)} |" for row in delay_rows(runs))
    wrong = "".join(f"- {line}\n" for run in runs for line in (*run.violations, *run.errors))
    programs = {name: text for name, text in what.items() if name in USED}
    return f"""# Chaos test

`{command}`, {date}. Three gateways share one log (`--log`), behind an nginx without affinity.
A publisher sends {runs[0].rate:g} events a second of simulated workers: some events come before the one that
names their task, and some workers crash. {runs[0].subscribers} subscribers read over SSE, NDJSON and
WebSocket, with and without filters. They are cut at random, and resume with their last id at whichever
gateway nginx selects.

Meanwhile faults happen, drawn from a seed. Gateways are killed, shut down, frozen (SIGSTOP for 4 to 7 s) and
disconnected from their servers (no byte passes for 1 to 8 s, or connections are reset). All gateways are
stopped for 2 to 12 s. The broker is shut down or killed, and started again. Half of the faults of one gateway
concern the leader. Faults overlap.

On {_list(where)}. With {_list(programs)}.

**{"Passed" if is_good else "Failed"}.** In the end all faults are undone, and the test compares:

- **The log.** Each gateway has the same stream from the first entry on, byte for byte, and its positions have
  no hole.
- **The events.** Each event that the broker has confirmed is in it exactly once. So is the `task-lost` of
  each task of a crashed worker. The exception is a restart of the broker: while RabbitMQ starts, it confirms
  messages and drops them. The log has at most one gap for each restart, and nothing is missing without a gap.
- **The subscribers.** Each has got each event that its filter selects: once, in order, with the same bytes,
  and no other gap. Each connection after its first one was `resumed`.
- **The tasks.** `GET /tasks` returns the same records at each gateway, and their states are the true ones.

| | {head} |
|---|{"---|" * len(runs)}
{figures}

{wrong}
## Delays

The time in seconds from a fault until another gateway delivers the first event that was published after it.
After a restart of the broker it counts from the moment when the broker accepts connections again, and after
a stop of all gateways from their start. *Alone* are faults while everything else worked; *all* includes
faults that overlap, for example when the next leader is killed as well. "(leader)" is a fault of the gateway
that led.

| fault | number | alone: p50 | p95 | max | all: p50 | p95 | max |
|---|---|---|---|---|---|---|---|
{delays}

## Repeating

`make chaos` runs seed 1, in about ten minutes. This makes a run with each engine and seed:

```sh
make chaos ARGS='--engine rabbitmq redis --seed 1 2 --faults 500 --write'
```

A seed determines the kinds of faults, their order and their lengths. The state of the gateways when a fault
happens depends on the machine.
"""


def _parts(counts: Mapping[str, int], name: str) -> str:
    """Return counts such as ``opened (resumed)`` as text."""
    parts = {key[len(name) + 2 : -1]: n for key, n in sorted(counts.items()) if key.startswith(f"{name} (")}
    return ", ".join(f"{n:,} {part}" for part, n in parts.items()) or "none"


def _list(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
