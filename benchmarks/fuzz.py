"""The fuzz test, behind ``make fuzz``: simulated clusters against the gateway's reducer, event by event.

    python -m benchmarks.fuzz [--events 1000000] [--trouble all] [--seed 0] [--javascript 100000]

Each history is a cluster's (``tests/simulated_cluster.py``): clocks that are off by up to two hours and are
set right, restarts with and without a new pid, redeliveries, retries, replaced and revoked tasks, ids that
run again, late, doubled and lost events. At its end every task has to be in its true state, with the true
attempts, worker and outcome, and workflows and processes have to agree with their tasks. Some of the events
then go through the JavaScript client's reducer: its record has to equal the gateway's after each of them.

The exit code is 1 if anything differs; each difference is printed with what repeats it.
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

from tests.js_client import built
from tests.reduced import differences, inconsistencies, records, reduce
from tests.simulated_cluster import history
from tests.test_cluster_histories import TROUBLES

EVENTS, JAVASCRIPT_EVENTS = 1_000_000, 100_000
PROGRESS_SECONDS = 5.0
MAX_SHOWN = 20
WEIGHTS = {"calm": 1, "all": 4, "duplicates": 2, "without-task-sent": 2, "lost-events": 1}


class Run(NamedTuple):
    """Counts of a run, and what differed."""

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
    """Reduce histories until so many events have been seen."""
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
    """Return whether the JavaScript client's records equal the gateway's after each of so many events."""
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
    parser.add_argument("--events", type=int, default=EVENTS, help=f"how many at least ({EVENTS:,})")
    parser.add_argument("--seed", type=int, default=0, help="of the first history (0)")
    parser.add_argument("--trouble", choices=TROUBLES, help="of one kind only; a mix by default")
    parser.add_argument(
        "--javascript",
        type=int,
        default=JAVASCRIPT_EVENTS,
        metavar="EVENTS",
        help=f"how many go through the JavaScript client ({JAVASCRIPT_EVENTS:,}); 0 for none",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
