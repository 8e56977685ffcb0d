"""Several brokers in one gateway: events have their cluster, and one failing broker stops no other."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher, received, task_event, walk
from tests.support.rabbitmq import RabbitMQ, wait_for
from tests.support.stream_client import NdjsonStream


@pytest.fixture(scope="module")
def urls(rabbitmq: RabbitMQ) -> dict[str, str]:
    return {name: rabbitmq.add_vhost(f"{name}-{uuid.uuid4().hex[:8]}") for name in ("eu", "us")}


@pytest.fixture(scope="module")
def gateway(urls: dict[str, str], folder: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(f"eu={urls['eu']}", folder, options=["--broker", f"us={urls['us']}"])
    try:
        process.start()
        assert wait_for(lambda: all(clusters(process).values()), 20)
        yield process
    finally:
        process.stop()


def clusters(gateway: GatewayProcess) -> dict[str, bool]:
    """Which brokers are consumed."""
    body = httpx.get(f"{gateway.url}/readyz").json()
    return {name: status["is_consuming"] for name, status in body["clusters"].items()}


def consuming(client: NdjsonStream) -> dict[str, bool]:
    """Which brokers are consumed, by the last status of the stream."""
    sources = client.statuses.until(bool)[-1]["sources"]
    return {source["cluster"]: source["consuming"] for source in sources}


def worker_status(gateway: GatewayProcess, hostname: str) -> dict[str, str]:
    """The status of a worker, by cluster."""
    answer = httpx.get(f"{gateway.url}/workers", params={"hostname": hostname})
    return {worker["cluster"]: worker["status"] for worker in answer.json()["workers"]}


def publish(url: str, *events: dict[str, object]) -> None:
    publisher = Publisher(url)
    try:
        publisher.send(list(events))
    finally:
        publisher.close()


def test_events_carry_their_cluster_and_can_be_filtered_by_it(
    gateway: GatewayProcess, urls: dict[str, str]
) -> None:
    with (
        NdjsonStream(gateway.url) as all_of_them,
        NdjsonStream(gateway.url, {"cluster": "us"}) as american,
        NdjsonStream(gateway.url, {"cluster": "!us", "type": "task-received"}) as not_american,
    ):
        for name in ("eu", "us"):
            publish(urls[name], *walk(f"of.{name}"))
        got = all_of_them.until(lambda seen: len(seen) == 6)
        assert {(event["name"], event["cluster"]) for event in got} == {("of.eu", "eu"), ("of.us", "us")}
        got = american.until(lambda seen: len(seen) == 3)
        assert {event["cluster"] for event in got} == {"us"}
        got = not_american.until(bool)
        assert [event["cluster"] for event in got] == ["eu"]


def test_one_uuid_at_two_brokers_is_two_tasks(gateway: GatewayProcess, urls: dict[str, str]) -> None:
    uid = str(uuid.uuid4())
    with (
        NdjsonStream(gateway.url, {"uuid": uid}) as both,
        NdjsonStream(gateway.url, {"uuid": uid, "cluster": "us", "until": "ready"}) as american,
    ):
        publish(urls["eu"], *walk("of.eu", uid=uid))
        both.until(lambda seen: len(seen) == 3)
        publish(urls["us"], received(uid, "of.us"))
        assert both.until(lambda seen: len(seen) == 4)[-1]["state"] == "RECEIVED"
        states = {
            name: httpx.get(f"{gateway.url}/tasks/{uid}", params={"cluster": name}).json()["state"]
            for name in urls
        }
        assert states == {"eu": "SUCCESS", "us": "RECEIVED"}
        assert httpx.get(f"{gateway.url}/tasks/{uid}").status_code == 409
        publish(urls["us"], task_event("task-failed", uid))
        *events, close = american.until(lambda seen: seen[-1:] and seen[-1]["type"] == "gateway-close")
        assert [(event["name"], event["state"]) for event in events] == [
            ("of.us", "RECEIVED"),
            ("of.us", "FAILURE"),
        ]
        assert (close["reason"], close["known"]) == ("ready", 1)
    page = httpx.get(f"{gateway.url}/tasks", params={"uuid": uid}).json()
    assert {task["cluster"]: task["state"] for task in page["tasks"]} == {"eu": "SUCCESS", "us": "FAILURE"}


def test_a_field_named_cluster_is_moved_to_fields(gateway: GatewayProcess, urls: dict[str, str]) -> None:
    with NdjsonStream(gateway.url, {"type": "deploy-done"}) as client:
        publish(urls["eu"], {"type": "deploy-done", "cluster": "k8s-7", "id": 5})
        (event,) = client.until(bool)
        assert event["cluster"] == "eu"
        assert event["fields"] == {"cluster": "k8s-7", "id": 5}


def test_metrics_are_labelled_by_broker(gateway: GatewayProcess) -> None:
    text = httpx.get(f"{gateway.url}/metrics").text
    for name in ("eu", "us"):
        assert f'celery_gateway_source_consuming{{cluster="{name}"}} 1.0' in text


def test_a_failing_broker_is_reported_and_the_other_is_consumed(
    rabbitmq: RabbitMQ, gateway: GatewayProcess, urls: dict[str, str]
) -> None:
    vhost = urls["eu"].rpartition("/")[2]
    alive = {"type": "worker-heartbeat", "hostname": "w9@host", "pid": 1, "clock": 1, "timestamp": 1.0}
    for url in urls.values():
        publish(url, alive)
    assert wait_for(lambda: worker_status(gateway, "w9@host") == {"eu": "online", "us": "online"}, 10)
    with NdjsonStream(gateway.url, {"type": "!worker-*"}) as client:
        assert consuming(client) == {"eu": True, "us": True}
        began = time.time()
        rabbitmq.ctl("delete_vhost", vhost)
        client.statuses.until(lambda _: consuming(client) == {"eu": False, "us": True}, 20)
        assert wait_for(lambda: clusters(gateway) == {"eu": False, "us": True}, 20)
        answer = httpx.get(f"{gateway.url}/readyz")
        assert answer.status_code == 200
        client.statuses.until(lambda seen: vhost in seen[-1]["sources"][0]["reason"], 20)
        assert vhost in answer.json()["clusters"]["eu"]["reason"]
        since = {source["cluster"]: source["since"] for source in client.statuses.events[-1]["sources"]}
        assert since["us"] < began <= since["eu"] <= time.time()
        assert worker_status(gateway, "w9@host") == {"eu": "unknown", "us": "online"}
        publish(urls["us"], *walk("meanwhile"))
        assert client.until(lambda seen: len(seen) == 3)[0]["cluster"] == "us"
        rabbitmq.add_vhost(vhost)
        assert wait_for(lambda: all(clusters(gateway).values()), 40)
        client.statuses.until(lambda _: consuming(client) == {"eu": True, "us": True}, 20)
        assert worker_status(gateway, "w9@host")["eu"] == "online", (
            "the time without a connection is not counted"
        )
        publish(urls["eu"], *walk("again"))
        got = client.until(lambda seen: seen[-1].get("name") == "again")
        gaps = [event for event in got if event["type"] == "gateway-gap"]
        assert [(gap["reason"], gap["cluster"]) for gap in gaps] == [("broker", "eu")]


def test_without_a_name_the_field_cluster_is_the_users(broker: str, folder: Path) -> None:
    gateway = GatewayProcess(broker, folder)
    gateway.start()
    try:
        with NdjsonStream(gateway.url) as client:
            publish(broker, {"type": "deploy-done", "cluster": "k8s-7"}, {"type": "deploy-done"})
            first, second = client.until(lambda seen: len(seen) == 2)
            assert first["cluster"] == "k8s-7"
            assert "cluster" not in second
    finally:
        gateway.stop()
