"""The chaos test (``make chaos``): three gateways with one log, under load, while everything fails.

    python -m benchmarks.chaos [--engine rabbitmq redis] [--seed 1 2] [--faults 200] [--rate 300] [--write]

Each pair of engine and seed is a run. It has its own RabbitMQ (and Redis, for the log), three gateways with
proxies between them and their servers, an nginx without affinity, a publisher, and subscribers over all
transports that are cut at random and resume. The seed determines the faults and their order, not their
outcome. In the end all faults are undone, and everything is compared: see ``chaos_check``.

The exit code is 1 if a check fails; the folder with the logs of the run is kept then. A run of the default
size writes ``docs/chaos.md``; any other run only with ``--write``. Progress goes to standard error.
"""

import argparse
import json
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.chaos_faults import Faults, Stage
from benchmarks.chaos_report import Run, document
from benchmarks.child import Child, ChildError
from benchmarks.lab import ROOT
from benchmarks.machine import machine, versions
from tests.support.fleet import running
from tests.support.rabbitmq import ProcessError, RabbitMQ, wait_for
from tests.support.redis_server import RedisServer

ENGINES = ("rabbitmq", "redis")
SEED, FAULTS, RATE, SUBSCRIBERS = 1, 200, 300.0, 12
GATEWAYS = 3
OPTIONS = ("--keepalive", "2", "--max-tasks", "20000", "--history-bytes", str(8 << 20))
"""Small tables and histories, so that evictions and old positions are part of the test."""
PROGRESS_SECONDS = 10.0
CALM_SECONDS = 5.0
"""Before the first fault."""
ANSWER_SECONDS = 600.0


class Cast(NamedTuple):
    """The processes with which the test talks."""

    publisher: Child
    clients: Child

    def ask_clients(self, line: str) -> dict[str, Any]:
        self.clients.send(line)
        return self.clients.receive(ANSWER_SECONDS)

    def ask_publisher(self, line: str) -> dict[str, Any]:
        self.publisher.send(line)
        return self.publisher.receive(ANSWER_SECONDS)


@contextmanager
def open_stage(run: Run, folder: Path) -> Iterator[tuple[Stage, Cast]]:
    """Run all processes during the block."""
    node = RabbitMQ(folder / "rabbitmq")
    redis = None
    if run.engine == "redis":
        redis = RedisServer(folder, "--appendonly", "yes", "--appendfsync", "everysec")
    try:
        node.start()
        if redis is not None:
            redis.start()
        with running(
            node, node.url, folder, count=GATEWAYS, log=redis or "rabbitmq", options=OPTIONS
        ) as fleet:
            assert fleet.nginx is not None
            python = (sys.executable, "-m")
            attend = [*python, "benchmarks.chaos_clients", fleet.nginx.url, *[m.url for m in fleet.members]]
            attend += ["--subscribers", str(run.subscribers), "--seed", str(run.seed)]
            publish = [*python, "benchmarks.chaos_publisher", node.url, "--rate", str(run.rate)]
            publish += ["--seed", str(run.seed), "--truth", str(folder / "truth.json")]
            with Child(attend, log=folder / "clients.log", cwd=ROOT) as clients:
                if not wait_for(lambda: _is_open(clients), ANSWER_SECONDS):
                    raise ChildError("the clients could not connect")
                with Child(publish, log=folder / "publisher.log", cwd=ROOT) as publisher:
                    yield Stage(node, redis, fleet), Cast(publisher, clients)
    finally:
        node.stop()
        if redis is not None:
            redis.stop()


def _is_open(clients: Child) -> bool:
    clients.send("figures")
    return bool(clients.receive(ANSWER_SECONDS)["is_open"])


def perform(run: Run, stage: Stage, cast: Cast, folder: Path) -> None:
    """Inject the faults, and make the checks."""
    began = time.monotonic()
    faults = Faults(stage, run.seed, run.faults, cast.ask_clients)
    time.sleep(CALM_SECONDS)
    progress_at = 0.0
    while not faults.is_done:
        faults.step()
        if time.monotonic() > progress_at:
            progress_at = time.monotonic() + PROGRESS_SECONDS
            _show(run, faults, cast)
        time.sleep(0.02)
    _say("all faults are undone; waiting until everything is delivered")
    try:
        stage.fleet.heal()
    except AssertionError as error:
        run.violations.append(f"a gateway did not recover: {error}")
    run.fault_seconds = time.monotonic() - began
    published = cast.ask_publisher("stop")
    run.published, run.uncertain = published["published"], published["uncertain"]
    cast.ask_clients(f"settle {run.published - 1}")
    run.delays = faults.delays()
    _say("comparing")
    restarts = sum(record.kind.startswith("broker ") for record in faults.records)
    told = {"truth": str(folder / "truth.json"), "restarts": restarts}
    found = cast.ask_clients(f"check {json.dumps(told)}")
    run.counts = found["counts"]
    run.violations += found["violations"]
    run.records = faults.records
    run.failovers = stage.fleet.failovers
    run.errors = _errors(stage)
    run.seconds = time.monotonic() - began


def _show(run: Run, faults: Faults, cast: Cast) -> None:
    published, found = cast.ask_publisher("figures"), cast.ask_clients("figures")
    counts = found["counts"]
    _say(
        f"{len(faults.records)} of {run.faults} faults; {published['published']:,} events published, "
        f"{counts.get('delivered', 0):,} delivered, {counts.get('cut', 0)} clients cut, "
        f"{counts.get('violations', 0)} violations"
    )
    for text in found["violations"][faults.shown :]:
        _say(text)
    faults.shown = len(found["violations"])


def _errors(stage: Stage) -> list[str]:
    """Return the errors in the gateways' logs."""
    lines = [line for member in stage.fleet.members for line in member.log.read_text().splitlines()]
    return [
        line for line in lines if " ERROR " in line or " CRITICAL " in line or line.startswith("Traceback")
    ]


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def perform_all(runs: list[Run]) -> dict[str, str]:
    """Perform all runs, and return the versions of the programs."""
    what: dict[str, str] = {}
    for run in runs:
        _say(f"log in {run.engine}, seed {run.seed}, {run.faults} faults")
        folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        try:
            with open_stage(run, folder) as (stage, cast):
                what = versions(stage.node.url)
                perform(run, stage, cast, folder)
        except (ProcessError, ChildError, AssertionError) as error:
            run.violations.append(f"the run failed to finish: {error}")
        finally:
            if run.is_good:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                _say(f"the logs are in {folder}")
        for line in run.verdict():
            _say(line)
    return what


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=["rabbitmq"])
    parser.add_argument("--seed", nargs="+", type=int, default=[SEED])
    parser.add_argument("--faults", type=int, default=FAULTS, help="of each run")
    parser.add_argument("--rate", type=float, default=RATE, help="events published per second")
    parser.add_argument("--subscribers", type=int, default=SUBSCRIBERS)
    parser.add_argument("--write", action="store_true", help="write docs/chaos.md")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # run the cleanup
    where = machine()
    runs = [
        Run(engine, seed, options.faults, options.rate, options.subscribers)
        for engine, seed in product(options.engine, options.seed)
    ]
    try:
        what = perform_all(runs)
    except FileNotFoundError as error:
        print(f"{error.filename} is missing: run sh tests/support/setup-system.sh as root", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if options.write or (options.faults, options.rate, options.subscribers) == (FAULTS, RATE, SUBSCRIBERS):
        command = "make chaos" + (f" ARGS='{shlex.join(sys.argv[1:])}'" if sys.argv[1:] else "")
        text = document(runs, where, what, command, time.strftime("%Y-%m-%d"))
        (ROOT / "docs" / "chaos.md").write_text(text)
        _say("wrote docs/chaos.md")
    print(json.dumps({f"{run.engine} {run.seed}": "passed" if run.is_good else "failed" for run in runs}))
    return 0 if all(run.is_good for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
