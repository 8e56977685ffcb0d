"""Libraries that read SSE, WebSocket and NDJSON, as their users have them, on one stream at the same time.

Each reader has a proxy of its own before the gateway, so that its connection can be cut. All go through the
same course, once: they are idle for some keep-alives; events come, some of them very long; every connection
is cut; and for a time 502 is the answer to all. Each test looks at what one reader got.

docs/compatibility.md has the table that these tests show.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import httpx
import pytest
from playwright.sync_api import Page

from tests.support.browser import chromium
from tests.support.gateway_process import GatewayProcess
from tests.support.nginx import Nginx
from tests.support.npm_readers import DEV_SERVERS, FOLDER, installed
from tests.support.proxy import Proxy
from tests.support.publisher import Publisher, received, task_event
from tests.support.rabbitmq import Process, wait_for
from tests.support.transports import messages

ROOT = Path(__file__).resolve().parents[2]
TYPE = "readers-mark"
KEEPALIVE_SECONDS = 0.3
IDLE_KEEPALIVES = 4
WAIT_SECONDS = 20
ODD = "line\u2028line\u0085line"
"""Some readers split lines there."""
OVER_500_KB, OVER_1_MIB = 600_000, 2_000_000
LONG_TEXTS = {2: OVER_500_KB, 3: OVER_1_MIB}
EVENTS_BEFORE_CUT, EVENT_OF_CUT, LIVE_EVENT, EVENT_OF_502, LAST_EVENT = (1, 2, 3, 4), 5, 6, 7, 8


class Reader(NamedTuple):
    """A reader, where it runs, and what is known of it.

    ``survives_502``: it asks again after an answer other than 200.
    ``survives_reset``: it does after its connection was reset; otherwise after it was closed in good order.
    ``max_event_bytes``: what it asks for, or the gateway's default.
    """

    runs_in: str
    survives_502: bool = True
    survives_reset: bool = True
    max_event_bytes: int = 500_000


READERS = {
    # These are called in a loop, or opened again in `onerror`: that asks again after anything.
    "httpx-sse": Reader("python"),
    "httpx": Reader("python"),
    "sseclient-py": Reader("python"),
    "requests": Reader("python"),
    "urllib": Reader("python"),
    "http.client, HTTP/1.0": Reader("python"),
    "aiohttp": Reader("python"),
    "asyncio streams, 64 KiB lines": Reader("python", max_event_bytes=60_000),
    "websockets": Reader("python"),
    "websocket-client": Reader("python"),
    "ws": Reader("node"),
    "rxjs webSocket": Reader("node"),
    "eventsource-polyfill": Reader("chromium", max_event_bytes=60_000),
    # These reconnect by themselves.
    "sseclient": Reader("python", survives_502=False, survives_reset=False, max_event_bytes=100_000),
    "eventsource 2": Reader("node"),
    "eventsource 3": Reader("node", survives_502=False),
    "eventsource 4": Reader("node", survives_502=False),
    "eventsource-client": Reader("node"),
    "undici": Reader("node", survives_502=False),
    "EventSource": Reader("chromium", survives_502=False),
    "event-source-polyfill": Reader("chromium", survives_502=False),
    "event-source-polyfill 0.0.9": Reader("chromium", survives_502=False),
    "reconnecting-eventsource": Reader("chromium"),
    "fetch-event-source": Reader("chromium"),
}


class Got(NamedTuple):
    """What a reader got, in order, and what else it reported: an error that ended it, lost connections."""

    messages: list[dict[str, Any]]
    reports: list[dict[str, Any]]

    @property
    def numbers(self) -> list[int]:
        return [message["n"] for message in self.messages if message["type"] == TYPE]

    def of_type(self, type: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == type]


class BadGateway:
    """An HTTP server that answers 502, as a proxy does whose upstream is away. Pages may read the answer."""

    def __enter__(self) -> "BadGateway":
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(502)

            def do_OPTIONS(self) -> None:
                self._answer(204)

            def _answer(self, status: int) -> None:
                self.send_response(status)
                for name in ("Origin", "Headers", "Methods"):
                    self.send_header(f"Access-Control-Allow-{name}", "*")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """The URL of a server of these files, which adds the `.js` that some packages' imports leave out."""

    class Handler(SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            found = super().translate_path(path)
            return found if Path(found).exists() else f"{found}.js"

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=directory)) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class Running:
    """All readers, while they run."""

    def __init__(self, processes: Mapping[str, Process], page: Page) -> None:
        self._processes = processes
        self._page = page
        self._results = {name: Got([], []) for name in READERS}
        self._read_bytes = dict.fromkeys(processes, 0)

    def results(self) -> dict[str, Got]:
        """What each has got until now."""
        for where, process in self._processes.items():
            with process.log.open("rb") as log:
                log.seek(self._read_bytes[where])
                lines = log.read().rpartition(b"\n")[0]
            self._read_bytes[where] += len(lines) + bool(lines)
            for line in lines.splitlines():
                if line.startswith(b"{"):
                    self._take(json.loads(line))
        for report in self._page.evaluate("window.lines.splice(0)"):
            self._take(report)
        return self._results

    def wait(self, names: list[str], number: int) -> list[str]:
        """Waits for these readers to get this event; returns those that did. The others fail their tests."""

        def late() -> list[str]:
            results = self.results()
            return [name for name in names if number not in results[name].numbers]

        wait_for(lambda: not late(), WAIT_SECONDS)
        missing = late()
        return [name for name in names if name not in missing]

    def _take(self, report: dict[str, Any]) -> None:
        got = self._results[report["reader"]]
        if "message" in report:
            got.messages.append(report["message"])
        else:
            got.reports.append(report)


@pytest.fixture(scope="module")
def gateway(broker: str, folder: Path) -> Iterator[GatewayProcess]:
    options = ["--keepalive", str(KEEPALIVE_SECONDS), "--allow-origin", "*"]
    process = GatewayProcess(broker, folder, options=options)
    try:
        process.start()
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="module")
def bad_gateway() -> Iterator[BadGateway]:
    with BadGateway() as server:
        yield server


@pytest.fixture(scope="module")
def texts() -> dict[int, str]:
    """The long texts by the numbers of their events. No two parts of them are the same."""
    return {n: "".join(f"{i:x} " for i in range(length))[:length] for n, length in LONG_TEXTS.items()}


@pytest.fixture(scope="module")
def results(
    gateway: GatewayProcess,
    bad_gateway: BadGateway,
    publisher: Publisher,
    texts: dict[int, str],
    folder: Path,
) -> dict[str, Got]:
    """What all readers got in the course described above."""
    installed()
    with ExitStack() as stack:
        proxies = {name: stack.enter_context(Proxy(gateway.port)) for name in READERS}
        running = start(stack, proxies, folder)
        wait_for(lambda: all(running.results()[name].messages for name in READERS), WAIT_SECONDS)
        names = [name for name in READERS if running.results()[name].messages]
        idle = messages(gateway, "ndjson", type="nothing", skipped=frozenset())
        stack.callback(idle.close)
        for _ in range(IDLE_KEEPALIVES):
            next(message for message in idle if message["type"] == "gateway-bookmark")

        for n in EVENTS_BEFORE_CUT:
            publisher.send({"type": TYPE, "n": n, "note": ODD, "text": texts.get(n, "")})
        names = running.wait(names, EVENTS_BEFORE_CUT[-1])

        cut(proxies)
        publisher.send({"type": TYPE, "n": EVENT_OF_CUT})
        names = running.wait(names, EVENT_OF_CUT)
        publisher.send({"type": TYPE, "n": LIVE_EVENT})
        names = running.wait(names, LIVE_EVENT)

        connects = {name: proxy.connects for name, proxy in proxies.items()}
        for proxy in proxies.values():
            proxy.target_port = bad_gateway.port
        cut(proxies)
        wait_for(lambda: all(proxies[name].connects > connects[name] for name in names), WAIT_SECONDS)
        publisher.send({"type": TYPE, "n": EVENT_OF_502})
        for proxy in proxies.values():
            proxy.target_port = gateway.port
        names = running.wait([name for name in names if READERS[name].survives_502], EVENT_OF_502)
        publisher.send({"type": TYPE, "n": LAST_EVENT})
        running.wait(names, LAST_EVENT)
        return running.results()


def cut(proxies: Mapping[str, Proxy]) -> None:
    for name, proxy in proxies.items():
        if READERS[name].survives_reset:
            proxy.cut()
        else:
            proxy.hang_up()


def start(stack: ExitStack, proxies: Mapping[str, Proxy], folder: Path) -> Running:
    urls: dict[str, dict[str, str]] = {"python": {}, "node": {}, "chromium": {}}
    for name, reader in READERS.items():
        urls[reader.runs_in][name] = f"http://127.0.0.1:{proxies[name].port}"
    commands = {"python": [sys.executable, FOLDER / "read.py"], "node": ["node", FOLDER / "node.mjs"]}
    processes = {}
    for where, command in commands.items():
        log = folder / f"{where}.log"
        processes[where] = Process([*command, json.dumps(urls[where]), TYPE], log=log)
        stack.callback(processes[where].kill)
    page = stack.enter_context(chromium()).new_page()
    page.goto(f"{stack.enter_context(served(FOLDER))}/browser.html")
    page.wait_for_function("window.isReady")
    page.evaluate("([urls, type]) => startReaders(urls, type)", [urls["chromium"], TYPE])
    return Running(processes, page)


@pytest.fixture(params=READERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def got(results: dict[str, Got], name: str) -> Got:
    return results[name]


def test_keepalives_are_json(got: Got) -> None:
    """Each reader was given keep-alives, and parsed each message."""
    assert [report for report in got.reports if "JSON" in str(report.get("error"))] == []
    assert len(got.of_type("gateway-bookmark")) >= IDLE_KEEPALIVES - 1


def test_resumes_after_a_cut(got: Got) -> None:
    """All events came, once each, in order, and the gateway reported no gap."""
    numbers = [n for n in got.numbers if n < EVENT_OF_502]
    assert numbers == [*EVENTS_BEFORE_CUT, EVENT_OF_CUT, LIVE_EVENT], got.reports
    assert got.of_type("gateway-gap") == []
    assert [message["resume"] for message in got.of_type("gateway-open")][:2] == ["live", "resumed"]


def test_reads_long_events(got: Got, name: str, gateway: GatewayProcess, texts: dict[int, str]) -> None:
    """They come truncated, the reader goes on, and the whole ones are there by their ids."""
    limit = READERS[name].max_event_bytes
    events = {message["n"]: message for message in got.of_type(TYPE)}
    for n, text in texts.items():
        assert events[n]["truncated"] == ["text"]
        assert events[n]["note"] == ODD
        assert limit / 2 < events[n]["length"] <= limit
        whole = httpx.get(f"{gateway.url}/events/{events[n]['id']}")
        assert whole.json()["text"] == text and "truncated" not in whole.json()
    assert "truncated" not in events[1]


def test_an_answer_of_502(got: Got, name: str) -> None:
    """Readers that ask again resume without loss; docs/compatibility.md names the others and a remedy."""
    late = [n for n in got.numbers if n >= EVENT_OF_502]
    assert late == ([EVENT_OF_502, LAST_EVENT] if READERS[name].survives_502 else []), got.reports


class TestTheSnippetOfTheReadme:
    """In Chromium, behind nginx, which answers 502 while it does not reach the gateway."""

    def test_goes_on_after_502(self, gateway: GatewayProcess, publisher: Publisher, tmp_path: Path) -> None:
        root, states, statuses = f"root-{tmp_path.name}", list[str](), list[int]()
        stripped = {"nginx.conf": {"sub-path-kept.conf": "sub-path-stripped.conf"}}
        with Proxy(gateway.port) as proxy, chromium() as browser, ExitStack() as stack:
            nginx = Nginx(tmp_path / "nginx", proxy.port, replace=stripped)
            stack.callback(nginx.stop)
            nginx.start()
            page = browser.new_page(bypass_csp=True)  # a document of the gateway, which forbids scripts
            page.goto(f"{nginx.url}/healthz")
            page.on("console", lambda message: message.type == "log" and states.append(message.text))
            page.on("response", lambda response: statuses.append(response.status))
            with page.expect_response("**/events?**"):
                page.evaluate(snippet(root_id=root, url=nginx.url))

            publisher.send(received(root, "shop.charge"))
            assert wait_in(page, lambda: states == ["RECEIVED"])
            proxy.refuse()
            assert wait_in(page, lambda: 502 in statuses)
            publisher.send(task_event("task-started", root))
            proxy.resume()
            assert wait_in(page, lambda: "STARTED" in states)
            proxy.cut()  # now the browser itself resumes, with an older id in the address
            publisher.send(task_event("task-succeeded", root))
            assert wait_in(page, lambda: "SUCCESS" in states)
        assert states == ["RECEIVED", "STARTED", "SUCCESS"]


def snippet(*, root_id: str, url: str) -> str:
    """The README's code for a page, for this task and this gateway."""
    blocks = re.findall(r"```js\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (code,) = (block for block in blocks if "new EventSource(" in block)
    assert "http://localhost:8555/" in code
    return f"const rootId = {json.dumps(root_id)};\n{code.replace('http://localhost:8555', url)}"


def wait_in(page: Page, condition: Callable[[], bool]) -> bool:
    """Waits, and takes what the page reports meanwhile."""

    def check() -> bool:
        page.wait_for_timeout(20)
        return condition()

    return wait_for(check, WAIT_SECONDS)


def test_a_browser_has_six_connections_for_all_tabs(gateway: GatewayProcess, publisher: Publisher) -> None:
    """Over HTTP/1.1. A seventh EventSource waits; a WebSocket does not. (Over HTTP/2: test_nginx.py.)"""
    opened = """(type) => {
        window.opened = window.events = 0;
        const source = new EventSource(`events?type=${type}`);
        source.addEventListener("gateway-open", () => window.opened++);
        source.onmessage = () => window.events++;
    }"""
    socket = """(type) => new Promise((resolve) => {
        const socket = new WebSocket(`${location.origin.replace("http", "ws")}/ws?type=${type}`);
        socket.onmessage = (message) => resolve(JSON.parse(message.data).type);
    })"""
    with chromium() as browser:
        context = browser.new_context(bypass_csp=True)  # the tabs are documents that forbid scripts
        tabs = [context.new_page() for _ in range(7)]
        for tab in tabs:
            tab.goto(f"{gateway.url}/healthz")
        for tab in tabs[:6]:
            tab.evaluate(opened, "six-mark")
            tab.wait_for_function("window.opened == 1", timeout=15_000)
        tabs[6].evaluate(opened, "six-mark")
        assert tabs[6].evaluate(socket, "six-mark") == "gateway-open"
        publisher.send({"type": "six-mark"})
        for tab in tabs[:6]:
            tab.wait_for_function("window.events == 1", timeout=15_000)
        assert tabs[6].evaluate("window.opened") == 0
        tabs[0].close()
        tabs[6].wait_for_function("window.opened == 1", timeout=15_000)


def test_the_page_has_each_reader_and_its_version() -> None:
    """Those of npm are pinned; of the others it has the versions of its last full run."""
    page = (ROOT / "docs" / "compatibility.md").read_text()
    assert [name for name in READERS if f"| {name}" not in page] == []
    for folder in (FOLDER, DEV_SERVERS):
        for name, version in json.loads((folder / "package.json").read_text())["dependencies"].items():
            assert version.rpartition("@")[2] in page, name
