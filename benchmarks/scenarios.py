"""The scenarios: the measurements, with their loads, in order.

Contenders of a comparison take turns, round by round, each with a fresh process. A contender that cannot take
part is left out with a note, and the run continues.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from http.client import HTTPConnection
from typing import Any

import httpx

from benchmarks.child import Child, ChildError
from benchmarks.lab import ROOT, Lab
from benchmarks.measure import Delivery, Load, deliver, publisher, settle, subscribers
from benchmarks.results import Connections, FanOut, Idle, Ingest, Roots, Stalled, State, Statistics
from benchmarks.scenario import Run
from benchmarks.scenarios_log import resuming, shared_log
from benchmarks.servers import Server, gateway
from benchmarks.usage import cpu_seconds, resident_bytes

NAIVE = "naive"
WARM_UP_CONNECTIONS = 50
SILENT = ("--keepalive", "3600")
INGESTING = "the gateway, one SSE subscriber"
LOOKUPS_PER_SECOND = 100
RECEIVER = "Celery's EventReceiver and State"
STALLED_READERS = 50
# Sent to stalled readers before the measurement: 5 MB, more than the buffers of a socket.
STALLING = Load(STALLED_READERS, rate=20_000, seconds=0.75, batch=10)


def fan_out_500(run: Run) -> None:
    """500 subscribers of all events, 1000 events a second."""
    _fan_out(run, Load(500, 1000, run.scale.seconds))


def fan_out_3000(run: Run) -> None:
    """3000 subscribers of all events, 40 events a second."""
    _fan_out(run, Load(3000, 40, run.scale.seconds))


def _fan_out(run: Run, load: Load) -> None:
    result = FanOut(load)
    run.results.fan_out.append(result)
    for number in range(run.scale.rounds):
        for contender in run.contenders:
            if contender.name == NAIVE and number:
                continue  # it cannot keep up: one round shows it
            with run.attempt(f"{contender.label}, {load.connections} × {load.rate}/s"):
                with contender.start(run.lab) as server:
                    found = deliver(run.lab, server, load)
                result.rows.setdefault(contender.name, {})[number] = found
                run.send(f"{load.connections} × {load.rate}/s, {contender.label}: {_line(found)}")


def roots(run: Run) -> None:
    """5000 subscribers, each with its own root id, compared with one whose filter matches nothing."""
    many = Load(5000, 2000, run.scale.seconds)
    one = many._replace(connections=1)
    result = Roots(many)
    for _ in range(run.scale.rounds):
        with run.attempt("one root id per subscriber"):
            with gateway("sse", run.lab) as server:
                own = deliver(
                    run.lab, server, many, options=("-p", "/events?root_id=root-%d"), expected=many.events
                )
            with gateway("sse", run.lab) as server:
                nobody = deliver(run.lab, server, one, options=("-p", "/events?root_id=nobody"), expected=0)
                taken = _metric(server, "celery_gateway_events_total")
            result.many.append(own)
            result.one.append(nobody)
            result.taken.append(taken)
            run.results.roots = result
            run.send(
                f"one root id each: {own.cpu_us_per_event:.0f} µs per event, lost {own.lost}; "
                f"one unmatched: {nobody.cpu_us_per_event:.0f} µs, {taken} of {one.events} consumed"
            )


def connections(run: Run) -> None:
    """Memory of an idle connection, and how many connections are accepted per second."""
    for contender in run.contenders:
        if contender.name == "floor":
            continue
        options = SILENT if contender.name.startswith("gateway") else ()
        with run.attempt(f"idle connections, {contender.label}"):
            with contender.start(run.lab, *options) as server:
                found = _connect(run.lab, server, run.scale.connections)
            run.results.connections[contender.name] = found
            run.send(
                f"{found.connections} idle, {contender.label}: "
                f"{found.bytes_per_connection / 1e3:.1f} KB each, "
                f"{found.accepted_per_second:.0f} accepted per second, "
                f"{found.cpu_us_per_connection:.0f} µs each"
            )


def _connect(lab: Lab, server: Server, count: int) -> Connections:
    with subscribers(lab, server, WARM_UP_CONNECTIONS):  # excludes what is allocated once
        pass
    settle(server)
    bytes_before, cpu_before = resident_bytes(server.pid), cpu_seconds(server.pid)
    with subscribers(lab, server, count) as clients:
        settle(server)
        return Connections(
            connections=count,
            bytes_per_connection=(resident_bytes(server.pid) - bytes_before) / count,
            accepted_per_second=count / clients.connect_seconds,
            cpu_us_per_connection=(cpu_seconds(server.pid) - cpu_before) / count * 1e6,
        )


def idle(run: Run) -> None:
    """Many idle connections, held for a time with their keep-alives."""
    scale = run.scale
    with (
        run.attempt("idle connections"),
        gateway("sse", run.lab, "--keepalive", str(scale.keepalive_seconds)) as server,
        subscribers(run.lab, server, scale.idle_connections, ("-m", "id: ")) as clients,
    ):
        settle(server)
        clients.go()
        cpu_before, began = cpu_seconds(server.pid), time.monotonic()
        reply = clients.report(scale.idle_seconds)
        used, seconds = cpu_seconds(server.pid) - cpu_before, time.monotonic() - began
        found = Idle(
            connections=scale.idle_connections,
            seconds=seconds,
            keepalive_seconds=scale.keepalive_seconds,
            closed=reply["closed"],
            cpu_share=used / seconds,
            fewest_keepalives=reply["fewest"],
            most_keepalives=reply["most"],
            silence_p99_seconds=reply["silence_p99_seconds"],
            silence_worst_seconds=reply["silence_worst_seconds"],
        )
        run.results.idle = found
        run.send(
            f"{found.connections} idle for {seconds:.0f} s: {found.cpu_share:.1%} of a core, "
            f"closed {found.closed}, "
            f"{found.fewest_keepalives} to {found.most_keepalives} keep-alives each, "
            f"longest silence {found.silence_worst_seconds:.1f} s"
        )


def stalled(run: Run) -> None:
    """Healthy readers, with and without stalled ones beside them."""
    load = Load(1000, 200, run.scale.seconds)
    result = Stalled(load, STALLED_READERS)
    for _ in range(run.scale.rounds):
        with run.attempt("stalled readers"):
            without, size_without = _beside(run.lab, load, 0)
            beside, size_beside = _beside(run.lab, load, STALLED_READERS)
            result.without.append(without)
            result.beside.append(beside)
            result.grown_bytes.append(size_beside - size_without)
            run.results.stalled = result
            run.send(
                f"{load.connections} healthy: {_line(without)}\n"
                f"{load.connections} healthy and {STALLED_READERS} stalled: {_line(beside)}"
            )


def _beside(lab: Lab, load: Load, readers: int) -> tuple[Delivery, int]:
    """Return a delivery beside stalled readers, and the gateway's memory at its end."""
    with (
        gateway("sse", lab) as server,
        subscribers(lab, server, readers, ("-s",)) if readers else nullcontext(),
    ):
        with publisher(lab, server, STALLING) as source:
            source.publish()
        settle(server)
        found = deliver(lab, server, load)
        return found, resident_bytes(server.pid)


def ingest(run: Run) -> None:
    """The cost of the intake of an event, with one subscriber: the gateway, and Celery's own consumer."""
    result = run.results.ingest = Ingest(rate=5000)
    for _ in range(run.scale.rounds):
        for batch in (1, 10):
            load = Load(1, result.rate, run.scale.seconds, batch=batch)
            with run.attempt(f"ingest, the gateway, messages of {batch}"):
                with gateway("sse", run.lab) as server:
                    found = deliver(run.lab, server, load)
                _add(run, result, INGESTING, batch, found.cpu_us_per_event)
            with run.attempt(f"ingest, {RECEIVER}, messages of {batch}"):
                _add(run, result, RECEIVER, batch, _receive(run.lab, load))


def _add(run: Run, result: Ingest, name: str, batch: int, cpu_us: float) -> None:
    result.rows.setdefault(name, {}).setdefault(batch, []).append(cpu_us)
    run.send(f"ingest, {name}, messages of {batch}: {cpu_us:.0f} µs per event")


def _receive(lab: Lab, load: Load) -> float:
    """Return CPU microseconds per event of receiver.py."""
    args = [sys.executable, "-m", "benchmarks.receiver", lab.broker_url, str(load.events)]
    with Child(args, log=lab.folder / "receiver.log", cwd=ROOT) as receiver:
        receiver.receive(20)
        server = Server(receiver.pid, 0, (), ("amqp", lab.broker_url))
        with publisher(lab, server, load) as source:
            settle(server)
            before = cpu_seconds(receiver.pid)
            source.publish()
            receiver.receive(load.seconds * 3)
            return (cpu_seconds(receiver.pid) - before) / load.events * 1e6


def state(run: Run) -> None:
    """The cost of keeping the state of tasks, and the latency of a request for one of them under load."""
    load = Load(1, 2000, run.scale.seconds)
    result = run.results.state = State(load.rate)
    for _ in range(run.scale.rounds):
        with run.attempt("task table"):
            args = [sys.executable, "-m", "benchmarks.table"]
            with Child(args, log=run.lab.folder / "table.log", cwd=ROOT) as table:
                costs = table.receive(60)
            result.normalize_us.append(costs["normalize_us"])
            result.join_us.append(costs["join_us"])
            result.state_us.append(costs["state_us"])
            run.send(f"state of tasks: {costs['state_us']:.1f} µs per event")
        with run.attempt("request for a task under load"), gateway("sse", run.lab) as server:
            seconds = _look_up(run.lab, server, load)
            result.lookups += len(seconds)
            result.p50_seconds.append(seconds[len(seconds) // 2])
            result.p99_seconds.append(seconds[len(seconds) * 99 // 100])
            run.send(f"/tasks/{{uuid}} at {load.rate} events/s: p99 {result.p99_seconds[-1] * 1e3:.1f} ms")


def statistics(run: Run) -> None:
    """The cost of the statistics of names."""
    result = run.results.statistics = Statistics()
    for _ in range(run.scale.rounds):
        with run.attempt("statistics of names"):
            args = [sys.executable, "-m", "benchmarks.statistics"]
            with Child(args, log=run.lab.folder / "statistics.log", cwd=ROOT) as child:
                costs = child.receive(120)
            result.without_us.append(costs["without_us"])
            result.statistics_us.append(costs["statistics_us"])
            run.send(f"statistics of names: {costs['statistics_us']:.1f} µs per event")


def _look_up(lab: Lab, server: Server, load: Load) -> list[float]:
    """Request one task after another during a load. Return the latencies in seconds, sorted."""
    took: list[float] = []
    with (
        ThreadPoolExecutor(1) as pool,
        closing(HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection,
    ):
        delivered = pool.submit(deliver, lab, server, load)
        uuids: list[str] = []
        while not delivered.done():
            if not uuids:
                uuids = [task["uuid"] for task in _get(connection, "/tasks?limit=200&fields=uuid")["tasks"]]
                time.sleep(0.1)
                continue
            began = time.perf_counter()
            task = _get(connection, f"/tasks/{uuids.pop()}")
            took.append(time.perf_counter() - began)
            if "state" not in task:
                raise ChildError(f"no task: {task}")
            time.sleep(1 / LOOKUPS_PER_SECOND)
        delivered.result()
    return sorted(took)


def _get(connection: HTTPConnection, path: str) -> Any:
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())


def _metric(server: Server, name: str) -> int:
    text = httpx.get(f"http://127.0.0.1:{server.port}/metrics").text
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def _line(found: Delivery) -> str:
    line = (
        f"{found.cpu_us_per_delivery:.2f} µs per delivery, {found.deliveries_per_second:,.0f}/s, "
        f"p50 {found.p50_seconds * 1e3:.0f} ms, p99 {found.p99_seconds * 1e3:.0f} ms"
    )
    return line + (f", lost {found.lost}" if found.lost else "")


SCENARIOS: dict[str, Callable[[Run], None]] = {
    "fan-out-500": fan_out_500,
    "fan-out-3000": fan_out_3000,
    "roots": roots,
    "connections": connections,
    "idle": idle,
    "stalled": stalled,
    "ingest": ingest,
    "state": state,
    "statistics": statistics,
    "shared-log": shared_log,
    "resuming": resuming,
}
