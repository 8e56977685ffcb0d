"""The Celery app under watch: the tasks whose events the integration tests follow.

The worker takes it with `-A tests.support.celery_app` and finds broker and result backend in its environment;
a test makes itself a client of the same app with `create_app(broker_url, results)`. A client names tasks
instead of importing them, as a service without the workers' code does.
"""

import os
import signal
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
from celery import Celery, Task, chain, chord, group
from celery.exceptions import Ignore, Reject

RETRY_SECONDS = 0.25
UNKNOWN_PLACE = "Straße nach Łódź gibt es nicht: 404 – не найдено\u2028☂"


def create_app(broker_url: str | None, results: Path | str | None) -> Celery:
    """`results` is the folder of the file system result backend, the one that needs no server."""
    app = Celery("tests", broker=broker_url, set_as_current=False)
    app.conf.update(
        result_backend=f"file://{results}" if results else None,
        result_chord_retry_interval=RETRY_SECONDS,
        task_send_sent_event=os.environ.get("TESTS_SENT_EVENTS") != "0",
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
    )
    return app


app = create_app(os.environ.get("TESTS_BROKER_URL"), os.environ.get("TESTS_RESULTS"))


# The walks.


class _Page(HTMLParser):
    """Collects the title and the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.title = ""
        self.links: list[str] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title"
        self.links += [value for key, value in attrs if tag == "a" and key == "href" and value]

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data.strip()


@app.task(name="walks.visit")
def visit(url: str) -> str:
    return httpx.get(url).raise_for_status().text


@app.task(name="walks.extract_data_from_html")
def extract_data_from_html(html: str) -> dict[str, Any]:
    page = _Page()
    page.feed(html)
    return {"title": page.title, "links": page.links}


@app.task(name="walks.store_data")
def store_data(data: dict[str, Any], url: str) -> int:
    return httpx.post(url, json=data).raise_for_status().status_code


@app.task(name="walks.crawl")
def crawl(page_url: str, store_url: str) -> str:
    """The chain, started inside a task; returns the uuid of its last task."""
    walk = chain(visit.s(page_url), extract_data_from_html.s(), store_data.s(store_url))
    return str(walk.apply_async().id)


@app.task(bind=True, name="walks.flaky", max_retries=3)
def flaky(self: Task) -> None:
    try:
        raise ConnectionError("the service is away")
    except ConnectionError as error:
        raise self.retry(exc=error, countdown=RETRY_SECONDS) from error


@app.task(name="walks.refuse", acks_late=True)
def refuse() -> None:
    raise Reject("not for us", requeue=False)


@app.task(bind=True, name="walks.late", max_retries=None)
def late(self: Task, countdown_seconds: float) -> None:
    """Retries until its `expires` has passed."""
    raise self.retry(countdown=countdown_seconds)


# Canvas and the rest.


@app.task(name="canvas.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="canvas.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="canvas.big", resultrepr_maxsize=1_000_000)
def big(size: int) -> str:
    return "x" * size


@app.task(name="canvas.fail")
def fail() -> None:
    raise LookupError(UNKNOWN_PLACE)


@app.task(bind=True, name="canvas.progress")
def progress(self: Task, steps: int) -> int:
    for step in range(1, steps + 1):
        self.send_event("task-progress", current=step, total=steps)
    return steps


@app.task(name="canvas.forever")
def forever() -> None:
    """Until a signal ends the process: what a revoke with terminate=True is for."""
    while True:
        signal.pause()


# Ends of every kind.


@app.task(bind=True, name="ends.retried")
def retried(self: Task, countdown_seconds: float = RETRY_SECONDS) -> int:
    """Fails the first time; returns how often it was retried."""
    if not self.request.retries:
        raise self.retry(exc=ConnectionError("the service is away"), countdown=countdown_seconds)
    return int(self.request.retries)


@app.task(bind=True, name="ends.requeued", acks_late=True)
def requeued(self: Task) -> str:
    """Goes back to the queue the first time."""
    if not self.request.delivery_info["redelivered"]:
        raise Reject("not now", requeue=True)
    return "the second time"


@app.task(name="ends.ignored")
def ignored() -> None:
    raise Ignore()


@app.task(bind=True, name="ends.replaced")
def replaced(self: Task, x: int, y: int) -> None:
    raise self.replace(add.s(x, y))


@app.task(name="ends.lost")
def lost() -> None:
    """Its process is killed, as the out-of-memory killer does."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True, name="ends.lost_once", acks_late=True, reject_on_worker_lost=True)
def lost_once(self: Task) -> str:
    """Its process is killed the first time."""
    if not self.request.delivery_info["redelivered"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return "the second time"


@app.task(bind=True, name="ends.stuck_once", acks_late=True)
def stuck_once(self: Task) -> str:
    """Runs until its worker is killed, the first time."""
    while not self.request.delivery_info["redelivered"]:
        signal.pause()
    return "the second time"


@app.task(bind=True, name="ends.stuck_in_progress")
def stuck_in_progress(self: Task) -> None:
    self.send_event("task-progress", current=1, total=4)
    while True:
        signal.pause()


@app.task(bind=True, name="ends.login", max_retries=1)
def login(self: Task, user: str, *, password: str) -> None:
    """Shows its password wherever it can: in an event, in a retry, and at last in a traceback."""
    request = {"headers": [["X-Api-Key", password]]}
    self.send_event("task-login", user=user, password=password, request=request)
    error = PermissionError(f"login as {user} failed: {dict(user=user, password=password)}")
    raise self.retry(exc=error, countdown=0, kwargs={"password": password})


@app.task(bind=True, name="lives.moved")
def moved(self: Task, queue: str) -> None:
    """Replaces itself by a task of another queue."""
    raise self.replace(add.s(1, 2).set(queue=queue))


@app.task(name="lives.held")
def held(seconds: float) -> str:
    """Keeps its process busy."""
    time.sleep(seconds)
    return "held"


@app.task(name="ends.lament")
def lament(uuid: str) -> str:
    """An errback: it is given the uuid of the task that failed."""
    return f"alas, {uuid}"


@app.task(name="trees.fan")
def fan(width: int) -> None:
    """A group, started inside a task."""
    group(add.s(number, number) for number in range(width)).apply_async()


@app.task(name="trees.gather")
def gather(width: int) -> str:
    """A chord, started inside a task; returns the uuid of its body."""
    return str(chord(add.s(number, number) for number in range(width))(total.s()).id)
