"""Regressions: published events from which a wrong state was derived once, and the right state."""

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gateway_process import GatewayProcess
from tests.support.proxy import Proxy
from tests.support.publisher import Publisher
from tests.support.rabbitmq import RabbitMQ, wait_for
from tests.support.stream_client import NdjsonStream
from tests.support.transports import messages

Event = dict[str, Any]
SILENT_SECONDS = 15.0
"""After this time without an event a worker is silent."""
OPTIONS = ["--lost-grace", "0.5", "--wait-known", "1.5"]
CALL = {"args": "()", "kwargs": "{}", "eta": None, "expires": None}


@pytest.fixture(scope="module")
def gateway(broker: str, folder: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(broker, folder, options=OPTIONS)
    try:
        process.start()
        yield process
    finally:
        process.stop()


@pytest.fixture
def uid() -> str:
    return str(uuid.uuid4())


class Worker:
    """Makes the events of one process of a worker, on its own clock."""

    def __init__(self, hostname: str | None = None, pid: int | None = None, offset: float = 0.0) -> None:
        self.hostname = hostname or f"celery@{uuid.uuid4().hex[:8]}"
        self.pid = pid
        self.now = time.time() + offset

    def event(self, type: str, at: float = 0.0, **fields: Any) -> Event:
        pid = {} if self.pid is None else {"pid": self.pid}
        common = {"hostname": self.hostname, "utcoffset": 0, "clock": 1, **pid}
        return {"type": type, "timestamp": self.now + at, **common, **fields}

    def task(self, uid: Any, type: str, at: float = 0.0, **fields: Any) -> Event:
        about: dict[str, Any] = {}
        if type in ("sent", "received"):
            about = {"name": "shop.pay", "root_id": uid, "parent_id": None, "retries": 0, **CALL}
        if type == "sent":
            about |= {"queue": "celery", "exchange": "", "routing_key": "celery"}
        if type == "succeeded":
            about = {"result": "'ok'", "runtime": 0.1}
        if type in ("failed", "retried"):
            about = {"exception": "E()", "traceback": "Traceback"}
        return self.event(f"task-{type}", at, uuid=uid, **about, **fields)

    def sign(self, type: str, at: float = 0.0, *, active: int = 0, processed: int = 0) -> Event:
        return self.event(f"worker-{type}", at, freq=2.0, active=active, processed=processed)


def client(at: float = 0.0) -> Worker:
    return Worker("gen7@web", 7, at)


class Sender:
    """Publishes events, and waits until the gateway has put the last one into its stream."""

    def __init__(self, publisher: Publisher, gateway: GatewayProcess) -> None:
        self._publisher = publisher
        self._gateway = gateway

    def __call__(self, *events: Event) -> None:
        marker = {"type": f"marker-{uuid.uuid4().hex}", "timestamp": time.time()}
        with NdjsonStream(self._gateway.url, {"type": marker["type"]}) as stream:
            self._publisher.send(*events, marker)
            stream.until(bool)


@pytest.fixture
def send(publisher: Publisher, gateway: GatewayProcess) -> Sender:
    return Sender(publisher, gateway)


Ask = Callable[..., Event]


@pytest.fixture
def ask(gateway: GatewayProcess) -> Ask:
    def get(path: str, **query: str) -> Event:
        answer = httpx.get(f"{gateway.url}{path}", params=query)
        return answer.json() | {"status_code": answer.status_code}

    return get


def worker_of(ask: Ask, hostname: str) -> Event:
    (found,) = [each for each in ask("/workers")["workers"] if each["hostname"] == hostname]
    return found


# ------------------------------------------------------------------------ clocks of two hosts


@pytest.mark.parametrize("offset", [-7200.0, -0.7, -0.03, 0.0, 0.03, 7200.0])
def test_an_attempt_on_a_host_whose_clock_is_off_takes_over(
    send: Sender, ask: Ask, uid: str, offset: float
) -> None:
    a, b = Worker(), Worker(offset=offset)
    send(
        a.task(uid, "received"),
        a.task(uid, "started", 0.01),
        b.task(uid, "received"),
        b.task(uid, "started", 0.01),
        b.task(uid, "succeeded", 0.5),
    )
    task = ask(f"/tasks/{uid}")
    assert (task["state"], task["attempt"], task["worker"]) == ("SUCCESS", 2, b.hostname)
    assert (task["result"], task["stale"]) == ("'ok'", False)
    assert [(each["worker"], each["state"]) for each in task["attempts"]] == [
        (a.hostname, "STARTED"),
        (b.hostname, "SUCCESS"),
    ]


@pytest.mark.parametrize("offset", [-7200.0, -0.1, 7200.0])
def test_a_task_that_replaced_itself_is_ended_by_a_host_whose_clock_is_off(
    send: Sender, ask: Ask, uid: str, offset: float
) -> None:
    a, b = Worker(), Worker(offset=offset)
    again = client().task(uid, "sent", 0.02) | {"name": "shop.other"}
    received = b.task(uid, "received") | {"name": "shop.other"}
    for late in (False, True):
        own = f"{uid}-{late}"
        first = [client().task(own, "sent"), a.task(own, "received"), a.task(own, "started", 0.01)]
        second = [again | {"uuid": own}, received | {"uuid": own}]
        rest = [b.task(own, "started", 0.1), b.task(own, "succeeded", 0.2)]
        send(*first, *(reversed(second) if late else second), *rest)
        task = ask(f"/tasks/{own}")
        assert (task["state"], task["name"], task["worker"]) == ("SUCCESS", "shop.other", b.hostname)


# -------------------------------------------------------------------------------- an id again


def test_a_task_that_is_sent_again_is_pending_and_waited_for(
    send: Sender, ask: Ask, gateway: GatewayProcess, uid: str
) -> None:
    w = Worker()
    run = [w.task(uid, "received", 1), w.task(uid, "started", 1.5), w.task(uid, "succeeded", 2)]
    send(client().task(uid, "sent"), *run)
    with NdjsonStream(gateway.url, {"uuid": uid}) as stream:
        send(client().task(uid, "sent", 60))
        assert stream.until(bool)[0]["state"] == "PENDING"
    task = ask(f"/tasks/{uid}")
    assert (task["state"], task["result"], task["worker"], task["attempt"]) == ("PENDING", None, None, 0)
    assert task["sent"] - client().now > 50
    waiting = messages(gateway, "ndjson", until="ready", uuid=uid)
    assert next(waiting)["type"] == "gateway-open"
    send(w.task(uid, "received", 61), w.task(uid, "started", 62), w.task(uid, "failed", 63))
    assert [each["state"] for each in [next(waiting), next(waiting), next(waiting)]] == [
        "RECEIVED",
        "STARTED",
        "FAILURE",
    ]
    assert next(waiting)["reason"] == "ready"


@pytest.mark.parametrize("is_sent", [True, False])
@pytest.mark.parametrize(("first", "second"), [("failed", "succeeded"), ("succeeded", "failed")])
def test_a_second_run_has_nothing_of_the_first(
    send: Sender, ask: Ask, uid: str, first: str, second: str, is_sent: bool
) -> None:
    w = Worker()
    for at, end in ((0.0, first), (60.0, second)):
        sent = [client().task(uid, "sent", at)] if is_sent else []
        send(*sent, w.task(uid, "received", at + 1), w.task(uid, "started", at + 2), w.task(uid, end, at + 3))
    task = ask(f"/tasks/{uid}")
    has_failed = second == "failed"
    assert task["state"] == ("FAILURE" if has_failed else "SUCCESS")
    assert (task["exception"], task["traceback"]) == (("E()", "Traceback") if has_failed else (None, None))
    assert task["result"] == (None if has_failed else "'ok'")
    assert (task["failed"] is not None, task["succeeded"] is not None) == (has_failed, not has_failed)
    assert (task["attempt"], len(task["attempts"])) == (1, 1)


@pytest.mark.parametrize("at", [-7200.0, 60.0, 7200.0])
def test_a_late_task_sent_does_not_reopen_a_task(send: Sender, ask: Ask, uid: str, at: float) -> None:
    w = Worker()
    send(w.task(uid, "received"), w.task(uid, "started", 0.1), w.task(uid, "succeeded", 0.2))
    send(client().task(uid, "sent", at))
    task = ask(f"/tasks/{uid}")
    assert (task["state"], task["attempt"], task["queue"]) == ("SUCCESS", 1, "celery")


# ------------------------------------------------------------------------------ lives of workers


def test_a_process_that_came_up_again_with_its_pid_has_lost_its_task(
    send: Sender, ask: Ask, gateway: GatewayProcess, uid: str
) -> None:
    w = Worker(pid=1)
    with NdjsonStream(gateway.url, {"type": "task-lost", "name": "shop.*"}) as stream:
        send(w.sign("online"), w.task(uid, "received", 1), w.task(uid, "started", 2))
        waiting = messages(gateway, "ndjson", until="ready", uuid=uid)
        assert next(waiting)["type"] == "gateway-open"
        send(w.sign("online", 20), w.sign("heartbeat", 22))
        lost = stream.until(bool)[0]
    about = {"uuid": uid, "name": "shop.pay", "root_id": uid, "state": "LOST", "hostname": w.hostname}
    assert about.items() <= lost.items()
    assert (lost["source"], lost["pid"], lost["queue"]) == ("gateway", 1, None)
    assert "restarted" in lost["reason"]
    task = ask(f"/tasks/{uid}")
    assert (task["state"], task["stale"], task["lost"]) == ("LOST", True, lost["timestamp"])
    assert next(waiting)["type"] == "task-lost"
    assert next(waiting).items() >= {"type": "gateway-close", "reason": "lost", "known": 1}.items()
    other = Worker()
    send(other.task(uid, "received"), other.task(uid, "started", 0.1), other.task(uid, "succeeded", 0.2))
    task = ask(f"/tasks/{uid}")
    assert (task["state"], task["stale"], task["attempt"]) == ("SUCCESS", False, 2)


def test_a_worker_that_only_lost_its_broker_loses_no_task(send: Sender, ask: Ask, uid: str) -> None:
    w = Worker(pid=1)
    send(w.sign("online"), w.task(uid, "received", 1), w.task(uid, "started", 2))
    send(w.sign("offline", 5, active=1, processed=1))
    assert worker_of(ask, w.hostname)["status"] == "stopping"
    send(w.sign("online", 6, active=1, processed=1), w.sign("heartbeat", 8, active=1, processed=1))
    assert ask(f"/tasks/{uid}")["state"] == "STARTED"
    assert (worker_of(ask, w.hostname)["status"], worker_of(ask, w.hostname)["alive"]) == ("online", True)


def test_a_worker_whose_clock_was_ahead_and_is_set_right_is_alive(send: Sender, ask: Ask, uid: str) -> None:
    w = Worker(pid=10)
    send(w.sign("online", 3600, processed=4))
    again = Worker(w.hostname, pid=11)
    send(again.sign("online", 20), again.task(uid, "received", 21), again.task(uid, "started", 22))
    send(again.sign("heartbeat", 24, active=1, processed=1))
    worker = worker_of(ask, w.hostname)
    assert (worker["alive"], worker["status"], worker["pid"]) == (True, "online", 11)
    assert (worker["active"], worker["processed"]) == (1, 1)
    send(again.sign("heartbeat", -3600, active=0, processed=2))
    assert (worker_of(ask, w.hostname)["active"], worker_of(ask, w.hostname)["processed"]) == (0, 2)
    assert ask(f"/tasks/{uid}")["state"] == "STARTED"


def test_a_worker_that_stops_finishes_its_task_first(
    send: Sender, ask: Ask, gateway: GatewayProcess, uid: str
) -> None:
    w = Worker(pid=1)
    with NdjsonStream(gateway.url, {"uuid": uid}) as stream:
        send(w.sign("online"), w.task(uid, "received", 1), w.task(uid, "started", 2))
        send(w.sign("offline", 3, active=1, processed=1))
        assert worker_of(ask, w.hostname)["status"] == "stopping"
        time.sleep(SILENT_SECONDS + 2)  # nothing may happen
        assert worker_of(ask, w.hostname)["status"] == "stopping"
        send(w.task(uid, "succeeded", 27))
        assert [each["state"] for each in stream.until(lambda seen: len(seen) == 3)] == [
            "RECEIVED",
            "STARTED",
            "SUCCESS",
        ]
    assert worker_of(ask, w.hostname)["status"] == "offline"


def test_a_silent_worker_is_not_dead_until_another_takes_its_name(send: Sender, ask: Ask, uid: str) -> None:
    w = Worker(pid=1)
    send(w.sign("online"), w.task(uid, "received", 1), w.task(uid, "started", 2))
    assert wait_for(lambda: worker_of(ask, w.hostname)["status"] == "silent", SILENT_SECONDS + 5)
    worker = worker_of(ask, w.hostname)
    assert not worker["alive"]
    assert time.time() - worker["since"] > SILENT_SECONDS - 2
    assert ask(f"/tasks/{uid}")["state"] == "STARTED"
    send(Worker(w.hostname, pid=2).sign("online"))
    assert wait_for(lambda: ask(f"/tasks/{uid}")["state"] == "LOST", 5)


def test_workers_are_unknown_while_the_gateway_is_disconnected(
    rabbitmq: RabbitMQ, folder: Path, uid: str
) -> None:
    url = rabbitmq.add_vhost(f"away-{uid}")
    publisher, w = Publisher(url), Worker(pid=1)
    with Proxy(rabbitmq.port) as proxy:
        gateway = GatewayProcess(proxy.url(url), folder, options=OPTIONS)
        try:
            gateway.start()
            get = lambda path: httpx.get(f"{gateway.url}{path}").json()  # noqa: E731
            send = Sender(publisher, gateway)
            send(w.sign("online"), w.task(uid, "received", 1), w.task(uid, "started", 2))
            with NdjsonStream(gateway.url) as stream:
                proxy.refuse()
                assert stream.statuses.until(lambda seen: not seen[-1]["sources"][0]["consuming"], 10)
                time.sleep(SILENT_SECONDS + 3)  # longer than a worker may be silent
                (worker,) = get("/workers")["workers"]
                assert (worker["status"], worker["alive"]) == ("unknown", True)
                assert "celery_gateway_workers_alive 1.0" in httpx.get(f"{gateway.url}/metrics").text
                assert get(f"/tasks/{uid}")["state"] == "STARTED"
                proxy.resume()
                stream.statuses.until(lambda seen: seen[-1]["sources"][0]["consuming"], 30)
                assert [each["reason"] for each in stream.until(bool)] == ["broker"]
            assert get("/workers")["workers"][0]["status"] == "online"
            assert get(f"/tasks/{uid}")["state"] == "STARTED"
        finally:
            gateway.stop()
            publisher.close()


# ------------------------------------------------------------------------------------ workflows


def test_a_workflow_is_not_ready_at_once_where_its_next_task_may_wait_unseen(
    send: Sender, ask: Ask, gateway: GatewayProcess, uid: str
) -> None:
    w = Worker()
    waiting = messages(gateway, "ndjson", until="ready", root_id=uid)
    brief = messages(gateway, "ndjson", until="ready", root_id=uid, quiet_time="1")
    assert next(waiting)["type"] == next(brief)["type"] == "gateway-open"
    send(w.task(uid, "received"), w.task(uid, "started", 0.1), w.task(uid, "succeeded", 0.2))
    assert [next(brief)["type"] for _ in range(3)][-1] == "task-succeeded"
    close = next(brief)
    assert {"reason": "ready", "known": 1, "ready": 1, "sent_events": False}.items() <= close.items()
    assert ask(f"/workflows/{uid}").items() >= {"known": 1, "ready": 1, "sent_events": False}.items()
    began = time.monotonic()
    next_one = f"{uid}-2"
    time.sleep(2.5)  # a chain whose next task waits in a queue
    send(w.task(next_one, "received", 9) | {"root_id": uid}, w.task(next_one, "started", 10))
    got = [next(waiting)["uuid"] for _ in range(5)]
    assert got == [uid] * 3 + [next_one] * 2
    assert time.monotonic() - began > 2


def test_an_id_that_is_no_root_is_answered_with_the_root_it_has(
    send: Sender, ask: Ask, gateway: GatewayProcess, uid: str
) -> None:
    w, last = Worker(), f"{uid}-last"
    early = messages(gateway, "ndjson", until="ready", root_id=last)
    next(early)
    send(w.task(uid, "received"), w.task(last, "received") | {"root_id": uid, "parent_id": uid})
    for stream in (early, messages(gateway, "ndjson", until="ready", root_id=last)):
        close = [each for each in stream][-1]
        assert (close["type"], close["reason"], close["root_id"]) == ("gateway-close", "unknown", uid)
        assert close["message"] == f"the task '{last}' belongs to the root '{uid}'"
    refused = ask(f"/workflows/{last}")
    assert (refused["status_code"], refused["error"]["root_id"]) == (404, uid)
    assert refused["error"]["message"] == f"workflow '{last}' is unknown: {close['message']}"


@pytest.mark.parametrize("field", ["uuid", "root_id"])
def test_an_unknown_id_is_waited_for(gateway: GatewayProcess, uid: str, field: str) -> None:
    (opened, close) = list(messages(gateway, "ndjson", {field: uid}, until="ready"))
    assert opened["type"] == "gateway-open"
    assert (close["reason"], uid in close["message"]) == ("unknown", True)
    asked = httpx.get(
        f"{gateway.url}/events", params={field: uid, "until": "ready"}, headers={"Last-Event-ID": close["id"]}
    )
    assert asked.status_code == 204


# -------------------------------------------------------------------------------------- identity


@pytest.mark.parametrize(("id", "text"), [(12345, "12345"), (3.5, "3.5"), (True, "true"), (["a"], '["a"]')])
def test_ids_that_are_no_text_are_joined_and_found_by_their_text(
    send: Sender, ask: Ask, gateway: GatewayProcess, id: Any, text: str
) -> None:
    w, child = Worker(), str(uuid.uuid4())
    with NdjsonStream(gateway.url, {"uuid": text.replace(",", r"\,")}) as stream:
        send(w.task(id, "received"), w.task(id, "started", 0.1), w.task(id, "succeeded", 0.2))
        got = stream.until(lambda seen: len(seen) == 3)
    assert {(each["name"], str(each["uuid"])) for each in got} == {("shop.pay", str(id))}
    assert ask(f"/tasks/{text}")["state"] == "SUCCESS"
    send(w.task(child, "received") | {"root_id": id, "parent_id": id}, w.task(child, "started", 0.1))
    assert ask(f"/tasks/{child}")["root_id"] == text
    tree = ask(f"/workflows/{text}")
    assert (tree["total"], [each["uuid"] for each in tree["tasks"][0]["children"]]) == (2, [child])


@pytest.mark.parametrize("suffix", [",us", ":*", ":?", "\\x", "\\,"])
@pytest.mark.parametrize("prefix", ["", "!"])
def test_an_id_with_the_characters_of_patterns_is_asked_for_with_backslashes(
    send: Sender, gateway: GatewayProcess, uid: str, prefix: str, suffix: str
) -> None:
    w, id = Worker(), f"{prefix}{uid}{suffix}"
    escaped = "".join(f"\\{character}" if character in "\\,*?!" else character for character in id)
    others = [uid, f"{uid}:x", f"{prefix}{uid}", "us"]
    sent = [w.task(each, "received") for each in (*others, id)]
    with NdjsonStream(gateway.url, {"uuid": escaped}) as stream:
        waiting = messages(gateway, "ndjson", until="ready", uuid=escaped)
        next(waiting)
        send(*sent, w.task(id, "succeeded", 1))
        assert [each["uuid"] for each in stream.until(lambda seen: len(seen) == 2)] == [id, id]
        assert [each.get("uuid") for each in waiting] == [id, id, None]


def test_one_id_on_two_brokers_is_two_tasks(rabbitmq: RabbitMQ, folder: Path, uid: str) -> None:
    urls = {name: rabbitmq.add_vhost(f"{name}-{uid}") for name in ("eu", "us")}
    gateway = GatewayProcess(f"eu={urls['eu']}", folder, options=["--broker", f"us={urls['us']}"])
    publishers = {name: Publisher(url) for name, url in urls.items()}
    try:
        gateway.start()
        ready = lambda: httpx.get(f"{gateway.url}/readyz").json()["clusters"].values()  # noqa: E731
        assert wait_for(lambda: all(each["is_consuming"] for each in ready()), 20)
        w = Worker()
        with NdjsonStream(gateway.url, {"uuid": uid}) as stream:
            run = [w.task(uid, "received"), w.task(uid, "started", 0.1), w.task(uid, "succeeded", 0.2)]
            publishers["eu"].send(client().task(uid, "sent"), *run)
            stream.until(lambda seen: len(seen) == 4)
            waiting = messages(gateway, "ndjson", until="ready", uuid=uid, cluster="us")
            next(waiting)
            publishers["us"].send(client().task(uid, "sent", 5))
            assert stream.until(lambda seen: len(seen) == 5)[-1]["state"] == "PENDING"
        both = httpx.get(f"{gateway.url}/tasks", params={"uuid": uid}).json()["tasks"]
        assert {each["cluster"]: each["state"] for each in both} == {"eu": "SUCCESS", "us": "PENDING"}
        one = httpx.get(f"{gateway.url}/tasks/{uid}", params={"cluster": "us"}).json()
        assert (one["state"], one["result"]) == ("PENDING", None)
        for path in (f"/tasks/{uid}", f"/workflows/{uid}"):
            refused = httpx.get(f"{gateway.url}{path}")
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "ambiguous")
            assert refused.json()["error"]["allowed"] == ["eu", "us"]
        tree = httpx.get(f"{gateway.url}/workflows/{uid}", params={"cluster": "eu"}).json()
        assert (tree["total"], tree["ready"]) == (1, 1)
        assert next(waiting)["state"] == "PENDING"
        publishers["us"].send(Worker().task(uid, "revoked", terminated=False, signum=None, expired=False))
        assert [each["type"] for each in waiting] == ["task-revoked", "gateway-close"]
    finally:
        gateway.stop()
        for publisher in publishers.values():
            publisher.close()


def test_a_task_without_a_root_is_its_own(send: Sender, ask: Ask, gateway: GatewayProcess, uid: str) -> None:
    w = Worker()
    received = w.task(uid, "received")
    del received["root_id"], received["parent_id"]
    waiting = messages(gateway, "ndjson", until="ready", root_id=uid, quiet_time="0")
    next(waiting)
    send(received, w.task(uid, "started", 0.1), w.task(uid, "succeeded", 0.2))
    assert ask(f"/workflows/{uid}")["total"] == 1
    assert [each["type"] for each in waiting][-1] == "gateway-close"


# ---------------------------------------------------------------------- after our own absence, lists


def test_a_task_that_only_sends_progress_is_known(send: Sender, ask: Ask, gateway: GatewayProcess) -> None:
    w, uid = Worker(), str(uuid.uuid4())
    progress = {"name": "shop.pay", "root_id": uid, "parent_id": None, "current": 1, "total": 4}
    send(w.task(uid, "progress", **progress))
    task = ask(f"/tasks/{uid}")
    assert (task["name"], task["state"], task["progress"]) == ("shop.pay", "PROGRESS", 0.25)
    assert ask(f"/workflows/{uid}")["total"] == 1
    snapshot = [each for each in (next(s) for s in [messages(gateway, "ndjson", snapshot="1", uuid=uid)] * 2)]
    assert [each["uuid"] for each in snapshot[1]["tasks"]] == [uid]
    send(w.task(uid, "succeeded", 1))
    assert (ask(f"/tasks/{uid}")["state"], ask(f"/tasks/{uid}")["progress"]) == ("SUCCESS", 1.0)


def test_the_queue_is_on_every_event_of_a_task(send: Sender, ask: Ask, gateway: GatewayProcess) -> None:
    w, ids = Worker(), {"high": str(uuid.uuid4()), "low": str(uuid.uuid4())}
    with (
        NdjsonStream(gateway.url, {"queue": "high", "type": "task-failed"}) as failed,
        NdjsonStream(gateway.url, {"queue": "!high", "uuid": f"{ids['high']},{ids['low']}"}) as not_high,
    ):
        for queue, uid in ids.items():
            sent = client().task(uid, "sent") | {"queue": queue}
            send(sent, w.task(uid, "received"), w.task(uid, "started", 0.1), w.task(uid, "failed", 0.2))
        assert [each["uuid"] for each in failed.until(bool)] == [ids["high"]]
        got = not_high.until(lambda seen: len(seen) == 4)
        assert {(each["uuid"], each["queue"]) for each in got} == {(ids["low"], "low")}
    listed = ask("/tasks", queue="high", uuid=",".join(ids.values()))["tasks"]
    assert [each["uuid"] for each in listed] == [ids["high"]]


def test_clients_and_an_applications_own_worker_events_add_no_worker(
    send: Sender, ask: Ask, uid: str
) -> None:
    quiet, odd = Worker(), Worker(f"gen1@{uid}")
    send(quiet.task(uid, "received"), quiet.task(uid, "started", 0.1))
    send(odd.sign("online"), odd.task(f"{uid}-2", "received"))
    app = Worker(f"app@{uid}")
    send(app.event("worker-deployed"), client().task(f"{uid}-3", "sent"))
    workers = {each["hostname"]: each for each in ask("/workers")["workers"]}
    assert (workers[quiet.hostname]["heartbeats"], workers[quiet.hostname]["alive"]) == (False, True)
    assert workers[odd.hostname]["heartbeats"]
    assert app.hostname not in workers
    assert client().hostname not in workers


# ------------------------------------------------------------------------------------------ graphs


def test_workflows_with_circles_of_parents_and_deep_chains_are_returned(
    send: Sender, ask: Ask, uid: str
) -> None:
    w = Worker()
    ring = [f"{uid}-{number}" for number in range(3)]
    parents = dict(zip(ring, [*ring[1:], ring[0]], strict=True))
    send(*(w.task(each, "received") | {"root_id": uid, "parent_id": parents[each]} for each in ring))
    tree = ask(f"/workflows/{uid}")
    assert tree["total"] == 3
    root = f"{uid}-root"
    chain = [root] + [f"{root}-{number}" for number in range(10_000)]
    events = [
        w.task(each, "received") | {"root_id": root, "parent_id": before}
        for before, each in zip([None, *chain], chain, strict=False)
    ]
    for start in range(0, len(events), 500):
        send(events[start : start + 500])  # type: ignore[arg-type]
    assert ask(f"/workflows/{root}", fields="uuid")["total"] == len(chain)
