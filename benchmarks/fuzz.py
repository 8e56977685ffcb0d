"""The fuzz test (``make fuzz``): simulated clusters against the gateway's reducer, event by event.

    python -m benchmarks.fuzz [--events 1000000] [--trouble all] [--seed 0] [--javascript 100000]

Each history is that of a cluster (``tests/support/simulated_cluster.py``). It has clocks that are wrong by up
to two hours and are corrected, and restarts with and without a new pid. Tasks are redelivered, retried,
replaced and revoked, and ids run again. Events are late, duplicated or lost.

At the end of a history every task must be in its true state, with the true attempts, worker and outcome.
Workflows and processes must agree with their tasks. Some of the events then go through the JavaScript
client's reducer: after each event its record must equal the gateway's.

The exit code is 1 if anything differs. Each difference is printed with the options that reproduce it.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.state.test_cluster_histories import TROUBLES
from tests.support.js_client import built
from tests.support.reduced import differences, inconsistencies, records, reduce
from tests.support.simulated_cluster import history

EVENTS, JAVASCRIPT_EVENTS = 1_000_000, 100_000
PROGRESS_SECONDS = 5.0
MAX_SHOWN = 20
WEIGHTS = {"calm": 1, "all": 4, "duplicates": 2, "without-task-sent": 2, "lost-events": 1}


class Run(NamedTuple):
    """Counts of a run, and its differences."""

    histories: int
    events: int
    tasks: int
    found: list[str]


def main() -> int:
    arguments = _arguments()
    began = time.perf_counter()
    run = fuzz(arguments.events, arguments.seed, arguments.trouble)
    seconds = time.perf_counter() - began
    print(
        f"{run.histories:,} histories, {run.events:,} events, {run.tasks:,} tasks in {seconds:.0f} s: "
        f"{len(run.found)} differences"
    )
    for line in run.found[:MAX_SHOWN]:
        print(f"  {line}")
    is_same = arguments.javascript == 0 or javascript(arguments.javascript, arguments.seed)
    return 1 if run.found or not is_same else 0


def fuzz(events: int, first_seed: int, trouble: str | None) -> Run:
    """Reduce histories until the given number of events is reached."""
    names = [trouble] if trouble else [name for name, weight in WEIGHTS.items() for _ in range(weight)]
    histories = seen = tasks = 0
    found: list[str] = []
    told_at = time.perf_counter()
    for seed in itertools.count(first_seed):
        name = names[seed % len(names)]
        true = history(seed, TROUBLES[name])
        reducer = reduce(true)
        wrong = (*differences(true, reducer), *inconsistencies(reducer))
        found += [f"--trouble {name} --seed {seed} --events 1: {each}" for each in wrong]
        histories, seen, tasks = histories + 1, seen + len(true.arrivals), tasks + len(true.truth)
        if time.perf_counter() - told_at > PROGRESS_SECONDS:
            told_at = time.perf_counter()
            print(f"{seen:,} of {events:,} events, {len(found)} differences", file=sys.stderr)
        if seen >= events:
            break
    return Run(histories, seen, tasks, found)


def javascript(events: int, first_seed: int) -> bool:
    """Return whether the JavaScript client's records equal the gateway's after each of the events."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        path = Path(folder) / "records.jsonl"
        written = 0
        with path.open("w", encoding="utf-8") as file:
            for seed in itertools.count(first_seed):
                for line in records(history(seed), str(seed)):
                    file.write(line)
                    written += 1
                if written >= events:
                    break
        test = built() / "test" / "unit" / "conformance.test.mjs"
        done = subprocess.run(
            ["node", "--test", str(test)], env=os.environ | {"CONFORMANCE_FILE": str(path)}, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
    print(f"{written:,} events through the JavaScript client: {'the same' if not done.returncode else ''}")
    if done.returncode:
        print(done.stdout[-5_000:])
    return done.returncode == 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Simulated clusters against the gateway's reducer.",
        epilog="make fuzz ARGS='--events 5000000 --seed 100000'",
    )
    parser.add_argument("--events", type=int, default=EVENTS, help=f"minimum number of events ({EVENTS:,})")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first history (0)")
    parser.add_argument("--trouble", choices=TROUBLES, help="one kind of trouble only; default: a mix")
    parser.add_argument(
        "--javascript",
        type=int,
        default=JAVASCRIPT_EVENTS,
        metavar="EVENTS",
        help=f"events for the JavaScript client ({JAVASCRIPT_EVENTS:,}); 0 for none",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
