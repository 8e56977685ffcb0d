"""The examples of docs/examples, as they stand: each is run against a real gateway and a real worker.

Between the two is a proxy, so that their connections can be lost.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import httpx
import pytest
from celery import Celery
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import chromium
from tests.support.gateway_process import GatewayProcess
from tests.support.js_client import built, npm
from tests.support.proxy import Proxy
from tests.support.publisher import Publisher, received, task_event, walk
from tests.support.rabbitmq import Process, wait_for
from tests.support.worker import Worker

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"
SERVICES = {
    "service.py": [sys.executable, EXAMPLES / "service.py"],
    "service.mjs": ["node", EXAMPLES / "service.mjs"],
    "watch.sh": [EXAMPLES / "watch.sh"],
}
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """The URL of a server of these files, for pages."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=directory)) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def pages() -> Iterator[str]:
    """The repository's files over HTTP, as docs/examples/README.md has it."""
    with served(ROOT) as url:
        yield f"{url}/docs/examples"


@pytest.fixture(scope="module")
def gateway(broker: str, folder: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(broker, folder, options=["--allow-origin", "*"])
    try:
        process.start()
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="module")
def client() -> Path:
    """The folder of the JavaScript client, built."""
    return built()


@pytest.fixture
def proxy(gateway: GatewayProcess) -> Iterator[Proxy]:
    with Proxy(gateway.port) as proxy:
        yield proxy


@pytest.fixture
def address(proxy: Proxy) -> str:
    return f"http://127.0.0.1:{proxy.port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An uncaught exception in a page's code fails the test."""
    expect.set_options(timeout=20_000)
    errors: list[object] = []
    context = browser.new_context()
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(error))
    yield page
    context.close()
    assert errors == []


Run = Callable[..., Process]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """`run("service.py", url)`: the example as a process."""
    started: list[Process] = []

    def start(name: str, *args: str, **environment: str) -> Process:
        command = SERVICES[name]
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed, and this example is for it")
        process = Process(
            [*command, *args], log=tmp_path / "output", env={**os.environ, **environment}, cwd=tmp_path
        )
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            process.kill()


def fail(celery: Celery, gateway: GatewayProcess) -> str:
    """Lets a task fail; its uuid, when the gateway knows."""
    return ended(celery, gateway, "canvas.fail", state="FAILURE")


def ended(celery: Celery, gateway: GatewayProcess, name: str, *args: object, state: str = "SUCCESS") -> str:
    uuid: str = celery.send_task(name, args).id
    assert wait_for(lambda: state_of(gateway, uuid) == state, 15)
    return uuid


def state_of(gateway: GatewayProcess, uuid: str) -> str | None:
    answer = httpx.get(f"{gateway.url}/tasks/{uuid}")
    return answer.json()["state"] if answer.status_code == 200 else None


def printed(process: Process, *texts: str) -> None:
    """Waits until the texts are in the output, in this order; each is there once."""

    def in_order() -> bool:
        output = process.log.read_text()
        places = [output.find(text) for text in texts]
        return -1 not in places and places == sorted(places)

    process.wait_until(in_order, 30)
    assert [process.log.read_text().count(text) for text in texts] == [1] * len(texts), process.tail()


@pytest.mark.parametrize("name", SERVICES)
class TestServices:
    def test_goes_on_where_it_was(
        self,
        name: str,
        run: Run,
        gateway: GatewayProcess,
        worker: Worker,
        celery: Celery,
        publisher: Publisher,
        proxy: Proxy,
        address: str,
    ) -> None:
        process = run(name, address + "/")
        process.wait_until(lambda: "live" in process.log.read_text(), 20)
        uuids = [fail(celery, gateway)]
        printed(process, uuids[0])
        assert "canvas.fail" in process.tail() and "LookupError" in process.tail()

        proxy.refuse()
        uuids += [fail(celery, gateway) for _ in range(2)]
        proxy.resume()
        printed(process, *uuids)
        assert "resumed" in process.tail()

        proxy.cut()
        publisher.send(task_event("task-failed", "u-odd", exception="a\u2028b\u0085c\t\\d", traceback=""))
        printed(process, *uuids, "u-odd")
        assert "unknown-id" not in process.log.read_text()

        gateway.stop()
        gateway.start()
        process.wait_until(lambda: "unknown-id" in process.log.read_text(), 30)
        uuids.append(fail(celery, gateway))
        printed(process, *uuids)

        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert wait_for(lambda: process.returncode is not None, 10)
        assert "Traceback" not in process.log.read_text()
        if name == "service.py":
            assert process.returncode == 0

    def test_comes_back_to_a_gateway_that_is_away_at_first(
        self, name: str, run: Run, proxy: Proxy, address: str
    ) -> None:
        proxy.answer(BAD_GATEWAY)
        process = run(name, GATEWAY_URL=address)
        process.wait_until(lambda: "502" in process.log.read_text(), 20)
        proxy.refuse()
        proxy.resume()
        process.wait_until(lambda: "live" in process.log.read_text(), 20)


@pytest.mark.parametrize("name", ["service.py", "service.mjs"])
def test_what_is_refused_is_not_asked_again(name: str, run: Run, gateway: GatewayProcess) -> None:
    process = run(name, f"{gateway.url}/nowhere")
    assert wait_for(lambda: process.returncode is not None, 20)
    assert process.returncode == 1
    assert "not-found" in process.log.read_text()


def test_the_page_with_eventsource_alone(
    page: Page,
    pages: str,
    gateway: GatewayProcess,
    worker: Worker,
    celery: Celery,
    publisher: Publisher,
    proxy: Proxy,
    address: str,
) -> None:
    first = ended(celery, gateway, "canvas.add", 1, 2)
    page.goto(f"{pages}/eventsource.html?name=canvas.add,canvas.total,shop.*&url={address}")
    expect(page.locator("li")).to_have_text([f"canvas.add {first}: SUCCESS"])
    expect(page.locator("#notice")).to_have_text("live")
    second = ended(celery, gateway, "canvas.total", [1, 2])
    expect(page.locator("li")).to_contain_text([first, f"canvas.total {second}: SUCCESS"])

    proxy.refuse()
    third = str(uuid4())
    publisher.send(*walk("shop.charge", uid=third))
    proxy.resume()
    expect(page.locator("#notice")).to_have_text("resumed")
    expect(page.locator("li")).to_contain_text([first, second, f"shop.charge {third}: SUCCESS"])

    connects = proxy.connects
    proxy.answer(BAD_GATEWAY)  # an EventSource gives up on that
    gateway.stop()
    assert wait_for(lambda: proxy.connects > connects, 20)
    expect(page.locator("#notice")).to_have_text("disconnected")
    gateway.start()
    fourth = ended(celery, gateway, "canvas.add", 3, 4)  # is in the snapshot
    proxy.refuse()
    proxy.resume()
    expect(page.locator("#notice")).to_have_text("live")
    expect(page.locator("li")).to_contain_text([first, second, third, f"canvas.add {fourth}: SUCCESS"])


def test_the_page_with_eventsource_alone_that_was_too_slow(
    page: Page, pages: str, broker: str, folder: Path, publisher: Publisher
) -> None:
    """What it missed is in another snapshot."""
    missed, bulk = str(uuid4()), str(uuid4())
    # More than the sockets on the way hold (tcp_wmem and tcp_rmem in tcp(7)), and far more than the history.
    megabytes = [[task_event("task-noise", bulk, pad="x" * 10_000) for _ in range(25)] for _ in range(80)]
    gateway = GatewayProcess(broker, folder, options=["--allow-origin", "*", "--history-bytes", "100000"])
    gateway.start()
    try:
        with Proxy(gateway.port) as proxy:
            page.goto(f"{pages}/eventsource.html?uuid={missed},{bulk}&url=http://127.0.0.1:{proxy.port}")
            expect(page.locator("#notice")).to_have_text("live")
            proxy.stall()
            publisher.send(*megabytes, *walk("shop.charge", uid=missed), *megabytes[:1])
            assert wait_for(lambda: state_of(gateway, missed) == "SUCCESS", 20)
            proxy.resume()
            expect(page.locator("li").filter(has_text=missed)).to_contain_text("SUCCESS")
    finally:
        gateway.stop()


def test_the_page_with_eventsource_alone_after_a_restart(
    page: Page, pages: str, gateway: GatewayProcess, publisher: Publisher
) -> None:
    """It comes back with an id that nobody knows, and is given another snapshot."""
    root = str(uuid4())
    publisher.send(*walk("shop.charge", root_id=root))
    page.goto(f"{pages}/eventsource.html?root_id={root}&url={gateway.url}/")
    expect(page.locator("li")).to_have_count(1)
    gateway.stop()
    gateway.start()
    publisher.send(*walk("shop.pack", root_id=root))
    expect(page.locator("li")).to_contain_text(["shop.charge", "shop.pack"])
    publisher.send(*walk("shop.ship", root_id=root))
    expect(page.locator("li")).to_contain_text(["shop.charge", "shop.pack", "shop.ship"])


def test_the_page_with_the_client(
    page: Page,
    pages: str,
    client: Path,
    gateway: GatewayProcess,
    worker: Worker,
    celery: Celery,
    publisher: Publisher,
    proxy: Proxy,
    address: str,
) -> None:
    root = ended(celery, gateway, "trees.fan", 3)
    page.goto(f"{pages}/page.html?root_id={root}&url={address}")
    expect(page.locator("#text")).to_have_text('4 of 4: {"SUCCESS":4}')

    proxy.refuse()
    publisher.send(*walk("shop.charge", root_id=root), received("u-waits", "shop.pack", root_id=root))
    proxy.resume()
    expect(page.locator("#text")).to_have_text('5 of 6: {"SUCCESS":5,"RECEIVED":1}')
    assert page.locator("#bar").evaluate("bar => bar.value") == pytest.approx(5 / 6)


def test_the_app_in_react(
    page: Page,
    tmp_path: Path,
    client: Path,
    gateway: GatewayProcess,
    worker: Worker,
    celery: Celery,
    proxy: Proxy,
    address: str,
) -> None:
    """Built by its own script; what `npm install` would bring is there, from the client's own tests."""
    app = tmp_path / "react"
    shutil.copytree(EXAMPLES / "react", app, ignore=shutil.ignore_patterns("node_modules", "app.js"))
    installed = app / "node_modules" / "@celery-gateway" / "client"
    shutil.copytree(client / "dist", installed / "dist")
    shutil.copy(client / "package.json", installed)
    modules = client / "node_modules"
    npm(app, "run", "build", NODE_PATH=str(modules), PATH=f"{modules / '.bin'}:{os.environ['PATH']}")

    root = ended(celery, gateway, "trees.fan", 3)
    with served(app) as url:
        page.goto(f"{url}/index.html?root_id={root}&url={address}")
        expect(page.locator("section")).to_contain_text("4 of 4")
        expect(page.locator("section > ul > li")).to_contain_text("trees.fan SUCCESS")
        expect(page.locator("section li li")).to_have_text(["canvas.add SUCCESS"] * 3)
        expect(page.get_by_role("status")).to_have_text("open")

        proxy.refuse()
        fail(celery, gateway)
        proxy.resume()
        expect(page.locator("ol li")).to_contain_text(["canvas.fail: LookupError"])
