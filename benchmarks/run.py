"""The benchmarks (``make bench``).

    python -m benchmarks.run [--quick] [--only NAME…] [--seconds N] [--json FILE] [--output FOLDER]

Measures the gateway beside other servers on this machine. It uses only loopback addresses, free ports and its
own RabbitMQ, and ends every process that it starts. A full run takes about nine minutes and writes
``docs/benchmarks.md`` and ``docs/benchmark.svg``. A partial or quick run writes them only to the folder of
``--output``, so that it never replaces the published figures.
"""

import argparse
import json
import resource
import shlex
import signal
import sys
import time
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from benchmarks.chart import chart
from benchmarks.lab import ROOT, LabError, open_lab
from benchmarks.machine import machine, versions
from benchmarks.measure import Load
from benchmarks.report import panels, report
from benchmarks.results import Results
from benchmarks.scenario import FULL, QUICK, Run
from benchmarks.scenarios import SCENARIOS
from benchmarks.servers import CONTENDERS

FILES_NEEDED = 12_000


def main() -> int:
    options = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # run the cleanup
    _allow_files()
    scale = QUICK if options.quick else FULL
    if options.seconds:
        scale = scale._replace(seconds=options.seconds)
    scenarios = [name for name in SCENARIOS if name in options.only] or list(SCENARIOS)
    contenders = [row for row in CONTENDERS if row.name in options.only] or list(CONTENDERS)
    results, where = Results(), machine()
    began = time.monotonic()

    def send(text: str) -> None:
        for line in text.splitlines():
            print(f"{time.monotonic() - began:4.0f} s  {line}", file=sys.stderr, flush=True)

    try:
        with open_lab() as lab:
            what = versions(lab.broker_url)
            for name in scenarios:
                SCENARIOS[name](Run(lab, scale, contenders, results, send))
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130

    command, date = shlex.join(["python", "-m", "benchmarks.run", *sys.argv[1:]]), time.strftime("%Y-%m-%d")
    document = report(results, scale, where, what, command, date)
    print(document)
    if options.json:
        about = {"command": command, "date": date, "machine": where, "versions": what}
        options.json.write_text(json.dumps(about | {"results": _plain(results)}, indent=1) + "\n")
    is_whole = not (options.quick or options.only or options.seconds)
    if folder := options.output or (ROOT / "docs" if is_whole else None):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "benchmarks.md").write_text(document)
        if results.fan_out:
            on = f"{where['CPU']}, {where['cores']} cores, {date}"
            note = f"less is better; a bar with a break is longer than drawn; {on}"
            picture = chart(panels(results), "CPU time of the server for one delivered event", note, " µs")
            (folder / "benchmark.svg").write_text(picture)
        send(f"wrote {folder}/benchmarks.md")
    return 0


def _parse() -> argparse.Namespace:
    names = [*SCENARIOS, *(row.name for row in CONTENDERS)]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a short run of about 90 seconds")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        choices=names,
        metavar="NAME",
        help=f"only these scenarios, and only these rows in them: {', '.join(names)}",
    )
    parser.add_argument(
        "--seconds", type=float, metavar="N", help=f"duration of each load (default: {FULL.seconds:g})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write the table and the chart here")
    return parser.parse_args()


def _allow_files() -> None:
    """Raise the limit of open files, of this process and its children, to the hard limit."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most != resource.RLIM_INFINITY and most < FILES_NEEDED:
        print(
            f"only {most} open files are allowed (ulimit -Hn); the largest scenarios need {FILES_NEEDED}",
            file=sys.stderr,
        )


def _plain(value: Any) -> Any:
    """Return results as JSON values, computed figures included."""
    if is_dataclass(value) and not isinstance(value, type):
        computed = [name for name, member in vars(type(value)).items() if isinstance(member, property)]
        return {
            name: _plain(getattr(value, name))
            for name in [*(field.name for field in fields(value)), *computed]
        }
    if isinstance(value, Load):
        return value._asdict()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


if __name__ == "__main__":
    sys.exit(main())
