"""Several brokers in one gateway: events say where they came from, and one that fails takes none along."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.gateway_process import GatewayProcess
from tests.publisher import Publisher, walk
from tests.rabbitmq import RabbitMQ, wait_for
from tests.stream_client import NdjsonStream


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


def test_a_field_of_that_name_is_kept_aside(gateway: GatewayProcess, urls: dict[str, str]) -> None:
    with NdjsonStream(gateway.url, {"type": "deploy-done"}) as client:
        publish(urls["eu"], {"type": "deploy-done", "cluster": "k8s-7", "id": 5})
        (event,) = client.until(bool)
        assert event["cluster"] == "eu"
        assert event["fields"] == {"cluster": "k8s-7", "id": 5}


def test_metrics_tell_the_brokers_apart(gateway: GatewayProcess) -> None:
    text = httpx.get(f"{gateway.url}/metrics").text
    for name in ("eu", "us"):
        assert f'celery_gateway_source_consuming{{cluster="{name}"}} 1.0' in text


def test_one_broker_that_fails_is_told_of_and_the_other_goes_on(
    rabbitmq: RabbitMQ, gateway: GatewayProcess, urls: dict[str, str]
) -> None:
    vhost = urls["eu"].rpartition("/")[2]
    with NdjsonStream(gateway.url) as client:
        rabbitmq.ctl("delete_vhost", vhost)
        assert wait_for(lambda: clusters(gateway) == {"eu": False, "us": True}, 20)
        answer = httpx.get(f"{gateway.url}/readyz")
        assert answer.status_code == 200
        assert vhost in answer.json()["clusters"]["eu"]["reason"]
        publish(urls["us"], *walk("meanwhile"))
        assert client.until(lambda seen: len(seen) == 3)[0]["cluster"] == "us"
        rabbitmq.add_vhost(vhost)
        assert wait_for(lambda: all(clusters(gateway).values()), 40)
        publish(urls["eu"], *walk("again"))
        got = client.until(lambda seen: seen[-1].get("name") == "again")
        gaps = [event for event in got if event["type"] == "gateway-gap"]
        assert [(gap["reason"], gap["cluster"]) for gap in gaps] == [("broker", "eu")]


def test_one_broker_without_a_name_leaves_the_field_to_the_user(broker: str, folder: Path) -> None:
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
