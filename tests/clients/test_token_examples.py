"""The examples of docs/examples that sign tokens, as they stand: Django, FastAPI, Flask.

Each is run with a worker of its own and a gateway with its access file. Tests log in as users, and compare
what the token of a user reads with what a token for everything reads.
"""

import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from playwright.sync_api import Browser, Page, expect

from celery_gateway import tokens
from tests.support.browser import chromium
from tests.support.gateway_process import ROOT, GatewayProcess
from tests.support.js_client import built
from tests.support.rabbitmq import Process, RabbitMQ, free_port, wait_for
from tests.support.stream_client import NdjsonStream

EXAMPLES = ROOT / "docs" / "examples"
Event = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """An example.

    Attributes:
        server: the arguments of Python that serve it.
        parameter: of ``/celery-token``, for what ``/start`` returns; empty if a token is for a whole tenant.
        sees: whether an event is of the work that alice has started as ``started``.
        tasks: the number of tasks of this work.
        hidden: the fields that her token hides.
        queues: that its worker consumes.
    """

    server: tuple[str, ...]
    parameter: str
    sees: Callable[[Event, str], bool]
    tasks: int
    hidden: frozenset[str]
    queues: str = "celery"


ALL = {
    "django_tokens": Example(
        ("django_tokens.py", "runserver", "--noreload", "{port}"),
        "task",
        lambda event, started: event.get("uuid") == started,
        1,
        frozenset({"traceback"}),
    ),
    "fastapi_tokens": Example(
        ("-m", "uvicorn", "fastapi_tokens:app", "--port", "{port}"),
        "workflow",
        lambda event, started: event.get("root_id") == started,
        6,
        frozenset({"traceback"}),
    ),
    "flask_tokens": Example(
        ("-m", "flask", "--app", "flask_tokens", "run", "--port", "{port}"),
        "",
        lambda event, started: event.get("queue") == "tenant-acme" and event["name"] == "report.yearly",
        1,
        frozenset({"args", "kwargs", "traceback"}),
        "tenant-acme,tenant-globex",
    ),
}


class Site:
    """An example with its worker and its gateway.

    Args:
        folder: for logs, the access file and the secret.
    """

    def __init__(self, name: str, broker: str, folder: Path) -> None:
        self.example = ALL[name]
        self.name = name
        self.folder = folder
        port = free_port()
        self.url = f"http://localhost:{port}"
        shutil.copy(EXAMPLES / "auth.toml", folder)
        self.secret = folder / "shop.secret"
        self.secret.write_text(secrets.token_urlsafe(48) + "\n")
        options = ["--auth", str(folder / "auth.toml"), "--allow-origin", self.url]
        self.gateway = GatewayProcess(broker, folder, options=options)
        self._port = str(port)
        self._environment = {
            **os.environ,
            "CELERY_BROKER_URL": broker,
            "GATEWAY_URL": f"http://localhost:{self.gateway.port}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TOKEN_SECRET_FILE": str(self.secret),
        }

    @contextmanager
    def running(self) -> Iterator["Site"]:
        worker = ("-m", "celery", "-A", f"{self.name}:celery", "worker", "-E", "-c", "2", "-l", "INFO")
        server = [part.format(port=self._port) for part in self.example.server]
        with ExitStack() as stack:
            stack.callback(self.gateway.stop)
            self.gateway.start()
            processes = {
                "worker": self._start("worker", *worker, "-Q", self.example.queues, stack=stack),
                "server": self._start("server", *server, stack=stack),
            }
            processes["server"].wait_until(self._answers, 20)
            processes["worker"].wait_until(lambda: " ready." in processes["worker"].log.read_text(), 30)
            yield self

    def logged_in(self, user: str) -> httpx.Client:
        client = httpx.Client(base_url=self.url)
        client.get("/").raise_for_status()
        self.post(client, f"/login/{user}")
        return client

    def post(self, client: httpx.Client, path: str) -> httpx.Response:
        """Send a form, as the page does, with Django's token against CSRF."""
        headers = {"X-CSRFToken": client.cookies.get("csrftoken", "")}
        response = client.post(path, headers=headers)
        assert response.status_code in (202, 302, 303), response.text
        return response

    def start(self, client: httpx.Client) -> str:
        """Start the work of a user; its id."""
        response = self.post(client, "/start")
        location = response.headers.get("Location")
        return location.rpartition("/")[2] if location else str(response.json()["id"])

    def ask(self, client: httpx.Client, started: str) -> httpx.Response:
        """Ask the application for a token."""
        query = {self.example.parameter: started} if self.example.parameter else {}
        return client.get("/celery-token", params=query)

    def token(self, client: httpx.Client, started: str) -> str:
        response = self.ask(client, started)
        assert response.status_code == 200, response.text
        assert "no-store" in response.headers["Cache-Control"]
        return str(response.json()["token"])

    def token_for_all(self) -> str:
        return tokens.sign(self.secret.read_bytes(), issuer="https://shop.example", any=[{}])

    def stream(self, token: str) -> NdjsonStream:
        """The stream of a token, from the gateway's start on."""
        return NdjsonStream(self.gateway.url, {"since": "earliest"}, {"Authorization": f"Bearer {token}"})

    def get(self, path: str, token: str) -> httpx.Response:
        return httpx.get(f"{self.gateway.url}{path}", headers={"Authorization": f"Bearer {token}"})

    def _start(self, name: str, *arguments: str, stack: ExitStack) -> Process:
        log = self.folder / f"{name}.log"
        process = Process([sys.executable, *arguments], log=log, env=self._environment, cwd=EXAMPLES)
        stack.callback(process.kill)
        return process

    def _answers(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(self.url).status_code == 200
        return False


@pytest.fixture(scope="module", params=list(ALL))
def site(
    request: pytest.FixtureRequest, rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    broker = rabbitmq.add_vhost(f"tests-{uuid4().hex[:8]}")
    with Site(request.param, broker, tmp_path_factory.mktemp(request.param)).running() as site:
        yield site


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


def without(event: Event, hidden: frozenset[str]) -> Event:
    return {key: value for key, value in event.items() if key not in hidden}


def is_complete(events: list[Event], root_id: str, tasks: int) -> bool:
    """Whether all tasks of a workflow have ended, and all their events have arrived.

    A client's ``task-sent`` may be the last one: it has a connection of its own, which begins with it.
    """
    types = [event["type"] for event in events if event.get("root_id") == root_id]
    return types.count("task-succeeded") == types.count("task-sent") == tasks


def test_a_user_reads_the_own_work_and_nothing_else(site: Site) -> None:
    example = site.example
    with closing(site.logged_in("alice")) as alice, closing(site.logged_in("bob")) as bob:
        theirs = site.start(bob)
        started = site.start(alice)
        token = site.token(alice, started)
        with site.stream(site.token_for_all()) as everything, site.stream(token) as own:
            everything.until(lambda events: is_complete(events, started, example.tasks))
            # Further work of bob: what alice gets until then is complete, also if it is too much.
            later = site.start(bob)
            everything.until(lambda events: is_complete(events, later, example.tasks))
            expected = [
                without(event, example.hidden)
                for event in everything.events
                if example.sees(event, started) and not event["type"].startswith("gateway-")
            ]
            own.until(lambda events: len(events) >= len(expected))
            assert own.events == expected
            assert len(expected) < len(everything.events)
        ids = {event["uuid"] for event in expected}
        tasks = site.get("/tasks", token).json()["tasks"]
        assert {task["uuid"] for task in tasks} == ids
        assert not example.hidden & {field for task in tasks for field in task}
        assert site.get(f"/tasks/{started}", token).json()["state"] == "SUCCESS"
        for uuid in (theirs, later):
            assert site.get(f"/tasks/{uuid}", site.token_for_all()).status_code == 200
            refused = site.get(f"/tasks/{uuid}", token)
            unknown = site.get(f"/tasks/{uuid4()}", token)
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "task-unknown")
            assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "task-unknown")
        for path in ("/workers", "/metrics", "/"):
            assert site.get(path, token).status_code == 403, path
        assert token not in site.gateway.log.read_text()


def test_nobody_gets_the_token_of_another_user(site: Site) -> None:
    with closing(site.logged_in("alice")) as alice, closing(site.logged_in("bob")) as bob:
        started = site.start(alice)
        claims = jwt.decode(site.token(alice, started), options={"verify_signature": False})
        assert claims["sub"] == "alice"
        assert 0 < claims["exp"] - claims["iat"] <= 15 * 60 + 1
        with closing(httpx.Client(base_url=site.url)) as anonymous:
            assert site.ask(anonymous, started).status_code in (401, 404)
        if site.example.parameter:
            assert site.ask(bob, started).status_code == 404
            assert site.ask(alice, str(uuid4())).status_code == 404
            assert site.ask(alice, "*").status_code in (404, 422)
        else:
            claims = jwt.decode(site.token(bob, started), options={"verify_signature": False})
            assert claims["celery_gateway"]["any"] == [{"name": ["report.*"], "queue": ["tenant-globex"]}]


def test_without_a_token_there_is_nothing(site: Site) -> None:
    for path in ("/", "/events", "/tasks", "/workers", "/metrics", f"/tasks/{uuid4()}"):
        answer = httpx.get(f"{site.gateway.url}{path}")
        if path != "/":  # the login page
            assert answer.status_code == 401, path
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="celery-gateway"'
    for path in ("/healthz", "/readyz"):
        assert httpx.get(f"{site.gateway.url}{path}").status_code == 200


def test_the_page(site: Site, page: Page, browser: Browser) -> None:
    """It shows the work of the user who is logged in until it has ended."""
    built()
    expect.set_options(timeout=20_000)
    page.goto(site.url)
    page.get_by_role("button", name="Log in as alice").click()
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#text")).to_have_text(
        {"django_tokens": "SUCCESS 100 %", "fastapi_tokens": "6 of 6", "flask_tokens": "live"}[site.name]
    )
    if site.name == "flask_tokens":
        page.get_by_role("button", name="Start").click()
        expect(page.locator("li").last).to_have_text("report.yearly: SUCCESS")
    context = browser.new_context()
    try:
        other = context.new_page()
        other.goto(site.url)
        other.get_by_role("button", name="Log in as bob").click()
        if site.example.parameter:
            asked: list[int] = []
            other.on("response", lambda got: "celery-token" in got.url and asked.append(got.status))
            other.goto(page.url)
            assert wait_for(lambda: other.wait_for_timeout(50) or bool(asked), 10)
            assert asked[0] == 404
            assert "SUCCESS" not in other.locator("#text").inner_text()
        else:
            expect(other.locator("#text")).to_have_text("live")
            with other.expect_response("**/start") as response:
                other.get_by_role("button", name="Start").click()
            started = response.value.json()["id"]
            with closing(site.logged_in("bob")) as bob:
                token = site.token(bob, started)
            assert wait_for(lambda: site.get(f"/tasks/{started}", token).status_code == 200, 10)
            expect(other.locator("li")).to_have_count(len(site.get("/tasks", token).json()["tasks"]))
    finally:
        context.close()
