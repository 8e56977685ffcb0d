"""The task table: joining, waiting, eviction. Time is the argument `now`; no test waits."""

import tracemalloc
from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.events.event import Event, encode, id_text, rfc3339
from celery_gateway.state.join_buffer import JOIN_WAIT_SECONDS, MAX_WAITING_BYTES, MAX_WAITING_EVENTS
from celery_gateway.state.process import Process
from celery_gateway.state.task import Task
from celery_gateway.state.task_graph import CHILDREN_BYTES, ROOT_BYTES, Root
from celery_gateway.state.task_table import MAX_QUEUES, TaskTable
from celery_gateway.state.transitions import READY_STATES
from celery_gateway.state.worker_table import WorkerTable
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

NAMES = ("name", "root_id", "parent_id")
JOINED = (*NAMES, "queue", "state", "attempt")
UNKNOWN = dict.fromkeys(NAMES)
DRAWN = settings(deadline=None, max_examples=tries(300), derandomize=True)

_clock = count(1)


def event(subject: str, uuid: Any = "u1", **fields: Any) -> Event:
    """A task event; each is later than the one made before."""
    return {"type": f"task-{subject}", "uuid": uuid, "timestamp": float(next(_clock)), **fields}


def sent(uuid: str = "u1", name: str = "shop.pay", **fields: Any) -> Event:
    return event("sent", uuid, **{"name": name, "root_id": uuid, "parent_id": None, "retries": 0} | fields)


def received(uuid: str = "u1", name: str = "shop.pay", **fields: Any) -> Event:
    return event(
        "received", uuid, **{"name": name, "root_id": uuid, "parent_id": None, "retries": 0} | fields
    )


def join(tasks: TaskTable, *events: Event, now: float = 0.0) -> list[Event]:
    return [out for each in events for out in tasks.join(each, now)]


def joined(out: Event) -> dict[str, Any]:
    return {field: out[field] for field in NAMES}


def task_of(tasks: TaskTable, uuid: str, cluster: str | None = None) -> Task:
    (record,) = tasks.find(uuid, cluster)
    return record.task


def types(events: list[Event]) -> list[str]:
    return [each["type"].removeprefix("task-") for each in events]


def knows(tasks: TaskTable, uuid: str) -> bool:
    """Read a task with an event of another group, which changes nothing and never waits."""
    (out,) = tasks.join({"type": "probe-asked", "uuid": uuid}, 0.0)
    return bool(out.get("name"))


# ------------------------------------------------------------------------------------------ joining


@pytest.mark.parametrize("naming", [sent, received], ids=["sent", "received"])
def test_what_names_a_task_gives_its_later_events_their_names(naming: Any) -> None:
    tasks = TaskTable()
    first = join(tasks, naming("u1", "shop.pay", root_id="r", parent_id="p"))
    later = join(tasks, event("started"), event("retried"), event("failed"), event("revoked"))
    assert len(first) == 1
    for out in later:
        assert joined(out) == {"name": "shop.pay", "root_id": "r", "parent_id": "p"}


def test_every_event_has_the_state_after_it() -> None:
    tasks = TaskTable()
    out = join(tasks, sent(), received(), event("started"), event("progress"), event("succeeded"))
    assert [each["state"] for each in out] == ["PENDING", "RECEIVED", "STARTED", "PROGRESS", "SUCCESS"]


def test_an_event_before_its_received_waits_for_it_and_goes_before_it() -> None:
    tasks = TaskTable()
    assert join(tasks, event("started", worker="w")) == []
    out = join(tasks, received("u1", "shop.pay", root_id="r", parent_id="p"))
    assert types(out) == ["started", "received"]
    assert joined(out[0]) == {"name": "shop.pay", "root_id": "r", "parent_id": "p"}
    assert out[0]["worker"] == "w"
    assert tasks.next_deadline is None


def test_a_whole_task_before_its_received_is_released_in_order() -> None:
    tasks = TaskTable()
    before = [event("started"), event("progress", done=1), event("progress", done=2), event("succeeded")]
    late = received("u1", "shop.pay", timestamp=0.5)
    assert join(tasks, *before) == []
    out = join(tasks, late)
    assert out == [*before, late]
    assert [each["name"] for each in out] == ["shop.pay"] * 5
    assert out[-1]["state"] == "SUCCESS", "the late task-received does not move the state back"
    assert tasks.statistics().waiting_events == 0


def test_tasks_wait_each_for_itself() -> None:
    tasks = TaskTable()
    assert join(tasks, event("started", "a"), event("started", "b"), event("succeeded", "a")) == []
    assert [(out["uuid"], out["type"]) for out in join(tasks, sent("b"))] == [
        ("b", "task-started"),
        ("b", "task-sent"),
    ]
    assert tasks.statistics().waiting_events == 2
    assert types(join(tasks, sent("a"))) == ["started", "succeeded", "sent"]


def test_an_events_own_fields_are_kept() -> None:
    tasks = TaskTable()
    join(tasks, sent("u1", "shop.pay", root_id="r", parent_id="p"))
    own = {"name": None, "root_id": 5, "parent_id": ["x"], "state": "half"}
    (out,) = join(tasks, event("progress", "u1", **own))
    assert {field: out[field] for field in own} == own


def test_fields_are_only_added() -> None:
    tasks = TaskTable()
    for made in (sent(), received(), event("started", hostname="h"), event("progress", done=0.5)):
        before = dict(made)
        (out,) = join(tasks, made)
        assert {field: out[field] for field in before} == before
        assert out.keys() - before.keys() == set(JOINED) - before.keys()


@pytest.mark.parametrize("sent_first", [True, False])
def test_the_name_in_received_replaces_the_name_in_sent(sent_first: bool) -> None:
    # Received has the `shadow`, and a replaced task's new name.
    tasks = TaskTable()
    both = [sent("u1", "shop.pay"), received("u1", "pay the shop")]
    join(tasks, *(both if sent_first else reversed(both)))
    assert join(tasks, event("started"))[0]["name"] == "pay the shop"


def test_a_replaced_task_has_the_new_name_once_it_is_received_under_it() -> None:
    tasks = TaskTable()
    join(tasks, sent(name="a"), received(name="a"), event("started"))
    out = join(tasks, sent(name="b"), received(name="b"), event("started"), event("succeeded"))
    assert [each["name"] for each in out] == ["b", "b", "b", "b"]
    assert [each["state"] for each in out] == ["PENDING", "RECEIVED", "STARTED", "SUCCESS"]
    assert [each["attempt"] for each in out] == [1, 1, 1, 1]


def test_a_run_that_is_sent_under_another_name_has_it_until_its_worker_has_another() -> None:
    tasks = TaskTable()
    out = join(tasks, sent(name="a"), received(name="shadow"), event("succeeded"), sent(name="b"))
    assert [each["name"] for each in out] == ["a", "shadow", "shadow", "b"]
    assert task_of(tasks, "u1").name == "b"
    out = join(tasks, event("progress"), received(name="shadow b"), event("started"))
    assert [each["name"] for each in out] == ["b", "shadow b", "shadow b"]


def test_a_received_without_a_name_does_not_remove_the_name_in_sent() -> None:
    tasks = TaskTable()
    join(tasks, sent("u1", "shop.pay", root_id="r", parent_id="p"), event("received"))
    assert joined(join(tasks, event("started"))[0]) == {"name": "shop.pay", "root_id": "r", "parent_id": "p"}


def test_a_task_is_not_its_own_parent() -> None:
    # A retried task without a parent is sent again as its own child.
    tasks = TaskTable()
    join(tasks, sent(), event("started"))
    again = join(tasks, sent(parent_id="u1", retries=1), received(parent_id="u1", retries=1))
    assert [out["parent_id"] for out in again] == ["u1", "u1"], "what was sent stays"
    assert join(tasks, event("started"))[0]["parent_id"] is None


def test_a_retried_child_keeps_its_parent() -> None:
    tasks = TaskTable()
    join(tasks, sent(parent_id="p"), sent(parent_id="u1", retries=1), received(parent_id="u1", retries=1))
    assert join(tasks, event("started"))[0]["parent_id"] == "p"


@pytest.mark.parametrize("wrong", [5, True, 1.5, ["x"], {"x": 1}, None])
def test_a_name_that_is_no_text_is_kept_in_its_event_and_joined_as_unknown(wrong: Any) -> None:
    tasks = TaskTable()
    (out,) = join(tasks, sent(name=wrong, retries=wrong, timestamp=wrong, queue=wrong))
    assert (out["name"], out["queue"]) == (wrong, wrong)
    (later,) = join(tasks, event("started"))
    assert (later["name"], later["queue"], later["root_id"]) == (None, None, "u1")


def test_the_queue_is_joined_to_every_event_after_the_message_that_names_it() -> None:
    tasks = TaskTable()
    out = join(tasks, sent(queue="slow"), received(), event("started"), event("retried"))
    assert [each["queue"] for each in out] == ["slow"] * 4
    out = join(tasks, sent(queue="fast", retries=1), received(retries=1), event("failed"))
    assert [each["queue"] for each in out] == ["fast"] * 3
    (custom,) = join(tasks, event("progress", queue=5))
    assert custom["queue"] == 5, "a field of its own stays"


def test_the_queue_of_a_message_that_no_client_reports_is_unknown() -> None:
    assert [each["queue"] for each in join(TaskTable(), received(), event("started"))] == [None, None]


def test_an_event_has_the_number_of_its_attempt_and_the_state_of_the_task() -> None:
    tasks = TaskTable()
    first = [sent(), received(), event("started")]
    second = [sent(retries=1), received(retries=1), event("retried"), event("started"), event("succeeded")]
    out = join(tasks, *first, *second)
    assert [(each["attempt"], each["state"]) for each in out] == [
        (1, "PENDING"), (1, "RECEIVED"), (1, "STARTED"), (2, "STARTED"), (2, "RECEIVED"), (1, "RECEIVED"),
        (2, "STARTED"), (2, "SUCCESS"),
    ]  # fmt: skip
    assert join(tasks, event("progress", attempt="mine"))[0]["attempt"] == "mine"


def test_an_event_of_an_earlier_run_has_attempt_0() -> None:
    tasks = TaskTable()
    workers = WorkerTable()
    events = [
        received(hostname="a@h", pid=1), event("started", hostname="a@h", pid=1),
        event("started", hostname="b@h", pid=2), event("succeeded", hostname="b@h", pid=2),
        sent(), received(hostname="b@h", pid=2), event("failed", hostname="a@h", pid=1),
    ]  # fmt: skip
    out = [
        each for now, made in enumerate(events) for each in tasks.join(made, now, workers.on_event(made, now))
    ]
    assert [(each["attempt"], each["state"]) for each in out[-2:]] == [(1, "RECEIVED"), (0, "RECEIVED")]


# ---------------------------------------------------------------------------------------- identity

IDS = [12345, 3.5, True, ["a"], {"a": [1, None]}, 0, ""]


@pytest.mark.parametrize("uuid", IDS, ids=repr)
def test_an_id_of_any_type_is_joined_and_found_by_its_text(uuid: Any) -> None:
    tasks, text = TaskTable(), id_text(uuid)
    assert text is not None
    events = [event("started", uuid), received(uuid, "shop.pay", root_id=uuid), event("succeeded", uuid)]
    out = join(tasks, *events)
    assert types(out) == ["started", "received", "succeeded"]
    assert [(each["uuid"], each["name"]) for each in out] == [(uuid, "shop.pay")] * 3
    assert (out[0]["root_id"], out[1]["root_id"], out[2]["root_id"]) == (text, uuid, text)
    task = task_of(tasks, text)
    assert (task.uuid, task.root_id, task.name, task.state) == (text, text, "shop.pay", "SUCCESS")
    assert list(tasks.roots(text)[0].members) == [text]


@pytest.mark.parametrize("uuid", IDS, ids=repr)
def test_root_and_parent_are_found_by_the_text_of_their_ids_too(uuid: Any) -> None:
    tasks, text = TaskTable(), id_text(uuid)
    assert text is not None
    join(tasks, sent(uuid, root_id=uuid), sent("child", root_id=uuid, parent_id=uuid))
    assert tasks.find(text)[0].child_ids == ["child"]
    assert set(tasks.roots(text)[0].members) == {text, "child"}
    (out,) = join(tasks, event("started", "child"))
    assert (out["root_id"], out["parent_id"]) == (text, text)


def test_a_number_and_its_text_are_one_task() -> None:
    tasks = TaskTable()
    join(tasks, sent(12345, "shop.pay"))
    assert join(tasks, event("started", "12345"))[0]["name"] == "shop.pay"
    assert tasks.statistics().known == 1


@pytest.mark.parametrize("naming", [sent, received], ids=["sent", "received"])
@pytest.mark.parametrize("is_there", [True, False], ids=["null", "missing"])
def test_a_task_without_a_root_is_its_own(naming: Any, is_there: bool) -> None:
    """Celery 3.1, and clients of other languages, send none."""
    tasks, made = TaskTable(), naming("u1", root_id=None)
    if not is_there:
        del made["root_id"]
    join(tasks, made)
    (later,) = join(tasks, event("started"))
    assert (later["root_id"], task_of(tasks, "u1").root_id) == ("u1", "u1")
    assert list(tasks.roots("u1")[0].members) == ["u1"]


def test_a_task_whose_root_becomes_known_later_leaves_its_own() -> None:
    tasks = TaskTable()
    join(tasks, sent(root_id=None), received(root_id="r"))
    assert task_of(tasks, "u1").root_id == "r"
    assert (tasks.roots("u1"), list(tasks.roots("r")[0].members)) == ([], ["u1"])
    join(tasks, received(root_id=None))
    assert task_of(tasks, "u1").root_id == "r", "and a message without one does not take it away"


def test_an_event_that_names_no_task_gives_it_no_root() -> None:
    tasks = TaskTable()
    join(tasks, event("started"), event("progress", root_id=None))
    tasks.release(1e9)
    assert task_of(tasks, "u1").root_id is None


CLUSTERS = ("eu", "us")


def test_two_clusters_may_have_one_uuid() -> None:
    tasks = TaskTable(clusters=CLUSTERS)
    join(tasks, sent("report", "eu.report", cluster="eu"), event("succeeded", "report", cluster="eu"))
    (out,) = join(tasks, sent("report", "us.report", cluster="us"))
    assert (out["name"], out["state"], out["attempt"]) == ("us.report", "PENDING", 1)
    assert [record.task.name for record in tasks.find("report")] == ["eu.report", "us.report"]
    assert [record.task.cluster for record in tasks.find("report")] == ["eu", "us"]
    assert (task_of(tasks, "report", "eu").state, task_of(tasks, "report", "us").state) == (
        "SUCCESS",
        "PENDING",
    )
    assert (tasks.find("report", "elsewhere"), tasks.find("other")) == ([], [])
    assert {record.key for record in tasks.find("report")} == set(tasks.keys("report"))


def test_events_wait_for_their_names_in_their_own_cluster() -> None:
    tasks = TaskTable(clusters=CLUSTERS)
    assert join(tasks, event("started", cluster="eu"), event("started", cluster="us")) == []
    out = join(tasks, received("u1", "eu.pay", cluster="eu"))
    assert [(each["cluster"], each["name"]) for each in out] == [("eu", "eu.pay")] * 2
    assert [each["cluster"] for each in tasks.release_all(0.0, "us")] == ["us"]
    assert tasks.statistics().waiting_events == 0


def test_workflows_and_children_stay_in_their_cluster() -> None:
    tasks = TaskTable(clusters=CLUSTERS)
    for cluster in CLUSTERS:
        join(tasks, sent("r", cluster=cluster))
        join(tasks, sent(f"{cluster}-child", root_id="r", parent_id="r", cluster=cluster))
    assert [record.child_ids for record in tasks.find("r")] == [["eu-child"], ["us-child"]]
    of_both = [[each.task.uuid for each in root.members.values()] for root in tasks.roots("r")]
    assert of_both == [["r", "eu-child"], ["r", "us-child"]]
    (us,) = tasks.roots("r", "us")
    assert [each.task.uuid for each in us.members.values()] == ["r", "us-child"]


def test_a_name_from_a_worker_and_an_evicted_task_are_of_one_cluster() -> None:
    tasks = TaskTable(max_tasks=1, clusters=CLUSTERS)
    tasks.set_name("u1", "us.pay", 0.0, "us")
    assert (task_of(tasks, "u1", "us").name, tasks.find("u1", "eu")) == ("us.pay", [])
    join(tasks, sent("u2", cluster="eu"))
    assert [tasks.was_evicted("u1", cluster) for cluster in (*CLUSTERS, None)] == [False, True, True]


# ------------------------------------------------------------------------------------------ waiting


def test_after_the_wait_an_event_goes_on_with_null() -> None:
    tasks = TaskTable()
    assert join(tasks, event("started"), now=10.0) == []
    assert tasks.next_deadline == 10.0 + JOIN_WAIT_SECONDS
    assert tasks.release(10.0 + JOIN_WAIT_SECONDS - 0.001) == []
    (out,) = tasks.release(10.0 + JOIN_WAIT_SECONDS)
    assert joined(out) == UNKNOWN
    assert out["state"] == "STARTED"
    assert tasks.statistics().waiting_events == 0
    assert tasks.release(1e9) == []


def test_the_wait_is_counted_from_the_first_event_that_waits() -> None:
    tasks = TaskTable()
    join(tasks, event("started"), now=10.0)
    join(tasks, event("succeeded"), now=10.9)
    assert types(tasks.release(11.0)) == ["started", "succeeded"]


def test_later_events_of_a_task_do_not_wait_again() -> None:
    tasks = TaskTable()
    join(tasks, event("started"), now=10.0)
    tasks.release(11.0)
    (out,) = join(tasks, event("succeeded"), now=11.0)
    assert joined(out) == UNKNOWN
    assert out["state"] == "SUCCESS"


def test_a_task_is_named_by_an_event_after_the_wait() -> None:
    tasks = TaskTable()
    join(tasks, event("started"), now=10.0)
    tasks.release(11.0)
    out = join(tasks, received("u1", "shop.pay", timestamp=0.5), event("succeeded"), now=12.0)
    assert [each["name"] for each in out] == ["shop.pay", "shop.pay"]
    assert [each["state"] for each in out] == ["STARTED", "SUCCESS"]


def test_tasks_are_released_in_the_order_in_which_they_began_to_wait() -> None:
    tasks = TaskTable()
    for number in range(10):
        join(tasks, event("started", f"u{number}"), now=number / 10)
    join(tasks, event("succeeded", "u0"), now=0.95)
    assert [out["uuid"] for out in tasks.release(1.5)] == ["u0", "u0", "u1", "u2", "u3", "u4", "u5"]
    assert tasks.next_deadline == pytest.approx(1.6)


def test_a_waiting_event_is_not_overtaken_by_a_custom_one_of_its_task_that_has_all_names() -> None:
    tasks = TaskTable()
    full = event("progress", "u1", name="mine", root_id="r")
    assert join(tasks, event("started"), full) == []
    assert types(tasks.release(JOIN_WAIT_SECONDS)) == ["started", "progress"]


@pytest.mark.slow
def test_a_hundred_thousand_unknown_tasks_wait_within_the_bounds_and_come_out_once_in_order() -> None:
    tasks = TaskTable()
    out: list[Event] = []
    for number in range(100_000):
        out += tasks.join({"type": "task-started", "uuid": f"u{number}", "timestamp": 1.0}, now=0.0)
    assert tasks.statistics().waiting_events <= MAX_WAITING_EVENTS
    out += tasks.release(JOIN_WAIT_SECONDS)
    assert tasks.statistics().waiting_events == 0
    assert [each["uuid"] for each in out] == [f"u{number}" for number in range(100_000)]
    assert all(each["name"] is None for each in out)
    assert tasks.statistics().unnamed_events == 100_000


@pytest.mark.slow
def test_a_hundred_thousand_events_of_one_unknown_task_wait_within_the_bounds() -> None:
    tasks = TaskTable()
    out: list[Event] = []
    for number in range(100_000):
        out += tasks.join({"type": "task-progress", "uuid": "u1", "number": number}, now=0.0)
        assert tasks.statistics().waiting_events <= MAX_WAITING_EVENTS
    out += tasks.release(JOIN_WAIT_SECONDS)
    assert [each["number"] for each in out] == list(range(100_000))


BIG = "x" * 100_000  # one object, so that the test itself stays small


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"result": BIG}, id="a long text"),
        pytest.param({"data": {"deep": [BIG]}}, id="a long text in an object"),
        pytest.param({"data": [BIG[:1000]] * 100}, id="a list of texts"),
        pytest.param({BIG: 1}, id="a long field name"),
        pytest.param({"data": [0] * 50_000}, id="a list of numbers"),
    ],
)
def test_events_wait_within_the_bound_of_bytes_whatever_is_big_in_them(fields: dict[str, Any]) -> None:
    tasks, size_bytes, out = TaskTable(), len(encode(fields)), 0
    for number in range(1_000):
        out += len(join(tasks, event("progress", f"u{number}", **fields)))
    waiting = tasks.statistics().waiting_events
    assert out + waiting == 1_000
    assert waiting * size_bytes <= 1.5 * MAX_WAITING_BYTES


# --------------------------------------------------------------------------- customs, other groups


def test_a_custom_task_event_waits_and_is_joined_like_any_other() -> None:
    tasks = TaskTable()
    assert join(tasks, event("half-done", percent=50)) == []
    out = join(tasks, received("u1", "shop.pay", timestamp=0.5))
    assert [(each["type"], each["name"], each["state"]) for each in out] == [
        ("task-half-done", "shop.pay", "HALF-DONE"),
        ("task-received", "shop.pay", "HALF-DONE"),
    ]


def test_a_custom_task_event_with_name_and_root_does_not_wait() -> None:
    tasks = TaskTable()
    (out,) = join(tasks, event("progress", name="mine", root_id="r"))
    assert (out["name"], out["root_id"], out["parent_id"], out["state"]) == ("mine", "r", None, "PROGRESS")


def test_a_custom_event_with_name_and_root_makes_a_record_at_once() -> None:
    # After a restart of the gateway a running task may send nothing else for hours.
    tasks = TaskTable()
    names = {"name": "mine", "root_id": "r", "parent_id": "p"}
    join(tasks, event("progress", hostname="a@h", current=1, total=2, **names))
    task = task_of(tasks, "u1")
    assert (task.name, task.root_id, task.parent_id) == ("mine", "r", "p")
    assert (task.state, task.worker, task.progress) == ("PROGRESS", "a@h", 0.5)
    assert list(tasks.roots("r")[0].members) == ["u1"]
    (started,) = join(tasks, event("started"))
    assert joined(started) == names
    join(tasks, received("u1", "shop.pay", root_id="r2", timestamp=0.5))
    assert joined(join(tasks, event("succeeded"))[0]) == {
        "name": "shop.pay",
        "root_id": "r2",
        "parent_id": "p",
    }
    assert (tasks.roots("r"), list(tasks.roots("r2")[0].members)) == ([], ["u1"])


@pytest.mark.parametrize("fields", [{"name": "mine"}, {"root_id": "r"}, {}], ids=repr)
def test_a_custom_event_with_only_one_of_them_waits(fields: dict[str, Any]) -> None:
    tasks = TaskTable()
    assert join(tasks, event("progress", **fields)) == []
    assert tasks.statistics().waiting_events == 1


def test_an_event_of_another_group_never_waits_and_is_joined_where_its_task_is_known() -> None:
    tasks = TaskTable()
    (unknown,) = join(tasks, {"type": "shop-paid", "uuid": "u1", "amount": 5})
    assert unknown.get("name") is None
    join(tasks, sent("u1", "shop.pay"))
    (known,) = join(tasks, {"type": "shop-paid", "uuid": "u1", "amount": 5})
    assert known == {
        "type": "shop-paid",
        "uuid": "u1",
        "amount": 5,
        "name": "shop.pay",
        "root_id": "u1",
        "parent_id": None,
        "queue": None,
        "state": "PENDING",
        "attempt": 0,
    }


def test_an_event_of_another_group_does_not_move_the_state() -> None:
    tasks = TaskTable()
    join(tasks, sent(), {"type": "worker-succeeded", "uuid": "u1"}, {"type": "shop-failed", "uuid": "u1"})
    assert join(tasks, event("received"))[0]["state"] == "RECEIVED"


@pytest.mark.parametrize("type", ["worker-heartbeat", "worker-online", "shop-opened", "plain", "-", "task"])
def test_events_without_a_uuid_pass_as_they_are(type: str) -> None:
    tasks = TaskTable()
    assert join(tasks, {"type": type, "freq": 2.0}) == [{"type": type, "freq": 2.0}]


@pytest.mark.parametrize("uuid", [{"uuid": None}, {}], ids=["null", "missing"])
@pytest.mark.parametrize("subject", ["sent", "received", "started", "succeeded", "progress"])
def test_a_task_event_without_a_uuid_neither_waits_nor_is_remembered(uuid: Any, subject: str) -> None:
    tasks = TaskTable()
    made = {"type": f"task-{subject}", "timestamp": 1.0, "hostname": "h", **uuid}
    before = dict(made)
    (out,) = join(tasks, made)
    assert {field: out[field] for field in before} == before
    assert joined(out) == UNKNOWN
    assert tasks.statistics().known == 0
    assert tasks.statistics().waiting_events == 0


def test_an_empty_uuid_is_a_uuid_like_another() -> None:
    tasks = TaskTable()
    out = join(tasks, event("started", ""), sent("", "shop.pay"))
    assert [each["name"] for each in out] == ["shop.pay", "shop.pay"]


# -------------------------------------------------------------------------------- drawn by hypothesis


@st.composite
def traffic(draw: st.DrawFn) -> list[tuple[float, Event]]:
    """Events of a few tasks and the times at which they come, quarters of a second apart."""
    now, events, sent_to = 0.0, [], set()
    for number in range(draw(st.integers(0, 25))):
        now += draw(st.sampled_from([0, 0, 0, 0.25, 0.5, 1]))
        subject = draw(st.sampled_from(["sent", "received", "started", "started", "half-done", "progress"]))
        uuid = draw(st.sampled_from("abc"))
        if subject == "sent":
            if uuid in sent_to:
                continue
            sent_to.add(uuid)
        made: Event = {"type": f"task-{subject}", "uuid": uuid, "number": number, "timestamp": float(number)}
        if subject in ("sent", "received"):
            made |= {"name": f"{subject} {number}", "root_id": "r", "parent_id": None}
        events.append((now, made))
    return events


def expected_names(arrivals: list[tuple[float, Event]]) -> list[str | None]:
    """The names of one task's events, derived from the rules: one second from the first that is unknown."""
    naming = [(at, made) for at, made in arrivals if made["type"] in ("task-sent", "task-received")]
    first_at = arrivals[0][0]
    first_naming = next(iter(naming), None)
    is_held = first_naming is not None and first_naming[0] < first_at + JOIN_WAIT_SECONDS
    names: list[str | None] = []
    sent_name = received_name = None
    for _, made in arrivals:
        if made["type"] == "task-sent":
            sent_name = made["name"]
        elif made["type"] == "task-received":
            received_name = made["name"]
        known = received_name or sent_name
        if known is None and is_held and first_naming is not None:
            known = first_naming[1]["name"]
        names.append(made.get("name", known))
    return names


@pytest.mark.slow
@DRAWN
@given(traffic())
def test_each_event_comes_out_once_in_its_tasks_order_in_time_and_with_its_name(
    arrivals: list[tuple[float, Event]],
) -> None:
    tasks, out = TaskTable(), []
    given_by_uuid: dict[str, list[tuple[float, Event]]] = defaultdict(list)
    for now, made in arrivals:
        given_by_uuid[made["uuid"]].append((now, dict(made)))
        out += tasks.release(now)
        deadline = tasks.next_deadline
        assert deadline is None or now < deadline <= now + JOIN_WAIT_SECONDS
        out += tasks.join(made, now)
        assert tasks.statistics().waiting_events == sum(map(len, given_by_uuid.values())) - len(out)
    out += tasks.release(1e9)
    assert tasks.statistics().waiting_events == 0
    for uuid, its_arrivals in given_by_uuid.items():
        its_out = [each for each in out if each["uuid"] == uuid]
        assert [each["number"] for each in its_out] == [made["number"] for _, made in its_arrivals]
        assert [each["name"] for each in its_out] == expected_names(its_arrivals)
    assert len(out) == len(arrivals)


# -------------------------------------------------------------------------------------------- lost


class Cluster:
    """A table of tasks, and the workers that their events come from."""

    def __init__(self, **bounds: Any) -> None:
        self.tasks = TaskTable(**bounds)
        self.workers = WorkerTable(has_clusters="clusters" in bounds)
        self.now = 0.0

    def join(self, *events: Event) -> list[Event]:
        out: list[Event] = []
        for made in events:
            self.now += 0.01
            out += self.tasks.join(made, self.now, self.workers.on_event(made, self.now))
        return out

    def process(self, hostname: str, **fields: Any) -> Process:
        process = self.workers.on_event({"type": "worker-heartbeat", **by(hostname), **fields}, self.now)
        assert process is not None
        return process


def by(hostname: str) -> dict[str, Any]:
    return {"hostname": hostname, "pid": ord(hostname[0])}


def test_a_task_whose_process_is_gone_is_reported_as_lost_with_its_names() -> None:
    cluster = Cluster()
    cluster.join(
        sent("u1", "shop.pay", root_id="r", parent_id="p", queue="slow", retries=2),
        received("u1", "shop.pay", root_id="r", parent_id="p", retries=2, **by("a@h")),
        event("started", **by("a@h")),
        received("u2", **by("b@h")),
    )
    (lost,) = cluster.tasks.mark_lost(cluster.process("a@h"), "it was restarted", 1_700_000_000.5)
    assert lost == {
        "type": "task-lost", "uuid": "u1", "source": "gateway", "reason": "it was restarted",
        "timestamp": 1_700_000_000.5, "time": rfc3339(1_700_000_000.5), "hostname": "a@h", "pid": ord("a"),
        "name": "shop.pay", "root_id": "r", "parent_id": "p", "queue": "slow", "retries": 2, "attempt": 3,
        "state": "LOST",
    }  # fmt: skip
    task = task_of(cluster.tasks, "u1")
    assert (task.state, task.lost) == ("LOST", 1_700_000_000.5)
    assert task_of(cluster.tasks, "u2").state == "RECEIVED"
    assert cluster.tasks.mark_lost(cluster.process("a@h"), "again", 1_700_000_001.0) == []


def test_a_task_that_another_process_works_on_is_not_reported_as_lost() -> None:
    cluster = Cluster()
    cluster.join(received(**by("a@h")), event("started", **by("a@h")), received(**by("b@h")))
    assert cluster.tasks.mark_lost(cluster.process("a@h"), "gone", 5.0) == []
    (lost,) = cluster.tasks.mark_lost(cluster.process("b@h"), "gone", 6.0)
    assert (lost["attempt"], lost["hostname"]) == (2, "b@h")


def test_a_task_that_has_ended_or_was_forgotten_is_not_reported_as_lost() -> None:
    cluster = Cluster(max_tasks=2)
    cluster.join(received("a", **by("a@h")), event("succeeded", "a", **by("a@h")), received("b", **by("a@h")))
    process = cluster.process("a@h")
    assert len(process.assigned) == 1
    cluster.join(*(event("started", "b", **by("a@h")), sent("c"), sent("d"), sent("e")))
    assert (cluster.tasks.find("b"), process.assigned) == ([], {})
    assert cluster.tasks.mark_lost(process, "gone", 5.0) == []


def test_a_lost_task_has_its_cluster() -> None:
    cluster = Cluster(clusters=CLUSTERS)
    cluster.join(received("u1", cluster="eu", **by("a@h")), received("u1", cluster="us", **by("a@h")))
    (lost,) = cluster.tasks.mark_lost(cluster.process("a@h", cluster="us"), "gone", 5.0)
    assert lost["cluster"] == "us"
    assert [record.task.state for record in cluster.tasks.find("u1")] == ["RECEIVED", "LOST"]


def test_a_lost_task_goes_on_with_the_next_attempt() -> None:
    cluster = Cluster()
    cluster.join(received(**by("a@h")), event("started", **by("a@h")))
    cluster.tasks.mark_lost(cluster.process("a@h"), "gone", 5.0)
    (root,) = cluster.tasks.roots("u1")
    assert (root.unready, root.lost) == (1, 1)
    (out,) = cluster.join(received(**by("b@h")))
    assert (out["state"], out["attempt"], root.lost) == ("RECEIVED", 2, 0)
    cluster.join(event("succeeded", **by("b@h")))
    assert (root.unready, root.lost) == (0, 0)


def test_a_task_whose_events_wait_while_its_process_goes_is_lost() -> None:
    cluster = Cluster()
    process = cluster.process("a@h", clock=100)
    assert cluster.join(event("started", **by("a@h"), clock=101)) == []
    cluster.process("a@h", type="worker-online", clock=1, processed=0, active=0)
    gone = cluster.workers.find_gone(cluster.now)
    assert [each.process for each in gone] == [process]
    reported = cluster.tasks.mark_lost(*gone[0][:2], 5.0)
    cluster.tasks.release(cluster.now + 2.0)
    reported += cluster.tasks.mark_lost_late(6.0)
    assert (types(reported), task_of(cluster.tasks, "u1").state) == (["lost"], "LOST")


@st.composite
def workflows(draw: st.DrawFn) -> list[Event]:
    """Events of a few tasks of two workflows, by three workers, in any order."""
    events: list[Event] = []
    for number in range(draw(st.integers(0, 30))):
        subject = draw(st.sampled_from(["sent", "received", "received", "started", "succeeded", "failed"]))
        subject = draw(st.sampled_from([subject, subject, "retried", "rejected", "progress", "gone"]))
        made: Event = {"type": f"task-{subject}", "uuid": draw(st.sampled_from("abcd")), "clock": number}
        made["timestamp"] = float(number)
        if subject in ("sent", "received"):
            made["root_id"] = draw(st.sampled_from(["a", "r", None]))
            made["parent_id"] = draw(st.sampled_from(["a", "b", "r", None]))
            made |= {"name": "n", "retries": draw(st.integers(0, 1))}
        hostname = draw(st.sampled_from(["a@h", "b@h", "c@h"]))
        events.append(made | ({} if subject == "sent" else by(hostname)))
    return events


def counts(root: Root) -> tuple[int, int, int]:
    members = [record.task for record in root.members.values()]
    return (
        sum(task.state not in READY_STATES for task in members),
        sum(task.lost is not None for task in members),
        sum(task.sent is None for task in members),
    )


@pytest.mark.slow
@DRAWN
@given(workflows(), st.sampled_from([2, 100]))
def test_a_workflow_counts_its_tasks_after_any_events(events: list[Event], max_tasks: int) -> None:
    cluster = Cluster(max_tasks=max_tasks)
    tasks = cluster.tasks
    for made in events:
        if made["type"] == "task-gone":
            process = cluster.workers.on_event(made | {"type": "worker-heartbeat"}, cluster.now)
            assert process is not None
            tasks.mark_lost(process, "gone", cluster.now)
        else:
            cluster.join(made)
        known = {record.key: record for record in tasks.newest()}
        in_roots = [
            (root.id, key)
            for root_id in ("a", "b", "c", "d", "r")
            for root in tasks.roots(root_id)
            for key in root.members
        ]
        assert sorted(in_roots) == sorted(
            (record.task.root_id, key) for key, record in known.items() if record.task.root_id is not None
        )
        for root_id in {root_id for root_id, _ in in_roots}:
            (root,) = tasks.roots(root_id)
            assert (root.unready, root.lost, root.unsent) == counts(root)
        assert tasks.statistics().known == len(known)
        groups = len(tasks._graph._orphans) + sum(record.children is not None for record in known.values())
        assert tasks.statistics().known_bytes == (
            sum(record.size_bytes for record in known.values())
            + len(tasks._graph._roots) * ROOT_BYTES
            + groups * CHILDREN_BYTES
        )


# --------------------------------------------------------------------------------------- forgetting


def test_finished_tasks_are_evicted_before_unfinished_ones_and_the_first_finished_first() -> None:
    tasks = TaskTable(max_tasks=5)
    join(tasks, *(sent(f"u{number}") for number in range(5)))
    join(tasks, event("succeeded", "u3"), event("failed", "u1"), event("revoked", "u2"))
    remembered = []
    for number in range(5, 10):
        join(tasks, sent(f"u{number}"))
        remembered.append("".join(old for old in "01234" if knows(tasks, f"u{old}")))
    assert remembered == ["0124", "024", "04", "4", ""]
    statistics = tasks.statistics()
    assert (statistics.evicted_finished, statistics.evicted_unfinished, statistics.known) == (3, 2, 5)


def test_the_unfinished_task_without_events_for_longest_is_evicted_first() -> None:
    tasks = TaskTable(max_tasks=3)
    join(tasks, sent("a"), sent("b"), sent("c"), event("started", "a"))
    join(tasks, sent("d"))
    assert [uuid for uuid in "abcd" if knows(tasks, uuid)] == ["a", "c", "d"]


def test_a_new_attempt_makes_a_finished_task_unfinished() -> None:
    tasks = TaskTable(max_tasks=3)
    join(tasks, sent("a"), event("succeeded", "a"), sent("b"), sent("c"), received("a"))
    join(tasks, sent("d"))
    assert [uuid for uuid in "abcd" if knows(tasks, uuid)] == ["a", "c", "d"]


def test_later_events_of_an_evicted_task_have_null_names() -> None:
    tasks = TaskTable(max_tasks=1)
    join(tasks, sent("a"), sent("b"))
    out = join(tasks, event("started", "a")) or tasks.release(JOIN_WAIT_SECONDS)
    assert [joined(each) for each in out] == [UNKNOWN]


def traffic_of(first: int, last: int, *, is_ending: bool) -> Iterator[Event]:
    """Tasks that are sent one after another; each ends when 50 more have been sent, or none does."""
    for number in range(first, last):
        uuid = f"task-{number}"
        yield {
            "type": "task-sent", "uuid": uuid, "name": "shop.pay", "root_id": uuid, "parent_id": None,
            "timestamp": number + 0.0, "retries": 0,
        }  # fmt: skip
        if is_ending and number >= first + 50:
            yield {"type": "task-succeeded", "uuid": f"task-{number - 50}", "timestamp": number + 0.5}


@pytest.mark.slow
def test_eighty_thousand_tasks_pass_through_a_table_of_two_thousand() -> None:
    tasks = TaskTable(max_tasks=2_000)

    def pass_through(first: int, last: int, *, is_ending: bool) -> None:
        for each in traffic_of(first, last, is_ending=is_ending):
            (out,) = tasks.join(each, 0.0)
            assert out["name"] == "shop.pay"
        # The ones with the last events are known, ended or not, and no more than the table holds.
        assert all(knows(tasks, f"task-{number}") for number in range(last - 1_800, last))
        assert not any(knows(tasks, f"task-{number}") for number in range(first, last - 2_200))
        assert tasks.statistics().known == 2_000

    pass_through(0, 50_000, is_ending=True)
    assert tasks.statistics().evicted_finished == 48_000
    assert tasks.statistics().evicted_unfinished == 0
    tracemalloc.start()
    try:
        pass_through(50_000, 52_400, is_ending=False)  # fills it with what is traced
        filled_bytes, _ = tracemalloc.get_traced_memory()
        pass_through(52_400, 54_800, is_ending=False)
        after_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after_bytes < 1.2 * filled_bytes
    assert filled_bytes < 2 * tasks.statistics().known_bytes, "the estimate is not far off"
    pass_through(54_800, 80_000, is_ending=False)
    statistics = tasks.statistics()
    assert statistics.evicted_finished + statistics.evicted_unfinished == 78_000
    assert statistics.known_bytes < 2_000 * 2_000


def test_the_bound_in_bytes_holds_for_huge_names() -> None:
    tasks = TaskTable(max_bytes=1_000_000)
    for number in range(1_000):
        join(tasks, sent(f"u{number}", f"{number}" + "n" * 20_000))
        assert tasks.statistics().known_bytes <= 1_000_000 + 30_000
    assert 20 <= tasks.statistics().known <= 60
    assert knows(tasks, "u999")
    assert tasks.statistics().evicted_unfinished == 1_000 - tasks.statistics().known


@pytest.mark.parametrize("field", ["name", "root_id", "parent_id"])
def test_the_bound_in_bytes_holds_when_tasks_that_are_known_become_bigger(field: str) -> None:
    tasks = TaskTable(max_bytes=1_000_000)
    join(tasks, *(sent(f"u{number}") for number in range(500)))
    for number in range(500):
        join(tasks, received(f"u{number}", **{field: f"{number}" + "n" * 20_000}))
        assert tasks.statistics().known_bytes <= 1_000_000 + 30_000


def test_the_bound_in_bytes_holds_for_huge_uuids() -> None:
    tasks = TaskTable(max_bytes=1_000_000)
    for number in range(500):
        join(tasks, sent(f"{number}" + "u" * 20_000, "n", root_id="r"))
        assert tasks.statistics().known_bytes <= 1_000_000 + 30_000


def test_a_task_bigger_than_the_whole_table_is_joined_and_evicted() -> None:
    tasks = TaskTable(max_tasks=10, max_bytes=1_000)
    (out,) = join(tasks, sent("u1", "n" * 10_000))
    assert len(out["name"]) == 10_000
    join(tasks, sent("u2"))
    assert not knows(tasks, "u1")
    assert tasks.statistics().known_bytes <= 1_000


def test_the_bytes_of_an_evicted_task_are_subtracted() -> None:
    tasks = TaskTable(max_tasks=1)
    for number in range(100):
        join(tasks, sent(f"u{number}", "n" * number), received(f"u{number}", "n" * (100 - number)))
    alone = TaskTable(max_tasks=1)
    join(alone, sent("u99", "n" * 99), received("u99", "n"))
    assert tasks.statistics().known_bytes == alone.statistics().known_bytes


def test_a_name_from_a_worker_is_given_to_later_events_and_the_workflow_stays_unknown() -> None:
    tasks = TaskTable()
    assert tasks.set_name("u1", "shop.pay", 0.0) == []
    (out,) = join(tasks, event("succeeded"))
    known = {"name": "shop.pay", "queue": None, "state": "SUCCESS", "attempt": 1}
    assert {field: out[field] for field in JOINED} == UNKNOWN | known
    assert tasks.statistics().unnamed_events == 0


def test_a_name_from_a_worker_releases_the_events_that_wait_for_it_in_order() -> None:
    tasks = TaskTable()
    assert join(tasks, event("started"), event("progress"), event("started", "u2")) == []
    freed = tasks.set_name("u1", "shop.pay", 0.0)
    assert [(out["type"], out["name"]) for out in freed] == [
        ("task-started", "shop.pay"),
        ("task-progress", "shop.pay"),
    ]
    assert tasks.statistics().waiting_events == 1
    assert [out["uuid"] for out in tasks.release(JOIN_WAIT_SECONDS)] == ["u2"]


def test_names_from_events_replace_a_name_from_a_worker() -> None:
    tasks = TaskTable()
    join(tasks, sent("before", "from.sent"), event("started", "before"))
    assert tasks.set_name("before", "asked", 0.0) == []
    tasks.set_name("after", "asked", 0.0)
    (first, second) = join(tasks, event("started", "before"), received("after", "from.received", root_id="r"))
    assert first["name"] == "from.sent"
    (third,) = join(tasks, event("started", "after"))
    assert (second["name"], third["name"], third["root_id"]) == ("from.received", "from.received", "r")


def test_a_late_name_from_a_worker_is_given_to_later_events() -> None:
    tasks = TaskTable()
    join(tasks, event("started"))
    assert [out["name"] for out in tasks.release(JOIN_WAIT_SECONDS)] == [None]
    tasks.set_name("u1", "shop.pay", 0.0)
    (out,) = join(tasks, event("succeeded"))
    assert out["name"] == "shop.pay"


@pytest.mark.parametrize("bounds", [{"max_tasks": 5}, {"max_bytes": 8_500}])
def test_names_from_workers_add_no_tasks_to_a_full_table(bounds: dict[str, int]) -> None:
    tasks = TaskTable(**bounds)
    join(tasks, *(sent(f"u{number}") for number in range(5)))
    for number in range(100):
        tasks.set_name(f"asked{number}", "n" * 1_000, 0.0)
    assert all(knows(tasks, f"u{number}") for number in range(5))
    assert tasks.statistics().known_bytes <= 8_500
    assert tasks.statistics().evicted_unfinished == 0


def test_the_names_of_queues_are_bounded() -> None:
    tasks = TaskTable(max_tasks=10)
    for number in range(MAX_QUEUES + 5):
        sent = {"type": "task-sent", "uuid": f"t{number}", "name": "a", "queue": f"q{number}"}
        tasks.join(sent | {"hostname": "gen1@h", "timestamp": 1.0}, 0.0)
        assert f"q{number}" in tasks.queues()
        assert len(tasks.queues()) <= MAX_QUEUES
