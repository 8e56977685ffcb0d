"""Actions and queues with real brokers, real prefork workers, and a gateway as its users run it."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery
from kombu import Connection

from celery_gateway.broker.pidbox_client import broadcast
from celery_gateway.errors import WorkerControlError
from tests.support.celery_app import create_app
from tests.support.gateway_process import GatewayProcess
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQ, wait_for
from tests.support.rabbitmq_users import add_user, delete_user, set_permissions
from tests.support.redis_server import redis_server
from tests.support.stream_client import NdjsonStream
from tests.support.thorough import variants
from tests.support.worker import Worker

JSON = {"Content-Type": "application/json"}


class Cluster:
    """A broker, a worker of one process on the queue `media`, and a gateway that allows everything."""

    def __init__(self, kind: str, url: str, app: Celery, worker: Worker, gateway: GatewayProcess) -> None:
        self.kind, self.url, self.app, self.worker, self.gateway = kind, url, app, worker, gateway

    def send(self, name: str, *args: Any, **options: Any) -> str:
        return str(self.app.send_task(name, args, queue="media", **options).id)

    def post(self, path: str, body: object = None) -> httpx.Response:
        content = {"content": b""} if body is None else {"json": body}
        return httpx.post(f"{self.gateway.url}{path}", headers=JSON, timeout=30, **content)  # type: ignore[arg-type]

    def state(self, uid: str) -> str | None:
        response = httpx.get(f"{self.gateway.url}/tasks/{uid}")
        return str(response.json()["state"]) if response.status_code == 200 else None

    def queues(self) -> dict[str, Any]:
        page = httpx.get(f"{self.gateway.url}/queues").json()
        return {queue["name"]: queue for queue in page["queues"]}


@pytest.fixture(scope="module", params=variants(1, ["rabbitmq", "redis"]))
def cluster(request: pytest.FixtureRequest, rabbitmq: RabbitMQ, folder: Path) -> Iterator[Cluster]:
    if request.param == "redis":
        with redis_server(folder) as server, opened("redis", server.url, folder) as found:
            yield found
    else:
        with opened("rabbitmq", rabbitmq.add_vhost(f"tests-{uuid.uuid4().hex[:8]}"), folder) as found:
            yield found


class opened:
    """A cluster within a block."""

    def __init__(self, kind: str, url: str, folder: Path) -> None:
        results = folder / f"results-{kind}"
        results.mkdir()
        self._app = create_app(url, results)
        self._worker = Worker(
            url, folder, results=results, concurrency=1, options=["-Q", "media", "--prefetch-multiplier", "1"]
        )
        options = ["--allow", "revoke,terminate", "--control"]
        self._gateway = GatewayProcess(url, folder, options=options)
        self._cluster = Cluster(kind, url, self._app, self._worker, self._gateway)

    def __enter__(self) -> Cluster:
        self._gateway.start()
        self._worker.start()
        return self._cluster

    def __exit__(self, *error: object) -> None:
        self._gateway.stop()
        self._worker.kill()
        self._app.close()


def test_a_running_task_is_terminated_and_a_waiting_one_is_revoked(cluster: Cluster) -> None:
    running = cluster.send("canvas.forever")
    wait_for(lambda: cluster.state(running) == "STARTED", 30)
    waiting = [cluster.send("canvas.add", 1, number) for number in range(3)]
    wait_for(lambda: all(map(cluster.state, waiting)), 30)
    with NdjsonStream(cluster.gateway.url, {"uuid": ",".join((running, *waiting))}) as stream:
        response = cluster.post(f"/tasks/{waiting[0]}/revoke")
        assert (response.status_code, response.json()) == (202, {"revoked": [waiting[0]], "count": 1})
        # A plain revoke does not change a running task.
        assert cluster.post(f"/tasks/{running}/revoke", {}).status_code == 202
        assert cluster.state(running) == "STARTED"
        response = cluster.post(f"/tasks/{running}/revoke", {"terminate": True, "signal": "SIGKILL"})
        assert response.status_code == 202
        events = stream.until(
            lambda events: (
                {running, waiting[0]}
                <= {event["uuid"] for event in events if event["type"] == "task-revoked"}
                and {*waiting[1:]} <= {event["uuid"] for event in events if event["type"] == "task-succeeded"}
            ),
            60,
        )
    told = [event for event in events if event["type"] == "gateway-control"]
    assert [(each["uuid"], each["terminate"], each["signal"]) for each in told] == [
        (waiting[0], False, None),
        (running, False, None),
        (running, True, "SIGKILL"),
    ]
    revoked = {event["uuid"]: event for event in events if event["type"] == "task-revoked"}
    assert revoked[running]["terminated"] is True
    assert revoked[waiting[0]]["terminated"] is False
    assert cluster.post(f"/tasks/{running}/revoke").status_code == 409
    log = cluster.gateway.log.read_text()
    who = "anyone (no authentication) from '127.0.0.1'"
    assert f"action: revoke and terminate (SIGKILL) by {who}: tasks: '{running}'" in log


def test_the_queues_of_the_workers_are_read(cluster: Cluster) -> None:
    holding = cluster.send("canvas.forever")
    wait_for(lambda: cluster.state(holding) == "STARTED", 30)
    waiting = [cluster.send("canvas.add", 1, 1) for _ in range(4)]
    # One more is prefetched: the broker has it as unacknowledged.
    wait_for(lambda: (cluster.queues().get("media") or {}).get("depth") == 3, 30)
    media = cluster.queues()["media"]
    assert media["consumers"] == (1 if cluster.kind == "rabbitmq" else None)
    assert media["error"] is None
    assert cluster.post(f"/tasks/{holding}/revoke", {"terminate": True}).status_code == 202
    wait_for(lambda: all(cluster.state(uid) == "SUCCESS" for uid in waiting), 30)
    wait_for(lambda: cluster.queues()["media"]["depth"] == 0, 30)


def test_without_events_the_workers_name_their_queues(cluster: Cluster, folder: Path) -> None:
    """A gateway that has seen no task has the names from the workers."""
    other = GatewayProcess(cluster.url, folder, options=["--control"])
    without = GatewayProcess(cluster.url, folder)
    other.start()
    without.start()
    try:
        page = httpx.get(f"{other.url}/queues", timeout=30).json()
        assert [queue["name"] for queue in page["queues"]] == ["media"]
        assert httpx.get(f"{without.url}/queues", timeout=30).json()["queues"] == []
        refused = httpx.post(f"{without.url}/tasks/x/revoke", headers=JSON)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "actions-off")
    finally:
        other.stop()
        without.stop()


def test_a_command_that_the_broker_does_not_confirm_is_an_error(broker: str) -> None:
    port = int(broker.rpartition(":")[2].partition("/")[0])
    with Proxy(port) as proxy, Connection(broker) as connection:
        url = proxy.url(broker)
        broadcast(url, "revoke", {"task_id": ["a"]})
        assert connection.connect()
        proxy.refuse()
        with pytest.raises(WorkerControlError):
            broadcast(url, "revoke", {"task_id": ["a"]})


def test_the_documented_permissions_are_enough(broker: str, rabbitmq: RabbitMQ, folder: Path) -> None:
    name, vhost = f"user-{uuid.uuid4().hex[:8]}", broker.rpartition("/")[2]
    own = r"^celery(\-gateway\..*|\.pidbox)$"
    add_user(rabbitmq, name, "secret")
    try:
        url = f"amqp://{name}:secret@{broker.rpartition('@')[2]}"
        set_permissions(rabbitmq, vhost, name, r"^celery\-gateway\..*", r"^celery\-gateway\..*", ".*")
        with pytest.raises(WorkerControlError):
            broadcast(url, "revoke", {"task_id": ["a"]})
        set_permissions(rabbitmq, vhost, name, own, own, r"^(celery\-gateway\..*|celeryev)$")
        broadcast(url, "revoke", {"task_id": ["a"]})
    finally:
        delete_user(rabbitmq, name)
    with redis_server(folder) as server:
        with server.client() as client:
            client.execute_command(
                *("ACL", "SETUSER", "gateway", "on", ">secret", "resetchannels", "&/0.celeryev/*"),
                *("+ping", "+select", "+psubscribe", "+punsubscribe"),
            )
            url = server.url.replace("redis://", "redis://gateway:secret@")
            with pytest.raises(WorkerControlError):
                broadcast(url, "revoke", {"task_id": ["a"]})
            client.execute_command("ACL", "SETUSER", "gateway", "+publish", "&/0.celery.pidbox")
        broadcast(url, "revoke", {"task_id": ["a"]})
