"""`GET /tasks/{uuid}` and `GET /workflows/{root_id}` for every kind of task, run by a real worker.

Final state, result, tree and times are compared with the result backend. Where
the two must differ, it is a test with the reason in its name.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from celery import Celery, chain, chord, group
from celery.canvas import chunks, xmap, xstarmap
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.result import AsyncResult
from kombu import Connection

from tests.support.celery_app import RETRY_SECONDS, UNKNOWN_PLACE
from tests.support.gateway_process import GatewayProcess
from tests.support.rabbitmq import wait_for
from tests.support.wire import Wire
from tests.support.worker import Worker

pytestmark = pytest.mark.usefixtures("gateway", "worker")

TaskView = dict[str, Any]
DEADLINE_SECONDS = 20.0


class Lookup:
    """The answers of the gateway."""

    def __init__(self, url: str, celery: Celery) -> None:
        self._http = httpx.Client(base_url=url)
        self._celery = celery

    def close(self) -> None:
        self._http.close()

    def task(self, uuid: str, **expected: Any) -> TaskView:
        """The task, once these of its fields are as expected."""
        view: TaskView = {}

        def is_as_expected() -> bool:
            response = self._http.get(f"/tasks/{uuid}")
            if response.status_code == 200:
                view.clear()
                view.update(response.json())
            return response.status_code == 200 and expected.items() <= view.items()

        is_there = wait_for(is_as_expected, DEADLINE_SECONDS)
        assert is_there, f"{expected} is not so of {view or uuid}"
        return view

    def workflow(self, root_id: str, total: int) -> dict[str, Any]:
        """The workflow, once it has so many tasks and all of them are ready."""
        view: dict[str, Any] = {}

        def is_ready() -> bool:
            response = self._http.get(f"/workflows/{root_id}")
            if response.status_code == 200:
                view.clear()
                view.update(response.json())
            return (view.get("total"), view.get("ready")) == (total, total)

        assert wait_for(is_ready, DEADLINE_SECONDS), f"not {total} ready tasks in {view}"
        return view

    def result(self, uuid: str) -> AsyncResult:
        return AsyncResult(uuid, app=self._celery)

    def ended(self, uuid: str, state: str = "SUCCESS") -> TaskView:
        """A task that has ended so, here and in the result backend, with the same outcome and times."""
        view, stored = self.task(uuid, state=state), self.result(uuid)
        assert stored.state == state
        if state == "SUCCESS":
            assert view["result"] == repr(stored.result)
        if state == "FAILURE" and view["traceback"] is not None:
            assert view["traceback"] == stored.traceback
            assert view["exception"] == repr(stored.result)
        moment = {"SUCCESS": "succeeded", "FAILURE": "failed", "REVOKED": "revoked"}[state]
        stored_at = stored.date_done.replace(tzinfo=UTC).timestamp()
        assert stored_at >= (view["received"] or 0.0)
        if state != "REVOKED":  # the child stores the result, then the worker sends the event
            assert stored_at <= view[moment]
        assert_times(view)
        return view

    def tree(self, uuid: str) -> tuple[str, list[Any]]:
        """(name, [the same of each child]) by the task's own children, each of which names its parent."""
        view = self.task(uuid)
        branches = []
        for child in view["children"]:
            assert self.task(child)["parent_id"] == uuid
            branches.append(self.tree(child))
        return view["name"], sorted(branches)


def assert_times(view: TaskView) -> None:
    """Check that the times of the last attempt are in order, and that the durations follow from them."""
    assert view["attempt"] > view["retries"]
    last = view["attempts"][-1]
    assert [view[field] for field in ("received", "started", "worker", "pid")] == [
        last[field] for field in ("received", "started", "worker", "pid")
    ]
    ended = view["succeeded"] or view["failed"] or view["revoked"]
    assert last["ended"] == ended
    if view["started"] is None:
        assert view["queued_seconds"] is None
        return
    assert view["received"] < view["started"] < ended
    assert view["queued_seconds"] >= 0
    # The task-sent may be late, and Celery reads the clock for it after it has sent the message.
    is_sent_first = view["sent"] is not None and view["sent"] <= view["started"]
    if view["attempt"] == 1 and is_sent_first:
        assert view["queued_seconds"] == pytest.approx(view["started"] - view["sent"])
    if view["state"] == "SUCCESS":
        assert 0 < view["runtime"] <= ended - view["received"] + 0.1
    if view["state"] == "FAILURE":
        assert view["runtime"] == pytest.approx(ended - view["started"])


@pytest.fixture(scope="module")
def lookup(gateway: GatewayProcess, celery: Celery) -> Iterator[Lookup]:
    lookup = Lookup(gateway.url, celery)
    try:
        yield lookup
    finally:
        lookup.close()


def add(celery: Celery, *numbers: int) -> Any:
    return celery.signature("canvas.add", numbers)


def children_of(result: AsyncResult) -> set[str]:
    """The children in the result backend."""
    found: set[str] = set()
    for child in result.children or ():
        found |= {child.id} if isinstance(child, AsyncResult) else {member.id for member in child}
    return found


# ------------------------------------------------------------------------------------------- canvas


def test_plain(celery: Celery, lookup: Lookup, worker: Worker) -> None:
    task = celery.send_task("canvas.add", (1, 2), {})

    view = lookup.ended(task.id)
    fields = {
        name: view[name] for name in ("name", "root_id", "parent_id", "args", "kwargs", "worker", "pid")
    }
    assert fields == {
        "name": "canvas.add", "root_id": task.id, "parent_id": None, "args": "(1, 2)", "kwargs": "{}",
        "worker": worker.hostname, "pid": worker.pid,
    }  # fmt: skip
    assert (view["queue"], view["attempt"], view["retries"]) == ("celery", 1, 0)
    assert lookup.tree(task.id) == ("canvas.add", [])


def test_chain(celery: Celery, lookup: Lookup) -> None:
    last = chain(add(celery, 1, 2), add(celery, 10), add(celery, 100)).apply_async()
    first = last.parent.parent

    workflow = lookup.workflow(first.id, 3)
    assert (workflow["progress"], workflow["counts"]) == (1.0, {"SUCCESS": 3})
    assert lookup.tree(first.id) == ("canvas.add", [("canvas.add", [("canvas.add", [])])])
    for result in (first, last.parent, last):
        view = lookup.ended(result.id)
        assert view["root_id"] == first.id
        assert set(view["children"]) == children_of(lookup.result(result.id))
    assert lookup.task(last.id)["result"] == "113"


def test_a_group_from_a_client_is_a_workflow_for_each_member(celery: Celery, lookup: Lookup) -> None:
    members = group([add(celery, number, number) for number in range(3)], app=celery).apply_async()

    for number, member in enumerate(members):
        view = lookup.ended(member.id)
        assert (view["root_id"], view["parent_id"], view["children"]) == (member.id, None, [])
        assert view["result"] == str(2 * number)


def test_a_group_inside_a_task(celery: Celery, lookup: Lookup) -> None:
    task = celery.send_task("trees.fan", (3,))

    lookup.workflow(task.id, 4)
    assert lookup.tree(task.id) == ("trees.fan", [("canvas.add", [])] * 3)
    view = lookup.ended(task.id)
    assert set(view["children"]) == children_of(lookup.result(task.id))
    for child in view["children"]:
        assert lookup.ended(child)["root_id"] == task.id


def test_chord(celery: Celery, lookup: Lookup) -> None:
    header = [add(celery, number, number) for number in range(3)]
    body = chord(header, app=celery)(celery.signature("canvas.total"))

    view = lookup.ended(body.id)
    assert view["result"] == "6"
    for member in body.parent:
        assert lookup.ended(member.id)["parent_id"] is None
    # With this backend a task of Celery's own waits for the header by retrying itself.
    unlock = lookup.task(view["parent_id"], state="SUCCESS")
    assert lookup.result(unlock["uuid"]).state == "PENDING", (
        "its result is ignored, the backend knows nothing"
    )
    assert (unlock["name"], unlock["children"]) == ("celery.chord_unlock", [body.id])
    assert unlock["attempt"] == unlock["retries"] + 1


def test_a_chord_and_a_group_that_are_given_a_root_are_one_workflow_each(
    celery: Celery, lookup: Lookup
) -> None:
    root_id = str(uuid4())
    header = [add(celery, number, number) for number in range(4)]
    body = chord(header, celery.signature("canvas.total")).apply_async(root_id=root_id)
    lookup.workflow(root_id, 5)  # the header and the body; celery.chord_unlock has a root of its own
    assert lookup.ended(body.id)["root_id"] == root_id
    group_root_id = str(uuid4())
    group(header).apply_async(root_id=group_root_id)
    lookup.workflow(group_root_id, 4)


def test_a_chord_inside_a_task(celery: Celery, lookup: Lookup) -> None:
    task = celery.send_task("trees.gather", (2,))

    lookup.workflow(task.id, 5)
    tree = (
        "trees.gather",
        [("canvas.add", []), ("canvas.add", []), ("celery.chord_unlock", [("canvas.total", [])])],
    )
    assert lookup.tree(task.id) == tree
    body = lookup.ended(lookup.result(task.id).result)
    assert (body["root_id"], body["result"]) == (task.id, "2")


@pytest.mark.parametrize(
    ("kind", "name", "result"),
    [("map", "celery.map", "[3, 7]"), ("starmap", "celery.starmap", "[3, 7]")],
)
def test_map_and_starmap_are_one_task(
    celery: Celery, lookup: Lookup, kind: str, name: str, result: str
) -> None:
    items = [(1, 2), (3, 4)]
    if kind == "map":
        task = xmap(celery.signature("canvas.total"), items, app=celery).apply_async()
    else:
        task = xstarmap(celery.signature("canvas.add"), items, app=celery).apply_async()

    view = lookup.ended(task.id)
    assert (view["name"], view["result"], view["children"]) == (name, result, [])


def test_chunks_are_a_group_of_starmaps(celery: Celery, lookup: Lookup) -> None:
    items = [(number, number) for number in range(5)]
    members = chunks(celery.signature("canvas.add"), items, 2, app=celery).apply_async()

    results = []
    for chunk in members:
        view = lookup.ended(chunk.id)
        assert (view["name"], view["root_id"]) == ("celery.starmap", chunk.id)
        results.append(view["result"])
    assert results == ["[0, 2]", "[4, 6]", "[8]"]


def test_link(celery: Celery, lookup: Lookup) -> None:
    linked = str(uuid4())
    task = celery.send_task("canvas.add", (1, 2), link=add(celery, 10).set(task_id=linked))

    lookup.workflow(task.id, 2)
    assert lookup.tree(task.id) == ("canvas.add", [("canvas.add", [])])
    assert lookup.ended(linked)["result"] == "13"
    assert lookup.ended(task.id)["children"] == [linked]
    assert children_of(lookup.result(task.id)) == {linked}


def test_link_error(celery: Celery, lookup: Lookup) -> None:
    linked = str(uuid4())
    errback = celery.signature("ends.lament").set(task_id=linked)
    task = celery.send_task("canvas.fail", link_error=errback)

    view = lookup.ended(task.id, "FAILURE")
    assert view["exception"] == f"LookupError({UNKNOWN_PLACE!r})"
    errback_view = lookup.ended(linked)
    assert (errback_view["root_id"], errback_view["parent_id"]) == (task.id, task.id)
    assert errback_view["result"] == repr(f"alas, {task.id}")
    # The backend keeps no children of a failed task.
    assert lookup.task(task.id)["children"] == [linked]


def test_replaced_is_the_same_task_under_its_new_name(celery: Celery, lookup: Lookup) -> None:
    """Its `task-sent` is the second one with the same retries, so it is a run of its own.

    Where it overtakes the first one's `task-received`, or its own overtakes it, it is taken for an attempt.
    """
    tasks = [celery.send_task("ends.replaced", (number, 2)) for number in range(20)]

    for number, task in enumerate(tasks):
        view = lookup.task(task.id, state="SUCCESS")
        assert lookup.result(task.id).state == "SUCCESS"
        assert (view["name"], view["result"]) == ("canvas.add", str(number + 2))
        states = [attempt["state"] for attempt in view["attempts"]]
        assert (view["attempt"], states) in [(1, ["SUCCESS"]), (2, ["STARTED", "SUCCESS"])]
        assert view["started"] < view["succeeded"]
        assert (view["parent_id"], view["children"]) == (None, []), "it is not its own child"


# ------------------------------------------------------------------------------- retries, rejections


def test_retried(celery: Celery, lookup: Lookup) -> None:
    task = celery.send_task("ends.retried")

    view = lookup.ended(task.id)
    assert (view["result"], view["retries"], view["attempt"]) == ("1", 1, 2)
    assert (view["parent_id"], view["children"]) == (None, [])
    assert view["exception"] is None, "it is of the attempt before"
    first, last = view["attempts"]
    assert (first["state"], first["exception"]) == ("RETRY", "ConnectionError('the service is away')")
    assert (last["state"], last["exception"]) == ("SUCCESS", None)
    assert first["ended"] == view["retried"]
    # From sent on, which is reported a little later than the retry is asked for.
    assert RETRY_SECONDS / 2 < view["queued_seconds"] < last["started"] - first["received"]


def test_retried_at_once_by_another_process(celery: Celery, lookup: Lookup) -> None:
    """Its end is mostly reported before the retry of the attempt before."""
    overtaken = 0
    for _ in range(20):
        task = celery.send_task("ends.retried", (0,))
        lookup.task(task.id, state="SUCCESS")
        assert wait_for(lambda uuid=task.id: lookup.task(uuid)["retried"], DEADLINE_SECONDS)
        view = lookup.task(task.id)
        assert (view["state"], view["retries"], view["attempt"]) == ("SUCCESS", 1, 2)
        overtaken += view["retried"] > view["succeeded"]
    assert overtaken, "none was, so nothing is shown"


def test_retried_until_it_fails(celery: Celery, lookup: Lookup) -> None:
    task = celery.send_task("walks.flaky")

    view = lookup.ended(task.id, "FAILURE")
    assert (view["retries"], view["attempt"]) == (3, 4)
    assert [attempt["state"] for attempt in view["attempts"]] == ["RETRY"] * 3 + ["FAILURE"]
    assert view["exception"] == "ConnectionError('the service is away')"


def test_rejected_and_requeued(celery: Celery, lookup: Lookup) -> None:
    task = celery.send_task("ends.requeued")

    view = lookup.ended(task.id)
    assert (view["result"], view["attempt"], view["retries"]) == ("'the second time'", 2, 0)
    assert view["rejected"] < view["started"]
    queued = max(moment for moment in (view["sent"], view["rejected"]) if moment <= view["started"])
    # The worker can report the rejection after the second start; then only the second receipt is known.
    since = {view["started"] - moment for moment in (queued, view["received"])}
    assert any(view["queued_seconds"] == pytest.approx(seconds) for seconds in since)


def test_rejected_for_good(celery: Celery, lookup: Lookup, wire: Wire) -> None:
    task = celery.send_task("walks.refuse")

    # Celery up to 5.6 reports no failure, and stores none; 5.7 reports a failure first.
    wire.until_types(task.id, "task-rejected")
    has_failed = "task-failed" in {event["type"] for event in wire.of(task.id)}
    view = lookup.task(task.id, state="FAILURE" if has_failed else "REJECTED")
    assert lookup.result(task.id).state == ("FAILURE" if has_failed else "PENDING")
    assert (view["rejected"] is None) == has_failed


def test_an_ignored_task_stays_started_since_no_event_reports_its_end(celery: Celery, lookup: Lookup) -> None:
    task = celery.send_task("ends.ignored")
    lookup.task(task.id, state="STARTED")
    lookup.ended(celery.send_task("canvas.add", (1, 2)).id)
    others = [celery.send_task("canvas.add", (number, 2)) for number in range(4)]
    for other in others:
        lookup.ended(other.id)
    assert lookup.task(task.id)["state"] == "STARTED"
    assert lookup.result(task.id).state == "PENDING"


def test_an_unregistered_task_fails_unseen_and_without_a_runtime(celery: Celery, lookup: Lookup) -> None:
    task = celery.send_task("ends.nobody_knows")

    view = lookup.ended(task.id, "FAILURE")
    assert view["exception"] == "NotRegistered('ends.nobody_knows')"
    assert (view["name"], view["started"], view["runtime"]) == ("ends.nobody_knows", None, None)


# ------------------------------------------------------------------------- time limits, lost workers


def test_hard_time_limit(celery: Celery, lookup: Lookup) -> None:
    task = celery.send_task("canvas.forever", time_limit=1)

    view = lookup.task(task.id, state="FAILURE")
    assert wait_for(lambda: lookup.result(task.id).state == "FAILURE", DEADLINE_SECONDS)
    assert isinstance(lookup.result(task.id).result, TimeLimitExceeded)
    # Celery 5.7 reports it a second time: ExceptionWithTraceback(), with the details in the traceback.
    last_line = (view["traceback"] or view["exception"]).rstrip().rpartition("\n")[2]
    assert "TimeLimitExceeded" in last_line
    assert view["runtime"] > 0.9
    assert view["attempt"] == 1


def test_soft_time_limit(celery: Celery, lookup: Lookup) -> None:
    task = celery.send_task("canvas.forever", soft_time_limit=1)

    view = lookup.ended(task.id, "FAILURE")
    assert view["exception"] == "SoftTimeLimitExceeded()"
    assert view["runtime"] > 0.9


def test_a_task_whose_process_is_killed_has_failed(celery: Celery, lookup: Lookup) -> None:
    task = celery.send_task("ends.lost")

    view = lookup.task(task.id, state="FAILURE")
    assert wait_for(lambda: lookup.result(task.id).state == "FAILURE", DEADLINE_SECONDS)
    assert isinstance(lookup.result(task.id).result, WorkerLostError)
    last_line = (view["traceback"] or view["exception"]).rstrip().rpartition("\n")[2]
    assert "WorkerLostError" in last_line


def test_a_task_whose_process_is_killed_is_begun_again_where_it_is_acknowledged_late(
    celery: Celery, lookup: Lookup
) -> None:
    task = celery.send_task("ends.lost_once")

    view = lookup.ended(task.id)
    assert (view["attempt"], view["retries"], view["result"]) == (2, 0, "'the second time'")
    assert view["rejected"] < view["started"]


def test_a_killed_workers_tasks_stay_started_unless_acknowledged_late_then_another_ends_them(
    celery: Celery, lookup: Lookup, broker: str, folder: Path, worker: Worker
) -> None:
    doomed = Worker(broker, folder, results=folder / "results", options=("-Q", "doomed"))
    doomed.start()
    try:
        early = celery.send_task("canvas.forever", queue="doomed")
        late = celery.send_task("ends.stuck_once", queue="doomed")
        lookup.task(early.id, state="STARTED", worker=doomed.hostname, queue="doomed")
        first = lookup.task(late.id, state="STARTED", worker=doomed.hostname, attempt=1)
    finally:
        doomed.kill()
    celery.control.add_consumer("doomed", destination=[worker.hostname], reply=True)
    try:
        view = lookup.ended(late.id)
    finally:
        celery.control.cancel_consumer("doomed", destination=[worker.hostname], reply=True)
    assert (view["worker"], view["attempt"], view["retries"]) == (worker.hostname, 2, 0)
    assert view["started"] > first["started"] and view["sent"] == first["sent"]
    assert view["queued_seconds"] < view["started"] - first["started"], "not counted from the first message"
    # The end of the other is not reported: no event, and no result.
    assert lookup.task(early.id)["state"] == "STARTED"
    assert lookup.result(early.id).state == "PENDING"


# -------------------------------------------------------------------------- revokes, expires, eta


def test_revoked_before_it_is_begun(celery: Celery, lookup: Lookup, worker: Worker) -> None:
    task = celery.send_task("canvas.add", (1, 2), countdown=1)
    lookup.task(task.id, state="RECEIVED")

    celery.control.revoke(task.id, destination=[worker.hostname], reply=True)

    view = lookup.ended(task.id, "REVOKED")
    assert (view["started"], view["attempt"], view["runtime"]) == (None, 1, None)


def test_revoked_while_it_runs(celery: Celery, lookup: Lookup) -> None:
    task = celery.send_task("canvas.forever")
    lookup.task(task.id, state="STARTED")

    task.revoke(terminate=True)

    view = lookup.ended(task.id, "REVOKED")
    assert view["attempt"] == 1


def test_revoked_after_progress_is_revoked(celery: Celery, lookup: Lookup) -> None:
    task = celery.send_task("ends.stuck_in_progress")
    view = lookup.task(task.id, state="PROGRESS")
    assert (view["progress"], view["custom"]) == (0.25, {"current": 1, "total": 4})

    task.revoke(terminate=True)

    view = lookup.ended(task.id, "REVOKED")
    assert view["progress"] == 0.25, "as far as it came"


def test_custom_states(celery: Celery, lookup: Lookup) -> None:
    task = celery.send_task("canvas.progress", (3,))

    lookup.task(task.id, progress=1.0)  # it has a connection of its own
    view = lookup.ended(task.id)
    assert view["custom"] == {"current": 3, "total": 3}
    assert view["custom_at"] < view["succeeded"]


def test_expired_in_the_worker(celery: Celery, lookup: Lookup) -> None:
    task = celery.send_task("walks.late", (0.7,), expires=0.6)

    view = lookup.ended(task.id, "REVOKED")
    assert datetime.fromisoformat(view["expires"]).timestamp() == pytest.approx(view["sent"] + 0.6, abs=0.7)
    assert (view["retries"], view["attempt"], view["started"]) == (1, 2, None)
    assert [attempt["state"] for attempt in view["attempts"]] == ["RETRY", "REVOKED"]


def test_what_expires_in_the_queue_stays_pending_since_the_broker_drops_it_silently(
    celery: Celery, lookup: Lookup, broker: str
) -> None:
    with Connection(broker) as connection:
        queue = connection.SimpleQueue("nobody-listens")
        try:
            task = celery.send_task("canvas.add", (1, 2), queue="nobody-listens", expires=0.3)
            assert lookup.task(task.id, state="PENDING")["expires"] is not None
            assert wait_for(lambda: queue.qsize() == 0, DEADLINE_SECONDS)
        finally:
            queue.close()
    view = lookup.task(task.id)
    assert (view["state"], view["type"], view["queue"]) == ("PENDING", "task-sent", "nobody-listens")
    assert lookup.result(task.id).state == "PENDING"


@pytest.mark.parametrize("delay", ["countdown", "eta"])
def test_delayed(celery: Celery, lookup: Lookup, delay: str) -> None:
    eta = datetime.now(UTC) + timedelta(seconds=0.3)

    task = celery.send_task("canvas.add", (1, 2), **({"eta": eta} if delay == "eta" else {"countdown": 0.3}))

    latest_eta = datetime.now(UTC) + timedelta(seconds=0.3)
    view = lookup.ended(task.id)
    shown_eta = datetime.fromisoformat(view["eta"])
    assert eta <= shown_eta <= latest_eta
    assert view["started"] >= shown_eta.timestamp()
    assert view["queued_seconds"] >= shown_eta.timestamp() - view["sent"] > 0
