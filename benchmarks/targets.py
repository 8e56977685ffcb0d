"""The targets of the benchmarks, and whether a run meets them."""

from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from benchmarks.results import FanOut, Results
from benchmarks.scenarios import INGESTING, RECEIVER

KEEPALIVE_GRACE_SECONDS = 1.0


class Verdict(NamedTuple):
    """One row of the table of targets."""

    what: str
    limit: str
    measured: str
    met: bool


def verdicts(results: Results) -> Iterator[Verdict]:
    """Yield a verdict for each target whose figure was measured."""
    limits = {500: (0.50, 1 / 6, "1/6", 60), 3000: (3.5, 0.6, "0.6", 120)}
    for fan_out in results.fan_out:
        yield from _fan_out(fan_out, *limits[fan_out.load.connections])
    if roots := results.roots:
        what = "5000 SSE, each with its own root_id, 2000 events/s: CPU per event, relative to one client"
        yield Verdict(what, "1.3 ×", f"{roots.ratio:.2f} ×", roots.ratio <= 1.3)
    for name, kilobytes in (("gateway-sse", 10), ("gateway-ws", 18)):
        if found := results.connections.get(name):
            size = found.bytes_per_connection / 1e3
            kind = "SSE" if name == "gateway-sse" else "WebSocket"
            yield Verdict(
                f"memory per idle {kind} connection", f"{kilobytes} KB", f"{size:.1f} KB", size <= kilobytes
            )
    if idle := results.idle:
        yield Verdict(
            f"{idle.connections:,} idle connections: CPU of a core",
            "5 %",
            f"{idle.cpu_share:.1%}",
            idle.cpu_share < 0.05,
        )
        longest = idle.keepalive_seconds + KEEPALIVE_GRACE_SECONDS
        yield Verdict(
            f"{idle.connections:,} idle connections: none closed, keep-alives on time",
            f"0 closed, {longest:.0f} s",
            f"{idle.closed} closed, longest silence {idle.silence_worst_seconds:.1f} s",
            not idle.closed and idle.silence_worst_seconds <= longest,
        )
    if ingest := results.ingest:
        for batch, what in ((1, "one event per message"), (10, "ten per message")):
            ratio = ingest.ratio(INGESTING, RECEIVER, batch)
            if ratio is not None:
                yield Verdict(
                    f"intake, {what}: CPU per event, relative to Celery's EventReceiver and State",
                    "0.8 ×",
                    f"{ratio:.2f} ×",
                    ratio <= 0.8,
                )
    if (state := results.state) and state.state_us and state.p99_seconds:
        cost, p99 = median(state.state_us), median(state.p99_seconds) * 1e3
        yield Verdict(
            "state of tasks: CPU per event, in addition to decoding and joining it",
            "4 µs",
            f"{cost:.1f} µs",
            cost <= 4,
        )
        yield Verdict(f"/tasks/{{uuid}} at {state.rate} events/s: p99", "20 ms", f"{p99:.1f} ms", p99 < 20)
    if (statistics := results.statistics) and statistics.statistics_us:
        cost = median(statistics.statistics_us)
        yield Verdict("statistics of names: CPU per event", "2 µs", f"{cost:.1f} µs", cost <= 2)
    if stalled := results.stalled:
        lost = sum(round.lost for round in stalled.beside)
        what = f"{stalled.load.connections} healthy clients beside {stalled.readers} stalled ones"
        yield Verdict(f"{what}: events lost by the healthy ones", "0", str(lost), not lost)
        yield Verdict(
            f"{what}: p99 relative to a run without them",
            "1.5 ×",
            f"{stalled.p99_ratio:.2f} ×",
            stalled.p99_ratio <= 1.5,
        )


def _fan_out(
    fan_out: FanOut, limit_us: float, limit_ratio: float, limit_ratio_text: str, limit_ms: float
) -> Iterator[Verdict]:
    what = f"{fan_out.load.connections} SSE × {fan_out.load.rate} events/s"
    if "gateway-sse" not in fan_out.rows:
        return
    cpu_us, p99_ms, ratio = (
        fan_out.cpu_us("gateway-sse"),
        fan_out.p99_ms("gateway-sse"),
        fan_out.ratio("gateway-sse"),
    )
    yield Verdict(f"{what}: CPU per delivery", f"{limit_us:.2f} µs", f"{cpu_us:.2f} µs", cpu_us <= limit_us)
    if ratio is not None:
        yield Verdict(
            f"{what}: CPU per delivery, relative to Nchan",
            f"{limit_ratio_text} ×",
            f"{ratio:.3f} ×",
            ratio <= limit_ratio,
        )
    yield Verdict(f"{what}: p99 latency", f"{limit_ms:.0f} ms", f"{p99_ms:.0f} ms", p99_ms <= limit_ms)
    for name, label in (("gateway-ndjson", "NDJSON"), ("gateway-ws", "WebSocket")):
        against = fan_out.ratio(name, "gateway-sse")
        if against is not None:
            what = f"{fan_out.load.connections} {label} × {fan_out.load.rate} events/s"
            yield Verdict(
                f"{what}: CPU per delivery, relative to SSE", "1.2 ×", f"{against:.2f} ×", against <= 1.2
            )
