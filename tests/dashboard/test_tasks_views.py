"""The dashboard's views of tasks, by links that are opened cold, and live."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.dashboard import HOSTILE, expect_view, guarded, opened
from tests.support.events_of_tasks import Event, done, failing, sent, taken, then
from tests.support.viewed_gateway import ViewedGateway, viewed_gateway

Open = Callable[..., Page]

TRACEBACK = """Traceback (most recent call last):
  File "/venv/lib/python3.12/site-packages/celery/app/trace.py", line 453, in trace_task
    R = retval = fun(*args, **kwargs)
  File "/venv/lib/python3.12/site-packages/celery/app/trace.py", line 736, in __protected_call__
    return self.run(*args, **kwargs)
  File "/srv/demo/tasks.py", line 88, in charge
    raise self.retry(exc=slow, countdown=1.5)
demo.errors.PaymentTimeout: order 10485: acquirer did not answer within 2.0 s
"""
KWARGS = (
    "{'amount': 59.4, 'currency': 'EUR', 'lines': [{'sku': 'a', 'n': 1}, {'sku': 'b', 'n': 2}], 'note': 'x'}"
)
MUTE_SECONDS = 30
ADVICE = ["celery -A proj worker -E", "celery-gateway check --broker URL"]
ESCAPED = "\\u{202e}"
"""How the page shows a character that reverses text."""


@pytest.fixture(scope="module")
def served() -> Iterator[ViewedGateway]:
    with viewed_gateway() as served:
        yield served


@pytest.fixture
def visit(browser: Browser, served: ViewedGateway) -> Iterator[Open]:
    """`visit("/tasks")`: a page at this path; options are those of a context."""
    with ExitStack() as stack:
        yield lambda path, **options: stack.enter_context(opened(browser, served.url + path, **options))


@pytest.fixture
def uid() -> str:
    return str(uuid4())


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"shop.t{uuid4().hex[:8]}"


def finished(uid: str, name: str, now: float) -> list[Event]:
    return [sent(uid, name, now - 9, args="(10485,)", kwargs=KWARGS), *done(uid, name, now - 8)]


def failed(uid: str, name: str, now: float) -> list[Event]:
    return failing(uid, name, now - 8, exception="PaymentTimeout('order 10485')", traceback=TRACEBACK)


def retrying(uid: str, name: str, now: float) -> list[Event]:
    return [
        *failed(uid, name, now)[:2],
        then("retried", uid, now - 7, exception="Slow()", traceback=TRACEBACK),
    ]


def running(uid: str, name: str, now: float) -> list[Event]:
    return [
        taken(uid, name, now - 8),
        then("started", uid, now - 7),
        then("progress", uid, now - 1, current=3, total=4),
    ]


def lost(uid: str, name: str, now: float) -> list[Event]:
    worker = {"hostname": f"gone@{uid[:6]}", "pid": 7}
    heartbeat = {"type": "worker-heartbeat", **worker, "freq": 2.0, "active": 1}
    return [
        heartbeat | {"timestamp": now - 9, "processed": 5, "clock": 900},
        *(event | worker for event in running(uid, name, now)[:2]),
        heartbeat | {"timestamp": now - 1, "processed": 0, "clock": 3, "type": "worker-online"},
        heartbeat | {"timestamp": now, "processed": 0, "clock": 4},
    ]


@pytest.mark.parametrize(
    ("events", "state", "shown"),
    [
        (finished, "SUCCESS", "in all"),
        (failed, "FAILURE", "PaymentTimeout('order 10485')"),
        (retrying, "RETRY", "Slow()"),
        (running, "PROGRESS", "75 %"),
        (lost, "LOST", "its worker's process was restarted"),
    ],
)
def test_a_link_to_a_task(
    visit: Open, served: ViewedGateway, uid: str, name: str, events: Any, state: str, shown: str
) -> None:
    served.put(*events(uid, name, time.time()))
    page = visit(f"/tasks/{uid}")
    expect_view(page, "task")
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    expect(page.locator(".outcome")).to_contain_text(state)
    expect(page.locator("main")).to_contain_text(shown)
    expect(page.locator(".phases svg")).to_be_visible()


def test_the_reason_of_a_lost_task_is_that_of_its_event(
    visit: Open, served: ViewedGateway, uid: str, name: str
) -> None:
    served.put(*lost(uid, name, time.time()))
    page = visit(f"/tasks/{uid}")
    reason = page.locator(".note", has_text="Lost")
    expect(reason).to_contain_text("its worker's process was restarted")
    served.put(taken(uid, name, time.time()), then("started", uid, time.time()))  # delivered again
    expect(page.locator(".outcome")).to_contain_text("STARTED")
    expect(reason).to_have_count(0)


def test_a_task_goes_on_while_it_is_watched(visit: Open, served: ViewedGateway, uid: str, name: str) -> None:
    now = time.time()
    served.put(sent(uid, name, now - 2, args="(1,)"))
    page = visit(f"/tasks/{uid}")
    expect(page.locator(".outcome")).to_contain_text("PENDING")
    served.put(*failing(uid, name, now - 1, traceback=TRACEBACK))
    expect(page.locator(".outcome")).to_contain_text("FAILURE")
    expect(page.locator(".task-events")).to_contain_text("task-failed")
    served.put(sent(uid, name, now, retries=1), *done(uid, name, now, retries=1))
    expect(page.locator(".outcome")).to_contain_text("SUCCESS")


def test_the_parts_of_a_task(visit: Open, served: ViewedGateway, uid: str, name: str) -> None:
    now = time.time()
    retry = then("retried", uid, now - 6, exception="Slow()", traceback=TRACEBACK)
    again = [
        taken(uid, name, now - 5, retries=1, args="(10485,)", kwargs=KWARGS),
        then("started", uid, now - 4),
    ]
    served.put(*failed(uid, name, now)[:2], retry, *again)
    served.put(then("failed", uid, now - 3, exception="PaymentTimeout('x')", traceback=TRACEBACK))
    page = visit(f"/tasks/{uid}")
    expect(page.locator(".outcome")).to_contain_text("after 2 tries")

    frames = page.locator(".traceback .frames")
    expect(frames).to_contain_text("2 frames of celery")
    expect(frames).to_contain_text("/srv/demo/tasks.py:88 in charge")
    expect(frames.get_by_text("trace_task")).to_have_count(0)
    frames.locator("summary").click()
    expect(frames.get_by_text("trace_task")).to_be_visible()
    page.get_by_role("button", name="As text").click()
    expect(page.locator(".traceback pre")).to_contain_text("__protected_call__")

    values = page.locator(".values")
    expect(values).to_contain_text("(10485,)")
    expect(values.locator(".repr-items > li").first).to_have_text("amount: 59.4")
    values.locator("summary", has_text="lines").click()
    expect(values).to_contain_text("{'sku': 'b', 'n': 2}")

    expect(page.locator(".task-events > li")).to_have_count(6)
    page.locator(".task-events summary", has_text="task-retried").click()
    expect(page.locator(".task-events pre")).to_contain_text('"type": "task-retried"')
    page.get_by_role("tab", name="Tries (2)").click()
    expect(page).to_have_url(re.compile("tab=tries"))
    expect(page.get_by_role("table", name="Attempts").get_by_role("row")).to_have_count(3)
    page.locator(".phases").get_by_role("button", name="Show as table").click()
    expect(page.locator(".phases").get_by_role("row")).to_have_count(3)
    page.get_by_role("tab", name="Watch it").click()
    expect(page.locator(".watch-it")).to_contain_text(uid)
    assert (
        page.request.get(page.get_by_role("link", name="Raw JSON").evaluate("a => a.href")).json()["uuid"]
        == uid
    )


def test_the_workflow_of_a_task(visit: Open, served: ViewedGateway, uid: str, name: str) -> None:
    now = time.time()
    served.put(*done(uid, name, now - 9))
    for number in range(3):
        served.put(*done(f"{uid}-{number}", f"{name}.{number}", now - 8, uid, uid))
    served.put(*done(f"{uid}-child", f"{name}.child", now - 7, uid, f"{uid}-0"))
    page = visit(f"/tasks/{uid}-0?tab=workflow")
    expect(page.locator("main")).to_contain_text("5 of 5")
    parts = page.locator(".relatives")
    for label, link in (("Parent", name), ("Children", f"{name}.child"), ("Siblings", f"{name}.2")):
        expect(
            parts.get_by_role("region", name=label).get_by_role("link", name=link, exact=True)
        ).to_be_visible()
    expect(page.locator(".mini-gantt li")).to_have_count(3)
    page.locator("main").press("w")
    expect_view(page, "workflow")


def test_a_task_that_is_not_known_yet(visit: Open, served: ViewedGateway, uid: str, name: str) -> None:
    page = visit(f"/tasks/{uid}")
    expect_view(page, "task", "empty")
    expect(page.locator("[data-code=task-unknown]")).to_contain_text(uid)
    served.put(*running(uid, name, time.time()))
    expect_view(page, "task")
    expect(page.get_by_role("heading", level=1)).to_have_text(name)


def test_a_task_that_was_evicted(browser: Browser, uid: str, name: str) -> None:
    with viewed_gateway(max_tasks=10) as small:
        small.put(*finished(uid, name, time.time()))
        for _ in range(40):
            small.put(*done(str(uuid4()), name, time.time()))
        with opened(browser, f"{small.url}/tasks/{uid}") as page:
            expect_view(page, "task", "empty")
            expect(page.locator("[data-code=task-evicted]")).to_contain_text("evicted")


def test_a_task_that_is_evicted_while_its_page_is_open(browser: Browser, uid: str, name: str) -> None:
    with viewed_gateway(max_tasks=10) as small:
        small.put(*finished(uid, name, time.time()))
        with opened(browser, f"{small.url}/tasks/{uid}") as page:
            expect_view(page, "task")
            gone = page.get_by_role("note").filter(has_text="no longer has this task")
            expect(gone).to_have_count(0)
            for _ in range(40):
                small.put(*done(str(uuid4()), name, time.time()))
            expect(gone).to_be_visible(timeout=60_000)
            expect(page.locator(".outcome")).to_contain_text("SUCCESS")


def test_ages_are_those_of_the_gateway_s_clock(browser: Browser, served: ViewedGateway, name: str) -> None:
    served.put(*done(f"{name}-0", name, time.time()))
    with guarded(browser, served.url) as (context, _):
        context.add_init_script("const real = Date.now; Date.now = () => real() + 1_200_000;")
        page = context.new_page()
        page.goto(f"{served.url}/tasks?name={name}&since=10m")
        rows = page.locator("tbody tr")
        expect(rows).to_have_count(1)
        page.get_by_role("button", name="Follow").click()
        served.put(*done(f"{name}-1", name, time.time()))
        expect(rows).to_have_count(2)


def test_the_place_in_a_list_after_going_back(visit: Open, served: ViewedGateway, name: str) -> None:
    now = time.time()
    for number in range(90):
        served.put(*done(f"{name}-{number}", name, now + number * 0.001))
    page = visit(f"/tasks?name={name}")
    row = page.locator(f"tr[data-key='{name}-20']")
    row.scroll_into_view_if_needed()
    top = page.evaluate("scrollY")
    assert top > 300
    row.get_by_role("link").first.click()
    expect_view(page, "task")
    assert page.evaluate("scrollY") == 0
    page.go_back()
    expect(row).to_be_focused()
    assert page.evaluate("scrollY") == top
    page.keyboard.press("j")
    expect(page.locator(f"tr[data-key='{name}-19']")).to_be_focused()


def test_the_list_by_state_name_and_order(visit: Open, served: ViewedGateway, name: str) -> None:
    now = time.time()
    for number in range(6):
        at = now - 60 + number
        ending = {"runtime": 10.0 - number} if number % 2 else {}
        served.put(
            *(done(f"{name}-{number}", name, at) if number % 2 else failing(f"{name}-{number}", name, at))
        )
        if ending:
            served.put(then("succeeded", f"{name}-{number}", at + 0.8, result="1", **ending))
    page = visit(f"/tasks?name={name}")
    expect_view(page, "tasks")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(6)
    assert [row.get_attribute("data-key") for row in rows.all()] == [
        f"{name}-{number}" for number in reversed(range(6))
    ]

    states = page.get_by_role("region", name="By state")
    expect(states.get_by_role("button", name="FAILURE")).to_contain_text("3")
    states.get_by_role("button", name="FAILURE").click()
    expect(rows).to_have_count(3)
    expect(page).to_have_url(re.compile(r"state=FAILURE"))
    page.get_by_role("group", name="Filter").get_by_role("button", name="state:FAILURE").click()
    expect(rows).to_have_count(6)

    page.get_by_role("button", name="Ran").click()
    expect(page).to_have_url(re.compile(r"sort=-runtime"))
    expect(rows.first).to_have_attribute("data-key", f"{name}-1")
    page.get_by_role("button", name="Sent").click()
    page.get_by_role("button", name="Sent").click()
    expect(page).to_have_url(re.compile(r"sort=oldest"))
    expect(rows.first).to_have_attribute("data-key", f"{name}-0")
    page.go_back()
    expect_view(page, "tasks")


def test_rows_stay_and_change_in_place_until_new_ones_are_asked_for(
    visit: Open, served: ViewedGateway, name: str
) -> None:
    now = time.time()
    served.put(*running(f"{name}-0", name, now - 50), *done(f"{name}-1", name, now - 40))
    page = visit(f"/tasks?name={name}")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(2)
    for number in range(2, 14):
        served.put(*done(f"{name}-{number}", name, now + number * 0.01))
    new = page.get_by_role("button", name="12 new tasks")
    expect(new).to_be_visible()
    served.put(then("succeeded", f"{name}-0", now, result="1", runtime=2.0))
    expect(page.locator(f"tr[data-key='{name}-0']")).to_contain_text("SUCCESS")
    expect(rows).to_have_count(2)
    new.click()
    expect(rows).to_have_count(14)
    page.get_by_role("button", name="Follow").click()
    served.put(*done(f"{name}-14", name, now + 1))
    expect(rows).to_have_count(15)
    expect(rows.first).to_have_attribute("data-key", f"{name}-14")


def test_a_row_that_no_longer_matches_shows_its_state(visit: Open, served: ViewedGateway, name: str) -> None:
    now = time.time()
    served.put(*running(f"{name}-0", name, now), *running(f"{name}-1", name, now))
    page = visit(f"/tasks?name={name}&state=PROGRESS")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(2)
    served.put(then("succeeded", f"{name}-0", now, result="1", runtime=2.0))
    expect(page.locator(f"tr[data-key='{name}-0']")).to_contain_text("SUCCESS")
    expect(rows).to_have_count(2)


def test_pages(visit: Open, served: ViewedGateway, name: str) -> None:
    now = time.time()
    for number in range(130):
        served.put(*done(f"{name}-{number}", name, now + number * 0.001))
    page = visit(f"/tasks?name={name}")
    table = page.get_by_role("grid", name="Tasks")
    expect(table).to_have_attribute("aria-rowcount", "101")
    page.get_by_role("button", name="Load more").click()
    expect(table).to_have_attribute("aria-rowcount", "131")
    expect(page.get_by_role("button", name="Load more")).to_have_count(0)


def test_nothing_matches(visit: Open, served: ViewedGateway, name: str) -> None:
    served.put(*done(f"{name}-0", f"{name}.pay", time.time()))
    page = visit(f"/tasks?name={name}.PAY&queue=none")
    expect_view(page, "tasks", "empty")
    expect(page.locator(".empty")).to_contain_text(re.compile(r"None of [\d,]+ tasks matches"))
    page.get_by_role("button", name=f"{name}.pay (1)").click()
    expect(page.locator(".empty")).to_contain_text("queue:none")
    page.get_by_role("button", name="Without queue:none").click()
    expect_view(page, "tasks")
    expect(page.locator("tbody tr")).to_have_count(1)

    page = visit("/tasks?state=success")
    expect_view(page, "tasks", "error")
    expect(page.get_by_role("alert")).to_contain_text("invalid state='success'")
    expect(page.get_by_role("button", name="Without state:success")).to_be_visible()
    expect(page.locator("main")).not_to_contain_text("None of")
    page.get_by_role("button", name=re.compile(r"SUCCESS \(\d+\)")).click()
    expect_view(page, "tasks")
    page.keyboard.press("Escape")
    expect(page.get_by_role("group", name="Filter")).to_have_count(0)


def test_a_comparison_that_is_not_one_is_named_as_it_was_given(visit: Open) -> None:
    page = visit("/tasks?runtime%3E=abc")
    expect_view(page, "tasks", "error")
    expect(page.get_by_role("alert")).to_contain_text("invalid comparison runtime>=abc")
    expect(page.get_by_role("button", name="Without runtime>=abc")).to_be_visible()


def test_a_lost_task_ran_until_it_was_lost(visit: Open, served: ViewedGateway, uid: str, name: str) -> None:
    served.put(*lost(uid, name, time.time() - 60))
    page = visit(f"/tasks/{uid}?tab=tries")
    ran = page.locator(".task-facts dt", has_text="Ran").locator("+ dd")
    expect(ran).to_have_text(re.compile(r"\d+ min|\d\d+ s"))  # it counts as lost once the gateway knows
    expect(page.get_by_role("row").filter(has_text="LOST")).to_contain_text(ran.inner_text())
    bar = page.locator(".phases rect.run.state-lost")
    assert bar.bounding_box()["width"] > 0.8 * page.locator(".phases svg").bounding_box()["width"]
    row = visit(f"/tasks?name={name}").get_by_role("row").filter(has_text=name)
    expect(row).to_contain_text(ran.inner_text())


def test_a_process_that_was_killed_is_the_exception(
    visit: Open, served: ViewedGateway, uid: str, name: str
) -> None:
    wrapped = "Traceback (most recent call last):\nWorkerLostError: signal 9 (SIGKILL)\n"
    served.put(*failing(uid, name, time.time(), exception="ExceptionWithTraceback()", traceback=wrapped))
    page = visit(f"/tasks/{uid}?tab=tries")
    expect(page.locator(".exception")).to_have_text("WorkerLostError: signal 9 (SIGKILL)")
    attempts = page.get_by_role("table", name="Attempts")
    expect(attempts).to_contain_text("WorkerLostError: signal 9 (SIGKILL)")
    page.get_by_role("tab", name="Events").click()
    expect(page.locator(".task-events summary").last).to_contain_text("WorkerLostError: signal 9")
    expect(page.locator("main")).not_to_contain_text("ExceptionWithTraceback()")


def test_when_a_task_runs_is_a_time_until_it_has_started(
    visit: Open, served: ViewedGateway, uid: str, name: str
) -> None:
    now = time.time()
    eta = datetime.fromtimestamp(now + 3600, UTC).isoformat()
    served.put(sent(uid, name, now, eta=eta))
    page = visit(f"/tasks/{uid}")
    facts = page.locator(".task-facts")
    expect(facts).to_contain_text(
        re.compile(r"Runs at\d\d:\d\d:\d\d · in 59 min|Runs at[-\d]+ \d\d:\d\d · in 59 min")
    )
    served.put(taken(uid, name, now, eta=eta), then("started", uid, now))
    expect(page.locator(".outcome")).to_contain_text("STARTED")
    expect(facts).not_to_contain_text("Runs at")


def test_by_keyboard_from_the_list_to_a_traceback(visit: Open, served: ViewedGateway, name: str) -> None:
    now = time.time()
    served.put(
        *failed(f"{name}-0", name, now - 9), *done(f"{name}-1", name, now), *done(f"{name}-2", name, now)
    )
    page = visit(f"/tasks?name={name}")
    expect(page.locator("tbody tr")).to_have_count(3)
    page.keyboard.press("j")
    page.keyboard.press("f")
    expect(page.locator(f"tr[data-key='{name}-0']")).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect_view(page, "task")
    expect(page.locator(".traceback")).to_contain_text("PaymentTimeout")


def test_no_task_at_all(browser: Browser) -> None:
    with viewed_gateway() as empty, opened(browser, f"{empty.url}/tasks") as page:
        expect_view(page, "tasks", "empty")
        for view in ("tasks", "workers", ""):
            page.goto(f"{empty.url}/{view}")
            expect(page.locator(".empty pre")).to_have_text(ADVICE)
        page.goto(f"{empty.url}/tasks")
        heartbeat = {"type": "worker-heartbeat", "hostname": "mute@host", "pid": 1, "freq": 2.0, "active": 0}
        told = page.locator(".empty", has_text="mute@host has processed 3 tasks and sends no task events")
        deadline = time.monotonic() + MUTE_SECONDS
        processed = 0
        while not told.is_visible() and time.monotonic() < deadline:
            empty.put(heartbeat | {"timestamp": time.time(), "processed": processed, "clock": processed + 1})
            processed = 3
            page.wait_for_timeout(300)
        expect(told).to_be_visible()


def test_untrusted_texts(visit: Open, served: ViewedGateway, uid: str) -> None:
    hostile = HOSTILE
    now = time.time()
    about = {"args": f"({hostile!r},)", "kwargs": f"{{{hostile!r}: {hostile!r}}}"}
    lines = f'  File "{hostile}", line 1, in {hostile}\n    {hostile}\n' * 3
    text = f"Traceback (most recent call last):\n{lines}{hostile}: {hostile}\n"
    served.put(
        sent(uid, hostile, now - 3, hostile, hostile, queue=hostile, **about),
        taken(uid, hostile, now - 2, hostile, hostile, hostname=hostile, **about),
        then("progress", uid, now - 1, hostname=hostile, **{hostile[:40]: hostile, "state": hostile}),
        then("failed", uid, now, hostname=hostile, exception=hostile, traceback=text),
    )
    name = "%3Cimg*"
    for path in (
        f"/tasks/{uid}",
        f"/tasks/{uid}?tab=tries",
        f"/tasks/{uid}?tab=workflow",
        f"/tasks/{uid}?tab=watch",
        f"/tasks?name={name}",
        f"/workflows?name={name}",
    ):
        page = visit(path)
        expect(page.locator("main")).not_to_have_attribute("data-state", "loading")
        if "/tasks" in path:
            expect(page.locator("main")).to_contain_text(ESCAPED)
        assert (
            page.evaluate("document.querySelectorAll('main :is(img, script, iframe, object, style)').length")
            == 0
        )
        assert page.evaluate("document.querySelectorAll('script').length") == 1
        assert "\u202e" not in page.locator("body").inner_text()


def test_long_texts(visit: Open, served: ViewedGateway, uid: str, name: str) -> None:
    now = time.time()
    frames = "".join(f'  File "/srv/a{n}.py", line {n}, in f\n    {"x" * 40}\n' for n in range(20_000))
    text = f"Traceback (most recent call last):\n{frames}ValueError: {'y' * 200_000}\n"
    assert len(text) > 1_000_000
    served.put(*failing(uid, name, now, exception="E" * 100_000, traceback=text))
    page = visit(f"/tasks/{uid}")
    expect(page.locator(".traceback")).to_be_visible()
    assert page.locator("main").evaluate("main => main.querySelectorAll('*').length") < 1_500
    assert page.evaluate("document.body.scrollHeight") < 20_000
    page.locator(".task-events summary", has_text="task-failed").click()
    expect(page.locator(".task-events pre")).to_contain_text("task-failed")
    assert page.evaluate("document.body.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [320, 390, 900])
def test_no_view_is_wider_than_the_window(
    visit: Open, served: ViewedGateway, uid: str, name: str, width: int
) -> None:
    served.put(*failed(uid, name, time.time()))
    for path, view in (
        (f"/tasks/{uid}", "task"),
        (f"/tasks?name={name}", "tasks"),
        ("/workflows?total>=1", "workflows"),
    ):
        page = visit(path, viewport={"width": width, "height": 800})
        expect_view(page, view)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
