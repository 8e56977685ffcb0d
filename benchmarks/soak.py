"""The soak test (``make soak``): minutes of load with broker restarts; every lost event must be in a gap.

    python -m benchmarks.soak [--minutes 10] [--rate 3000] [--subscribers 200] [--write]

It runs a gateway on its own RabbitMQ, publishers of numbered events, and subscribers over SSE, NDJSON and
WebSocket that connect, stall, are disconnected and resume. Once a minute the broker stops: in order and
killed, in turn. Each subscriber checks that each event that its filter selects arrives once and in order, and
that each missing event lies in a ``gateway-gap``.

The exit code is 1 if a check fails, or if the gateway's memory grew too much after the first three minutes.
It ends every process that it starts. A run of the default size writes ``docs/soak.md``; any other run only
with ``--write``.
"""

import argparse
import json
import re
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.child import Child, ChildError
from benchmarks.lab import ROOT
from benchmarks.machine import machine, versions
from benchmarks.soak_report import MAX_TASKS, Sample, Soak, document
from benchmarks.usage import cpu_seconds, resident_bytes
from tests.support.gateway_process import GatewayProcess
from tests.support.rabbitmq import ProcessError, RabbitMQ, wait_for

MINUTES, RATE, SUBSCRIBERS = 10.0, 3_000.0, 200
PROGRESS_SECONDS = 10.0
FIRST_RESTART_SECONDS, RESTART_EVERY_SECONDS = 30.0, 60.0
QUIET_SECONDS = 25.0
"""The broker is not restarted in this time before the end."""
READY_SECONDS = 30.0
ANSWER_SECONDS = 60.0


class Stage(NamedTuple):
    """The processes of a run."""

    broker: RabbitMQ
    gateway: GatewayProcess
    authors: Child
    audience: Child


@contextmanager
def open_stage(rate: float, subscribers: int) -> Iterator[Stage]:
    """Run the processes during the block."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        broker = RabbitMQ(folder / "rabbitmq")
        broker.start()
        gateway = GatewayProcess(broker.url, folder, options=("--max-tasks", str(MAX_TASKS)))
        try:
            gateway.start()
            python = (sys.executable, "-m")
            publish = (*python, "benchmarks.soak_authors", broker.url, "--rate", str(rate))
            attend = (
                *python,
                "benchmarks.soak_clients",
                str(gateway.port),
                "--subscribers",
                str(subscribers),
            )
            with (
                Child(attend, log=folder / "audience.log", cwd=ROOT) as audience,
                Child(publish, log=folder / "authors.log", cwd=ROOT) as authors,
            ):
                yield Stage(broker, gateway, authors, audience)
        finally:
            gateway.stop()
            broker.stop()


def run(stage: Stage, soak: Soak) -> None:
    """Run for the given time, and record the results."""
    began = time.monotonic()
    ends_at = began + soak.minutes * 60
    restart_at = began + FIRST_RESTART_SECONDS
    progress_at = began + PROGRESS_SECONDS
    while (now := time.monotonic()) < ends_at:
        if now >= restart_at and now < ends_at - QUIET_SECONDS:
            restart_at += RESTART_EVERY_SECONDS
            _restart(stage, soak)
        elif now >= progress_at:
            progress_at = max(progress_at + PROGRESS_SECONDS, now)
            _look(stage, soak, now - began)
        time.sleep(0.2)
    published = _asked(stage.authors, "stop")
    soak.seconds = time.monotonic() - began
    _look(stage, soak, soak.seconds, published)
    settled = _asked(stage.audience, f"settle {json.dumps(published['ends'])}")
    soak.counts, soak.told = settled["counts"], settled["told"]
    log = stage.gateway.log.read_text()
    soak.errors += re.findall(r"^.* (?:ERROR|CRITICAL) .*$|^\w+Error.*$", log, re.MULTILINE)


def _restart(stage: Stage, soak: Soak) -> None:
    """Restart the broker, and wait until the gateway consumes again."""
    is_killed = soak.restarts % 2 == 1
    started = time.monotonic()
    if is_killed:
        stage.broker.stop()
        stage.broker.start()
    else:
        stage.broker.restart()
    is_back = wait_for(stage.gateway.is_ready, READY_SECONDS)
    soak.restarts += 1
    took = f"{time.monotonic() - started:.0f} s"
    send(f"the broker was {'killed' if is_killed else 'shut down'}; the gateway consumed again after {took}")
    if not is_back:
        soak.errors.append(f"the gateway did not consume within {READY_SECONDS:g} s after a restart")


def _look(stage: Stage, soak: Soak, at: float, published: dict[str, Any] | None = None) -> None:
    """Take a sample, and print it."""
    published = published or _asked(stage.authors, "figures")
    seen = _asked(stage.audience, "figures")
    counts, pid = seen["counts"], stage.gateway.pid
    sample = Sample(
        at_seconds=at,
        published=sum(published["ends"].values()),
        delivered=counts.get("delivered", 0),
        connected=counts.get("connected", 0),
        gaps=sum(count for name, count in counts.items() if name.startswith("gaps")),
        violations=counts.get("violations", 0),
        resident_bytes=resident_bytes(pid),
        cpu_seconds=cpu_seconds(pid),
    )
    soak.samples.append(sample)
    memory = f"{sample.resident_bytes / (1 << 20):.0f} MiB"
    send(
        f"published {sample.published:,}, delivered {sample.delivered:,} to {sample.connected} subscribers; "
        f"{soak.restarts} restarts, {sample.gaps} gaps reported; gateway {memory}, "
        f"{sample.cpu_seconds:.0f} s of CPU; {sample.violations} violations"
    )


def _asked(child: Child, line: str) -> dict[str, Any]:
    child.send(line)
    return child.receive(ANSWER_SECONDS)


def send(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--rate", type=float, default=RATE, help="events published per second")
    parser.add_argument("--subscribers", type=int, default=SUBSCRIBERS)
    parser.add_argument("--write", action="store_true", help="write docs/soak.md")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # run the cleanup
    soak = Soak(options.minutes, options.rate, options.subscribers)
    where = machine()
    try:
        with open_stage(options.rate, options.subscribers) as stage:
            what = versions(stage.broker.url)
            run(stage, soak)
    except FileNotFoundError as error:
        install = "apt-get install -y --no-install-recommends rabbitmq-server"
        print(f"RabbitMQ is missing ({error.filename}): {install}", file=sys.stderr)
        return 1
    except (ProcessError, ChildError, OSError) as error:
        print(f"the soak test failed to finish: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130

    for line in soak.verdict():
        send(line)
    is_whole = (options.minutes, options.rate, options.subscribers) == (MINUTES, RATE, SUBSCRIBERS)
    if is_whole or options.write:
        command = (
            shlex.join(["python", "-m", "benchmarks.soak", *sys.argv[1:]]) if sys.argv[1:] else "make soak"
        )
        (ROOT / "docs" / "soak.md").write_text(
            document(soak, where, what, command, time.strftime("%Y-%m-%d"))
        )
        send("wrote docs/soak.md")
    return 0 if soak.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
