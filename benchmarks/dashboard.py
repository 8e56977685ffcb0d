"""The dashboard's load on a browser (``make bench-dashboard``).

    python -m benchmarks.dashboard [--minutes 10] [--rate 500] [--rounds 3]

It runs a gateway on its own RabbitMQ, a publisher at a steady rate, and headless Chromium. Each round opens
each page in turn, and measures the time of the page's main thread, in CPU time of the thread, over ten
seconds. Among the pages is a plain tail (``plain_tail.html``), which keeps 300 rows of a table and renders
all of them at each change: figures of the same run can be compared with it on any machine.

Then the live view stays open for some minutes. Its heap, after a garbage collection, and its nodes are
measured each minute. It ends every process that it starts.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from playwright.sync_api import Browser, CDPSession, Page

from benchmarks.child import Child
from benchmarks.lab import HERE, ROOT
from benchmarks.machine import machine
from tests.support.browser import chromium
from tests.support.gateway_process import GatewayProcess
from tests.support.rabbitmq import RabbitMQ

PLAIN = "plain"
VIEWS = {PLAIN: "plain tail", "events": "Live", "": "Overview", "tasks": "Tasks", "workers": "Workers"}
SETTLE_SECONDS, MEASURE_SECONDS = 5.0, 10.0
FIRST_SAMPLE_MINUTES = 2
"""The heap is compared with this sample: until then the view's rows fill up."""
LONG_TASKS = """
    window.longTasks = [];
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) window.longTasks.push(entry.duration);
    }).observe({ type: "longtask" });
"""


class Figures(NamedTuple):
    """What a page took: seconds of its main thread, its longest task in ms, its nodes, its heap in MB."""

    main_thread_seconds: float
    longest_task_ms: float
    nodes: int
    heap_mb: float


class OpenPage:
    """A view, open in its own context."""

    def __init__(self, browser: Browser, url: str, view: str) -> None:
        self._context = browser.new_context(viewport={"width": 1280, "height": 800})
        self._context.add_init_script(LONG_TASKS)
        self._page: Page = self._context.new_page()
        self._page.route(f"**/{PLAIN}", lambda route: route.fulfill(path=HERE / "plain_tail.html"))
        self._tools: CDPSession = self._context.new_cdp_session(self._page)
        self._tools.send("Performance.enable", {"timeDomain": "threadTicks"})
        self._page.goto(f"{url}/{view}")
        self._page.wait_for_timeout(SETTLE_SECONDS * 1_000)

    def measure(self, seconds: float) -> Figures:
        """Return what the page takes in this time."""
        self._page.evaluate("window.longTasks.length = 0")
        before = self._metrics()["TaskDuration"]
        self._page.wait_for_timeout(seconds * 1_000)
        spent = self._metrics()["TaskDuration"] - before
        longest: float = self._page.evaluate("Math.max(0, ...window.longTasks)")
        self._tools.send("HeapProfiler.collectGarbage")
        after = self._metrics()
        return Figures(spent, longest, int(after["Nodes"]), after["JSHeapUsedSize"] / 1e6)

    def close(self) -> None:
        """Close it."""
        self._context.close()

    def _metrics(self) -> dict[str, float]:
        metrics = self._tools.send("Performance.getMetrics")["metrics"]
        return {each["name"]: each["value"] for each in metrics}


@contextmanager
def open_gateway(rate: float) -> Iterator[str]:
    """Run RabbitMQ, a gateway and a publisher during the block; yield the gateway's URL."""
    with tempfile.TemporaryDirectory(prefix="dash-") as name:
        folder = Path(name)
        broker = RabbitMQ(folder / "rabbitmq")
        broker.start()
        gateway = GatewayProcess(broker.url, folder)
        try:
            gateway.start()
            publish = (sys.executable, "-m", "benchmarks.soak_authors", broker.url, "--rate", str(rate))
            with Child(publish, log=folder / "publisher.log", cwd=ROOT):
                yield gateway.url
        finally:
            gateway.stop()
            broker.stop()


def compare(browser: Browser, url: str, rounds: int) -> dict[str, list[Figures]]:
    """Measure each view once in each round."""
    found: dict[str, list[Figures]] = {view: [] for view in VIEWS}
    for number in range(rounds):
        for view, title in VIEWS.items():
            page = OpenPage(browser, url, view)
            figures = page.measure(MEASURE_SECONDS)
            page.close()
            found[view].append(figures)
            print(f"round {number + 1}  {title:10}  {_text(figures)}", file=sys.stderr, flush=True)
    return found


def watch(browser: Browser, url: str, minutes: int) -> list[Figures]:
    """Leave the live view open, and measure it each minute."""
    page = OpenPage(browser, url, "events")
    samples = []
    for minute in range(1, minutes + 1):
        samples.append(page.measure(60.0))
        print(f"minute {minute:2}  {_text(samples[-1])}", file=sys.stderr, flush=True)
    page.close()
    return samples


def _text(figures: Figures) -> str:
    return (
        f"main thread {figures.main_thread_seconds:6.2f} s  longest task {figures.longest_task_ms:4.0f} ms  "
        f"{figures.nodes:6} nodes  heap {figures.heap_mb:5.1f} MB"
    )


def comparison(found: dict[str, list[Figures]]) -> Iterator[str]:
    """Yield the lines of the comparison, as a table in Markdown."""
    columns = ("view", "main thread, s in 10 s", "of the plain tail", "longest task, ms", "nodes", "heap, MB")
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    plain = median(each.main_thread_seconds for each in found[PLAIN])
    for view, title in VIEWS.items():
        spent = median(each.main_thread_seconds for each in found[view])
        longest = max(each.longest_task_ms for each in found[view])
        last = found[view][-1]
        cells = (
            title,
            f"{spent:.2f}",
            f"{spent / plain:.0%}",
            f"{longest:.0f}",
            last.nodes,
            f"{last.heap_mb:.1f}",
        )
        yield f"| {' | '.join(map(str, cells))} |"
    yield ""


def summary(samples: list[Figures]) -> Iterator[str]:
    """Yield a line about the view that stayed open."""
    if len(samples) > FIRST_SAMPLE_MINUTES:
        first, last = samples[FIRST_SAMPLE_MINUTES - 1], samples[-1]
        yield (
            f"Live, open for {len(samples)} minutes: heap {first.heap_mb:.1f} MB after "
            f"{FIRST_SAMPLE_MINUTES} minutes, {last.heap_mb:.1f} MB at the end; "
            f"at most {max(each.nodes for each in samples)} nodes."
        )


def main() -> int:
    """Run it, and print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=int, default=10, help="how long the live view stays open; 0: not")
    parser.add_argument("--rate", type=float, default=500.0, help="events a second")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the comparison; 0: none")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # run the cleanup
    started, where = time.strftime("%Y-%m-%d"), machine()
    with open_gateway(options.rate) as url, chromium() as browser:
        found = compare(browser, url, options.rounds)
        samples = watch(browser, url, options.minutes) if options.minutes else []
    print(f"{options.rate:g} events/s, {started}, {where['CPU']}, {where['cores']} cores\n")
    print("\n".join([*(comparison(found) if options.rounds else ()), *summary(samples)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
