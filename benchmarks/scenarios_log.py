"""The scenarios of the shared log: its cost at the leader and at another gateway, latency, and resuming."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from benchmarks.lab import Lab
from benchmarks.measure import Delivery, Load, deliver, publisher, settle, subscribers
from benchmarks.results import SharedLog
from benchmarks.scenario import Run
from benchmarks.servers import Server, gateway
from benchmarks.usage import cpu_seconds

MEMORY, LEADER, REPLICA = "memory", "leader", "replica"
CALM_RATE = 200
RESUMING = 500
OLD_EVENTS = 5_000
SMALL_HISTORY = ("--history-bytes", "1000000")


def shared_log(run: Run) -> None:
    """The cost of an event with a log in RabbitMQ, beside the log in memory; and the latency of both."""
    result = run.results.shared_log = SharedLog(rate=5000, calm_rate=CALM_RATE)
    for _ in range(run.scale.rounds):
        for batch in (1, 10):
            load = Load(1, result.rate, run.scale.seconds, batch=batch)
            with run.attempt(f"log in memory, messages of {batch}"), gateway("sse", run.lab) as server:
                _add(run, result, MEMORY, batch, deliver(run.lab, server, load).cpu_us_per_event)
            with (
                run.attempt(f"log in RabbitMQ, messages of {batch}"),
                _gateways(run.lab) as (leader, replica),
            ):
                before = cpu_seconds(replica.pid)
                found = deliver(run.lab, leader, load)
                settle(replica)
                _add(run, result, LEADER, batch, found.cpu_us_per_event)
                _add(run, result, REPLICA, batch, (cpu_seconds(replica.pid) - before) / load.events * 1e6)
        calm = Load(1, CALM_RATE, run.scale.seconds)
        with run.attempt("latency"), gateway("sse", run.lab) as server:
            _add_latency(run, result, MEMORY, deliver(run.lab, server, calm))
        with run.attempt("latency"), _gateways(run.lab) as (leader, replica):
            _add_latency(run, result, LEADER, deliver(run.lab, leader, calm))
            _add_latency(run, result, REPLICA, deliver(run.lab, replica, calm))


def resuming(run: Run) -> None:
    """Live subscribers while 500 clients resume at once, from positions that only the log has."""
    load = Load(20, 500, max(4.0, run.scale.seconds))
    with run.attempt("resuming"), _gateways(run.lab, *SMALL_HISTORY) as (leader, _):
        with publisher(run.lab, leader, Load(0, 20_000, OLD_EVENTS / 20_000, batch=10)) as source:
            source.publish()
        settle(leader)
        without = deliver(run.lab, leader, load)
        old = replace(leader, subscribe=("-p", "/events?since=earliest", "-a", "text/event-stream"))
        began = time.monotonic()
        with subscribers(run.lab, old, RESUMING, ("-e", str(RESUMING * OLD_EVENTS))) as clients:
            clients.go()
            beside = deliver(run.lab, leader, load)
            reply = clients.report(120)
        seconds = time.monotonic() - began
        run.results.shared_log = run.results.shared_log or SharedLog(rate=0, calm_rate=0)
        run.results.shared_log.resumed = (RESUMING, reply["deliveries"], seconds)
        run.results.shared_log.live_p99_seconds = (without.p99_seconds, beside.p99_seconds)
        run.send(
            f"{RESUMING} clients resumed: {reply['deliveries']:,} deliveries in {seconds:.0f} s; live p99 "
            f"{without.p99_seconds * 1e3:.0f} ms without, {beside.p99_seconds * 1e3:.0f} ms beside them"
        )


@contextmanager
def _gateways(lab: Lab, *options: str) -> Iterator[tuple[Server, Server]]:
    """A leader and another gateway with a log of their own, on a virtual host of their own."""
    lab = replace(lab, broker_url=lab.new_vhost())
    with ExitStack() as stack:
        leader, other = (
            stack.enter_context(gateway("sse", lab, "--log", "rabbitmq", *options)) for _ in range(2)
        )
        yield leader, other


def _add(run: Run, result: SharedLog, name: str, batch: int, cpu_us: float) -> None:
    result.rows.setdefault(name, {}).setdefault(batch, []).append(cpu_us)
    run.send(f"shared log, {name}, messages of {batch}: {cpu_us:.1f} µs per event")


def _add_latency(run: Run, result: SharedLog, name: str, found: Delivery) -> None:
    result.p50_seconds.setdefault(name, []).append(found.p50_seconds)
    run.send(f"shared log, {name}, {CALM_RATE} events/s: p50 {found.p50_seconds * 1e3:.1f} ms")
