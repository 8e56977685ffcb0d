"""The dashboard's views of workers, queues and failures, and its actions, on a real worker and a real broker.

Conditions are awaited with Playwright's `expect`, which polls the page.
"""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from celery import Celery
from kombu import Connection
from playwright.sync_api import Browser, Page, expect

from tests.support.celery_app import UNKNOWN_PLACE
from tests.support.dashboard import HOSTILE, expect_view, opened
from tests.support.gateway_process import ROOT, GatewayProcess
from tests.support.publisher import Publisher, received, task_event
from tests.support.rabbitmq import RabbitMQ, free_port, wait_for
from tests.support.worker import Worker

REVERSED = "\\u{202e}"
"""How the page shows that character."""
DEAD_SECONDS = 20
START_SECONDS = 30

Open = Callable[[str], Page]


@pytest.fixture(scope="module")
def gateway(broker: str, folder: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(broker, folder, options=["--allow", "revoke,terminate"])
    try:
        process.start()
        yield process
    finally:
        process.stop()


@pytest.fixture
def visit(browser: Browser, gateway: GatewayProcess) -> Iterator[Open]:
    """`visit("/workers")`: a page at this path."""
    with ExitStack() as pages:
        yield lambda path: pages.enter_context(opened(browser, gateway.url + path))


def answers(url: str) -> bool:
    """Return whether a gateway serves, with or without a broker."""
    with suppress(httpx.TransportError):
        return bool(httpx.get(f"{url}/healthz", timeout=5).status_code)
    return False


def confirm(page: Page, button: str, title: str | re.Pattern[str]) -> None:
    """Press an action, and confirm it."""
    page.get_by_role("button", name=f"{button}…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text(title)
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    dialog.get_by_role("button", name=button).click()
    expect(dialog).to_have_count(0)


def test_from_a_worker_to_the_task_that_it_runs_and_its_end(
    visit: Open, worker: Worker, celery: Celery
) -> None:
    task = celery.send_task("canvas.forever")
    page = visit("/workers")
    expect_view(page, "workers")
    row = page.get_by_role("row").filter(has_text=worker.hostname)
    expect(row.locator("[data-status]")).to_have_attribute("data-status", "online")
    row.get_by_role("link").first.click()
    expect_view(page, "worker")
    running = page.locator("[data-list=running]")
    expect(running.get_by_role("row").filter(has_text="canvas.forever")).to_contain_text("STARTED")
    expect(page.locator("dl.fields")).to_contain_text("py-celery")
    running.get_by_role("link", name="canvas.forever").click()
    expect_view(page, "task")
    assert page.url.endswith(f"/tasks/{task.id}")
    confirm(page, "Terminate", "Terminate this task?")
    expect(page.locator("main")).to_contain_text("REVOKED")
    expect(page.locator(".revocation")).to_have_text("1 task revoked. ")
    expect(page.locator(".actions")).to_contain_text("Terminated")
    expect(page.get_by_role("button", name="Revoke…")).to_have_count(0)
    page.go_back()
    expect(
        page.locator("[data-list=last]").get_by_role("row").filter(has_text="canvas.forever")
    ).to_contain_text("REVOKED")
    expect(running.get_by_role("row").filter(has_text="canvas.forever")).to_have_count(0)


def test_a_task_that_waits_is_revoked_after_a_question(visit: Open, worker: Worker, celery: Celery) -> None:
    task = celery.send_task("canvas.add", (1, 2), countdown=3600)
    page = visit(f"/tasks/{task.id}")
    expect(page.locator("main")).to_contain_text("RECEIVED")
    page.get_by_role("button", name="Revoke…").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    confirm(page, "Revoke", "Revoke this task?")
    expect(page.locator(".revocation")).to_have_text("1 task still waits. ")  # until its eta


def test_a_workflow_is_revoked_as_a_whole_and_others_see_it(
    visit: Open, worker: Worker, publisher: Publisher
) -> None:
    root, child = uuid4().hex, uuid4().hex
    publisher.send([received(root, "shop.checkout"), task_event("task-started", root)])
    publisher.send([received(child, "shop.pack", root) | {"parent_id": root}])
    pages = [visit(f"/workflows/{root}") for _ in range(2)]
    for page in pages:
        expect(page.locator("main")).to_contain_text("shop.pack")
    confirm_all = pages[0].get_by_role("button", name="Revoke all…")
    confirm_all.click()
    dialog = pages[0].get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text("Revoke 2 tasks of this workflow?")
    expect(dialog).to_contain_text("There is 1 task that already runs, and goes on.")
    dialog.get_by_role("button", name="Revoke 2 tasks").click()
    expect(pages[0].locator(".revocation")).to_have_text("1 task still waits, 1 task still runs. ")
    expect(pages[1].locator(".actions")).to_contain_text("Revoked")
    publisher.send([task_event("task-revoked", child, terminated=False, signum=None, expired=False)])
    expect(pages[0].locator(".revocation")).to_have_text("1 task revoked, 1 task still runs. ")


def test_a_refused_action_is_shown_in_the_dialog(visit: Open, worker: Worker, publisher: Publisher) -> None:
    uid = uuid4().hex
    publisher.send([received(uid, "shop.pay")])
    page = visit(f"/tasks/{uid}")
    page.route("**/revoke*", lambda route: route.abort())
    page.get_by_role("button", name="Revoke…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Revoke").click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    expect(dialog.get_by_role("button", name="Revoke")).to_be_enabled()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_a_gateway_without_allow_shows_no_actions(
    browser: Browser, broker: str, folder: Path, publisher: Publisher
) -> None:
    process = GatewayProcess(broker, folder)
    try:
        process.start()
        uid = uuid4().hex
        publisher.send([received(uid, "shop.pay")])
        with opened(browser, f"{process.url}/tasks/{uid}") as page:
            expect(page.locator("main")).to_contain_text("shop.pay")
            expect(page.locator("main")).to_contain_text("RECEIVED")
            assert page.locator("html").get_attribute("data-actions") == ""
            expect(page.get_by_role("button", name=re.compile("Revoke|Terminate"))).to_have_count(0)
    finally:
        process.stop()


def test_the_line_of_tail_waits_for_the_task(visit: Open, worker: Worker, celery: Celery) -> None:
    task = celery.send_task("canvas.add", (1, 2))
    page = visit(f"/tasks/{task.id}")
    expect(page.locator("main")).to_contain_text("SUCCESS")
    page.get_by_role("tab", name="Watch it").click()
    page.get_by_role("button", name="Terminal").click()
    line = page.locator("[data-lines=tail]").inner_text()
    program = f'celery-gateway() {{ {sys.executable} -m celery_gateway "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-c", program + line], capture_output=True, text=True, timeout=30, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "SUCCESS" in done.stdout or "canvas.add" in done.stdout


def test_a_queue_that_no_worker_consumes_is_named(visit: Open, worker: Worker, celery: Celery) -> None:
    celery.send_task("canvas.add", (1, 2))
    for _ in range(3):
        celery.send_task("canvas.add", (1, 2), queue="abandoned")
    page = visit("/queues")
    expect_view(page, "queues")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="abandoned"))
    expect(row).to_contain_text("3")
    expect(row).to_contain_text("No worker consumes this queue")
    expect(page.locator("[data-note=no-consumer]")).to_contain_text("abandoned")
    used = page.get_by_role("row").filter(has=page.get_by_role("link", name="celery", exact=True))
    expect(used).to_contain_text("celery")
    expect(used).not_to_contain_text("No worker consumes")
    celery.send_task("canvas.add", (1, 2), queue="abandoned")
    expect(row.get_by_role("gridcell").nth(1)).to_have_text("4")
    expect(row).to_contain_text("grows by")


def test_queues_that_cannot_be_read_are_not_missing_without_a_word(browser: Browser, folder: Path) -> None:
    process = GatewayProcess(f"redis://127.0.0.1:{free_port()}/0", folder)
    try:
        process.launch()
        wait_for(lambda: answers(process.url), START_SECONDS)
        with opened(browser, f"{process.url}/queues") as page:
            expect(page.locator("[data-note=not-readable]")).to_contain_text("cannot be read")
    finally:
        process.stop()


def test_failures_are_grouped_and_can_be_narrowed(visit: Open, worker: Worker, celery: Celery) -> None:
    page = visit("/failures?name=canvas.*")
    expect_view(page, "failures", "empty")
    expect(page.locator("main")).to_contain_text("No task that matches has failed.")
    tasks = [celery.send_task("canvas.fail") for _ in range(2)]
    expect_view(page, "failures")
    row = page.get_by_role("row").filter(has_text="LookupError")
    expect(row.get_by_role("gridcell").first).to_have_text("2")
    expect(row).to_contain_text("celery_app.py")
    expect(row).to_contain_text("canvas.fail")
    row.get_by_role("gridcell").first.click()
    panel = page.get_by_role("complementary", name="The failure")
    expect(panel).to_contain_text(UNKNOWN_PLACE.partition("\u2028")[0])
    panel.get_by_role("link", name=re.compile("^[0-9a-f]{8}$")).click()
    expect_view(page, "task")
    assert page.url.rpartition("/")[2] in [task.id for task in tasks]
    page.go_back()
    page.get_by_label("Task name").fill("shop.*")
    page.keyboard.press("Enter")
    expect_view(page, "failures", "empty")
    assert "name=shop." in page.url
    page.get_by_role("link", name="Show all failures").click()
    expect_view(page, "failures")


def test_the_count_of_failures_is_since_the_first(visit: Open, publisher: Publisher) -> None:
    uid, name = uuid4().hex, f"t{uuid4().hex[:8]}"
    publisher.send([received(uid, name), task_event("task-failed", uid, exception="CardDeclined('no')")])
    tools = visit(f"/failures?name={name}").locator(".tools")
    expect(tools).to_have_text("1 failure of 1 kind")
    page = visit(f"/failures?name={name}&since=10m")
    expect(page.locator(".tools")).to_have_text("1 failure of 1 kind since the first")
    expect(page.get_by_role("columnheader", name="Count")).to_have_attribute("title", "Since the first")


@pytest.fixture(scope="module")
def clusters(rabbitmq: RabbitMQ, folder: Path) -> Iterator[GatewayProcess]:
    """A gateway of two brokers with the same names: of a queue, a worker, a task, and a failure."""
    urls = {name: rabbitmq.add_vhost(f"{name}-{uuid4().hex[:8]}") for name in ("a", "b")}
    process = GatewayProcess(f"a={urls['a']}", folder, options=["--broker", f"b={urls['b']}"])
    try:
        process.start()
        assert wait_for(
            lambda: all(
                status["is_consuming"]
                for status in httpx.get(f"{process.url}/readyz").json()["clusters"].values()
            ),
            START_SECONDS,
        )
        for cluster, url in urls.items():
            with Connection(url) as connection:
                connection.default_channel.queue_declare("celery", durable=True, auto_delete=False)
            publisher = Publisher(url)
            origin = {"hostname": "w@same"}
            online = {"type": "worker-online", "freq": 0.01, "pid": 1, "timestamp": time.time()}
            publisher.send([online | origin])
            runs, failed = f"{cluster}-runs", f"{cluster}-failed"
            publisher.send([received(runs, "shop.pay", queue="celery") | origin])
            publisher.send([task_event("task-started", runs) | origin])
            publisher.send([received(failed, f"shop.{cluster}") | origin])
            publisher.send([task_event("task-failed", failed, exception=f"E{cluster}('no')") | origin])
            publisher.close()
        assert wait_for(
            lambda: len(httpx.get(f"{process.url}/failures").json()["failures"]) == 2, START_SECONDS
        )
        yield process
    finally:
        process.stop()


def test_the_overview_tells_the_clusters_apart(browser: Browser, clusters: GatewayProcess) -> None:
    with opened(browser, clusters.url) as page:
        queues = page.locator(".card").filter(has=page.get_by_role("heading", name="Queues"))
        expect(queues.locator("li")).to_have_count(2)
        waits = "state=PENDING,RECEIVED,RETRY,REJECTED,CANCELLED"
        for cluster in ("a", "b"):
            link = queues.get_by_role("listitem").filter(has_text=f"celery {cluster}").get_by_role("link")
            expect(link).to_have_attribute("href", f"tasks?queue=celery&cluster={cluster}&{waits}")
        workers = page.locator(".card").filter(has=page.get_by_role("heading", name="Workers"))
        expect(workers.get_by_role("listitem").filter(has_text="w@same b")).to_have_count(1)


def test_links_of_the_overview_keep_its_cluster_and_name(browser: Browser, clusters: GatewayProcess) -> None:
    with opened(browser, f"{clusters.url}/?cluster=a*&name=shop.*&window=5m") as page:
        for view, query in (
            ("Queues", "?cluster=a*"),
            ("Workers", "?cluster=a*"),
            ("Failures", "?cluster=a*&name=shop.*"),
        ):
            link = page.get_by_role("heading", name=view).get_by_role("link")
            expect(link).to_have_attribute("href", f"{view.lower()}{query}")
        note = page.locator(".note").filter(has_text="w@same")  # silent after 15 s
        expect(note).to_have_text("Silent, so busy or dead: w@same (a). Look", timeout=1_000 * DEAD_SECONDS)
        note.get_by_role("link", name="Look").click()
        expect_view(page, "workers")
        expect(page.get_by_role("grid").locator("tbody tr")).to_have_count(1)
        expect(page.get_by_role("grid").locator("tbody tr")).to_contain_text("w@same a")
        page.get_by_role("link", name="Queues", exact=True).last.click()
        expect_view(page, "queues")
        expect(page.get_by_role("grid").locator("tbody tr")).to_contain_text("celery a")


def test_a_worker_is_shown_with_the_tasks_of_its_cluster(browser: Browser, clusters: GatewayProcess) -> None:
    with opened(browser, f"{clusters.url}/workers/w@same") as page:
        last = page.locator("[data-list=last] tbody tr")
        for cluster in ("a", "b"):
            expect(page.locator("dl.fields")).to_contain_text(f"Cluster{cluster}, another in ")
            expect(last.filter(has_text=f"shop.{cluster}")).to_have_count(1)
            expect(last).to_have_count(2)
            page.locator("dl.fields").get_by_role("link").click()
        page.goto(f"{clusters.url}/failures")
        page.get_by_role("row").filter(has_text="Eb").get_by_role("gridcell").first.click()
        panel = page.get_by_role("complementary", name="The failure")
        expect(panel.get_by_role("link", name="w@same")).to_have_attribute("href", "workers/w@same?cluster=b")


def test_a_worker_without_task_events_is_explained(visit: Open, worker: Worker, publisher: Publisher) -> None:
    beat = {
        "type": "worker-heartbeat",
        "hostname": "mute@host",
        "freq": 2.0,
        "active": 0,
        "pid": 77,
        "clock": 1,
    }
    beat |= {
        "sw_ident": "py-celery",
        "sw_ver": "5.5.3",
        "sw_sys": "Linux",
        "loadavg": [0.1, 0.1, 0.1],
        "utcoffset": 0,
    }
    page = visit("/workers")
    expect_view(page, "workers")
    note = page.locator("[data-note=no-task-events]")
    publisher.send({**beat, "processed": 0, "timestamp": time.time()})
    deadline = time.monotonic() + 15
    while not note.is_visible() and time.monotonic() < deadline:
        publisher.send({**beat, "processed": 3, "timestamp": time.time()})
        page.wait_for_timeout(500)
    expect(note).to_contain_text("mute@host is alive and has processed 3 tasks, and sends no task events.")
    expect(note).to_contain_text("Start it with -E, or the gateway with --control.")
    expect(page.get_by_role("row").filter(has_text="mute@host")).to_contain_text("none")


def test_untrusted_texts_stay_texts(visit: Open, worker: Worker, publisher: Publisher) -> None:
    uid, hostname = f"id-{HOSTILE}", f"w@{HOSTILE}"
    about = {"hostname": hostname, "timestamp": time.time()}
    publisher.send(
        {"type": "worker-online", "freq": 2.0, "sw_ident": HOSTILE, "sw_ver": HOSTILE, "pid": 1, **about}
    )
    publisher.send(
        [
            received(uid, f"shop.{HOSTILE}", queue=HOSTILE) | about,
            task_event("task-started", uid) | about,
            task_event("task-failed", uid, exception=f"{HOSTILE}('{HOSTILE}')", traceback=HOSTILE) | about,
        ]
    )
    page = visit("/workers")
    row = page.get_by_role("row").filter(has_text="w@<img")
    expect(row).to_contain_text(REVERSED)
    row.get_by_role("link").first.click()
    expect_view(page, "worker")
    expect(page.get_by_role("heading", level=1)).to_contain_text(REVERSED)
    last = page.locator("[data-list=last]")
    expect(last.get_by_role("row").filter(has_text="<img")).to_contain_text("FAILURE")
    page.goto(page.url.partition("/workers/")[0] + "/failures")
    row = page.get_by_role("row").filter(has_text="<img")
    expect(row).to_contain_text(REVERSED)
    row.get_by_role("gridcell").first.click()
    expect(page.get_by_role("complementary", name="The failure")).to_contain_text(REVERSED)
    assert page.locator("main img, aside img, main script, aside script").count() == 0
    page.get_by_role("complementary").get_by_role("link").first.click()
    expect_view(page, "task")
    page.get_by_role("tab", name="Watch it").click()
    for language in ("curl", "Terminal", "JavaScript", "React", "Python"):
        page.get_by_role("button", name=language).click()
        text = page.locator("[data-lines]").inner_text()
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_a_worker_that_is_killed_is_silent_within_seconds_and_its_tasks_say_so(
    visit: Open, worker: Worker, publisher: Publisher
) -> None:
    uid, name = str(uuid4()), f"shop.{uuid4().hex[:8]}"
    origin = {"hostname": worker.hostname}
    publisher.send([received(uid, name) | origin, task_event("task-started", uid) | origin])
    task, tasks, overview = visit(f"/tasks/{uid}"), visit(f"/tasks?name={name}"), visit("/")
    expect(task.locator(".outcome")).to_contain_text("STARTED")
    expect(task.locator("[data-note=worker-away]")).to_have_count(0)
    page = visit("/workers")
    status = page.get_by_role("row").filter(has_text=worker.hostname).locator("[data-status]")
    expect(status).to_have_attribute("data-status", "online")
    worker.kill()
    expect(status).to_have_attribute("data-status", "silent", timeout=1_000 * (DEAD_SECONDS + 5))
    expect(status).to_contain_text(re.compile(r"▲silent for \d+ s"))
    note = task.locator("[data-note=worker-away]")
    expect(note).to_contain_text(re.compile(rf"{worker.hostname} has been silent for \d+ s: .*dead"))
    expect(task.locator(".phases rect.away")).to_have_count(1)
    expect(tasks.get_by_role("row").filter(has_text=name)).to_contain_text("worker silent")
    expect(overview.get_by_role("listitem").filter(has_text=name)).to_contain_text("worker silent")
    ended = task_event("task-succeeded", uid, result="1", runtime=1.0)
    publisher.send([ended | origin])
    expect(note).to_have_count(0)
    expect(tasks.get_by_role("row").filter(has_text=name)).not_to_contain_text("worker silent")
