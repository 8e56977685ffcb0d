"""The report: the results of a run as Markdown, and the data of the chart."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median

from benchmarks.chart import Bar, Panel
from benchmarks.lab import HERE
from benchmarks.measure import Delivery
from benchmarks.results import REFERENCE, FanOut, Results
from benchmarks.scenario import Scale
from benchmarks.servers import CONTENDERS
from benchmarks.targets import verdicts

LABELS = {contender.name: contender.label for contender in CONTENDERS}

METHOD = HERE / "method.md"


def report(
    results: Results,
    scale: Scale,
    machine: Mapping[str, str],
    versions: Mapping[str, str],
    command: str,
    date: str,
) -> str:
    """Return the document.

    Args:
        machine, versions: texts by name.
        command: the command line of the run.
        date: the date of its end.
    """
    summary = ", ".join((machine["CPU"], f"{machine['cores']} cores", machine["memory"], machine["kernel"]))
    sections = [
        "# Benchmarks",
        f"Written by `{command}` on {date}; {summary}.",
        "![CPU time per delivered event](benchmark.svg)" if results.fan_out else "",
        *_targets(results),
        *(text for fan_out in results.fan_out for text in _fan_out(fan_out)),
        *_roots(results),
        *_connections(results),
        *_idle(results),
        *_stalled(results),
        *_ingest(results),
        *_state(results),
        *_statistics(results),
        *_shared_log(results),
        "## Method",
        METHOD.read_text(encoding="utf-8")
        .strip()
        .format(rounds=scale.rounds, seconds=scale.seconds, json_bytes=_json_bytes(results)),
        "## Machine",
        _table(("", ""), [*machine.items(), *versions.items()]),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def panels(results: Results) -> list[Panel]:
    """Return the panels of the chart."""
    return [
        Panel(
            f"{fan_out.load.connections} subscribers × {fan_out.load.rate} events/s",
            [
                Bar(contender.label, fan_out.cpu_us(contender.name), contender.name.startswith("gateway"))
                for contender in CONTENDERS
                if contender.name in fan_out.rows
            ],
        )
        for fan_out in results.fan_out
    ]


def _targets(results: Results) -> Iterator[str]:
    found = list(verdicts(results))
    if found:
        yield "## Targets"
        yield _table(
            ("", "at most", "measured", "met"),
            ((line.what, line.limit, line.measured, "yes" if line.met else "**no**") for line in found),
        )
    short = [
        f"- {line.what}: {line.measured}; the target is {line.limit} (compared before rounding)."
        for line in found
        if not line.met
    ]
    short += [f"- {note}" for note in results.notes]
    for fan_out in results.fan_out:
        short += _behind(fan_out)
    if short:
        yield "### Missed targets, and notes"
        yield "\n".join(short)


def _behind(fan_out: FanOut) -> Iterator[str]:
    for name, rows in fan_out.rows.items():
        rounds = list(rows.values())
        load, label = fan_out.load, f"{LABELS[name]}, {fan_out.load.connections} × {fan_out.load.rate}/s"
        lost = sum(round.lost for round in rounds) / sum(round.expected for round in rounds)
        if lost:
            yield f"- {label}: {lost:.1%} of the events had not arrived after twice the time of the load."
        held_back = max(round.published_seconds for round in rounds) / load.seconds
        if held_back > 1.1:
            slowest = f"accepted only {load.rate / held_back:.0f} events/s at worst"
            yield f"- {label}: {slowest}, which slowed down the publisher."


def _fan_out(fan_out: FanOut) -> Iterator[str]:
    load = fan_out.load
    yield f"## {load.connections} subscribers × {load.rate} events/s"
    yield _table(
        (
            *("", "CPU per delivery", "rounds", "relative to Nchan", "deliveries/s", "p50", "p99"),
            *("lost", "closed", "events per connection", "bytes per event", "published"),
        ),
        (_fan_out_row(fan_out, name, list(rounds.values())) for name, rounds in fan_out.rows.items()),
    )


def _fan_out_row(fan_out: FanOut, name: str, rounds: Sequence[Delivery]) -> tuple[str, ...]:
    costs = sorted(round.cpu_us_per_delivery for round in rounds)
    ratio = fan_out.ratio(name)
    fewest, most = (
        min(round.fewest for round in rounds),
        max(round.most for round in rounds),
    )
    rate = sum(round.deliveries_per_second for round in rounds) / len(rounds)
    published = max(round.published_seconds for round in rounds)
    return (
        LABELS[name],
        f"{fan_out.cpu_us(name):.2f} µs",
        f"{costs[0]:.2f} to {costs[-1]:.2f}" if len(costs) > 1 else "1",
        "" if ratio is None or name == REFERENCE else f"{ratio:.2f}",
        f"{rate:,.0f}",
        f"{fan_out.p50_ms(name):.0f} ms",
        f"{fan_out.p99_ms(name):.0f} ms",
        f"{sum(round.lost for round in rounds):,}",
        str(sum(round.closed for round in rounds)),
        f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}",
        f"{rounds[0].bytes_per_delivery:.0f}",
        f"in {published:.1f} s",
    )


def _roots(results: Results) -> Iterator[str]:
    if not (roots := results.roots):
        return
    load = roots.load
    yield f"## {load.connections} subscribers, each with its own root_id, {load.rate} events/s"
    rows = [
        (
            str(number),
            f"{many.cpu_us_per_event:.0f} µs",
            f"{one.cpu_us_per_event:.0f} µs",
            f"{many.cpu_us_per_event / one.cpu_us_per_event:.2f}",
            f"{many.lost} of {many.expected:,}",
            f"{many.p99_seconds * 1e3:.0f} ms",
            f"{taken:,}",
        )
        for number, (many, one, taken) in enumerate(zip(roots.many, roots.one, roots.taken, strict=True), 1)
    ]
    heads = (
        "round",
        "CPU per event",
        "with one client that matches nothing",
        "ratio",
        "lost",
        "p99",
        "events read in the second case",
    )
    yield _table(heads, rows)


def _connections(results: Results) -> Iterator[str]:
    if not results.connections:
        return
    count = next(iter(results.connections.values())).connections
    yield f"## {count:,} idle connections: memory and acceptance"
    yield _table(
        ("", "memory per connection", "accepted per second", "CPU to accept one"),
        (
            (
                LABELS[name],
                f"{found.bytes_per_connection / 1e3:.1f} KB",
                f"{found.accepted_per_second:,.0f}",
                f"{found.cpu_us_per_connection:.0f} µs",
            )
            for name, found in results.connections.items()
        ),
    )


def _idle(results: Results) -> Iterator[str]:
    if not (idle := results.idle):
        return
    yield f"## {idle.connections:,} idle connections"
    yield (
        f"For {idle.seconds:.0f} s with a keep-alive about every {idle.keepalive_seconds:g} s (SSE): "
        f"{idle.cpu_share:.1%} of a core; {idle.closed} closed; {idle.fewest_keepalives} to "
        f"{idle.most_keepalives} keep-alives per connection; the longest silence "
        f"{idle.silence_worst_seconds:.1f} s (99 of 100 connections: {idle.silence_p99_seconds:.1f} s)."
    )


def _stalled(results: Results) -> Iterator[str]:
    if not (stalled := results.stalled):
        return
    load = stalled.load
    yield f"## {load.connections} healthy clients beside {stalled.readers} stalled ones, {load.rate} events/s"
    rows = [
        (
            str(number),
            f"{without.p99_seconds * 1e3:.0f} ms",
            f"{beside.p99_seconds * 1e3:.0f} ms",
            f"{without.lost} / {beside.lost}",
            f"{without.cpu_us_per_delivery:.2f} / {beside.cpu_us_per_delivery:.2f} µs",
            f"{grown / 1e6:.1f} MB",
        )
        for number, (without, beside, grown) in enumerate(
            zip(stalled.without, stalled.beside, stalled.grown_bytes, strict=True), 1
        )
    ]
    heads = ("round", "p99 without", "p99 beside them", "lost", "CPU per delivery", "growth of the gateway")
    yield _table(heads, rows)


def _ingest(results: Results) -> Iterator[str]:
    if not (ingest := results.ingest) or not ingest.rows:
        return
    yield f"## Intake: CPU per event, {ingest.rate} events/s"
    yield _table(
        ("", "one event per message", "ten per message"),
        (
            (name, *(f"{cost:.0f} µs" if (cost := ingest.cpu_us(name, batch)) else "" for batch in (1, 10)))
            for name in ingest.rows
        ),
    )


def _state(results: Results) -> Iterator[str]:
    if not (state := results.state) or not state.state_us or not state.p99_seconds:
        return
    yield "## State of tasks: cost, and latency of a request"
    p50_ms, p99_ms = median(state.p50_seconds) * 1e3, median(state.p99_seconds) * 1e3
    yield (
        f"Keeping the state costs {median(state.state_us):.1f} µs per event, in addition to "
        f"{median(state.normalize_us):.1f} for decoding and {median(state.join_us):.1f} for joining it. "
        f"At {state.rate} events/s `GET /tasks/{{uuid}}` took {p50_ms:.1f} ms (p50) and {p99_ms:.1f} ms "
        f"(p99): {state.lookups} requests on one connection."
    )


def _statistics(results: Results) -> Iterator[str]:
    if not (found := results.statistics) or not found.statistics_us:
        return
    yield "## Statistics of names"
    yield (
        f"They cost {median(found.statistics_us):.1f} µs per event, in addition to "
        f"{median(found.without_us):.1f} for decoding it, joining it, and keeping the state of its task. "
        "A task has four events: sent, received, started, and succeeded (one in 100: failed)."
    )


def _shared_log(results: Results) -> Iterator[str]:
    if not (log := results.shared_log) or not log.rows:
        return
    yield f"## A shared log in RabbitMQ: CPU per event, {log.rate} events/s"
    yield _table(
        ("", "one event per message", "ten per message"),
        (
            (
                label,
                *(f"{cost:.1f} µs" if (cost := value(name, batch)) is not None else "" for batch in (1, 10)),
            )
            for label, name, value in (
                ("`--log memory`, one SSE subscriber", "memory", log.cpu_us),
                ("`--log rabbitmq`: the leader, one SSE subscriber", "leader", log.cpu_us),
                ("the leader, in addition to `--log memory`", "leader", log.extra_us),
                ("`--log rabbitmq`: another gateway", "replica", log.cpu_us),
            )
        ),
    )
    p50 = {name: median(seconds) * 1e3 for name, seconds in log.p50_seconds.items()}
    if p50.keys() >= {"memory", "leader", "replica"}:
        yield (
            f"At {log.calm_rate} events/s, from an event's `timestamp` to its arrival (p50): "
            f"{p50['memory']:.1f} ms with the log in memory, {p50['leader']:.1f} ms at the leader, "
            f"{p50['replica']:.1f} ms at another gateway."
        )
    if log.resumed is not None:
        clients, deliveries, seconds = log.resumed
        without, beside = (each * 1e3 for each in log.live_p99_seconds)
        yield (
            f"{clients} clients that resumed at once from positions that only the log has got {deliveries:,} "
            f"events in {seconds:.0f} s. The p99 of live subscribers was {without:.0f} ms without them and "
            f"{beside:.0f} ms beside them."
        )


def _json_bytes(results: Results) -> str:
    sizes = [
        delivery.json_bytes
        for fan_out in results.fan_out
        for rows in fan_out.rows.values()
        for delivery in rows.values()
    ]
    return f"{sizes[0]:.0f}" if sizes else "about 320"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
