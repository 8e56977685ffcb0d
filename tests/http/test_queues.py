"""`GET /queues`: names, parameters, scopes, several brokers. The queues are kombu's, in memory."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Queue

from celery_gateway.access.authenticator import Authenticator
from celery_gateway.broker.queue_names import MAX_QUEUES
from celery_gateway.broker.queues import Queues
from celery_gateway.broker.urls import brokers
from tests.support.publisher import task_event
from tests.support.state_gateway import StateGateway
from tests.support.token_issuer import issuer_file, token

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def prefix() -> str:
    """Queues in memory belong to the process, so each test run has names of its own."""
    return uuid.uuid4().hex[:8]


@pytest.fixture(scope="module", autouse=True)
def _filled(prefix: str) -> None:
    with Connection("memory://") as connection:
        producer = connection.Producer()
        for name, count in (("mail", 3), ("video", 1), ("bank", 7)):
            for _ in range(count):
                producer.publish({}, routing_key=f"{prefix}-{name}", declare=[Queue(f"{prefix}-{name}")])


@asynccontextmanager
async def opened(
    *names: str, clusters: Sequence[str] = (), authenticator: Authenticator | None = None
) -> AsyncIterator[StateGateway]:
    urls = [f"{cluster}=memory://" for cluster in clusters] or ["memory://"]
    queues = Queues(brokers(urls), names)
    try:
        yield StateGateway(queues=queues, clusters=tuple(clusters), authenticator=authenticator)
    finally:
        await queues.close()


def sent(queue: str, **fields: Any) -> dict[str, Any]:
    return task_event("task-sent", uuid.uuid4().hex, name="shop.pay", queue=queue, **fields)


def names_of(page: dict[str, Any]) -> list[str]:
    return [queue["name"].partition("-")[2] for queue in page["queues"]]


def test_the_queues_of_the_events_are_listed(prefix: str) -> None:
    async def run() -> None:
        async with opened() as gateway:
            before = (await gateway.get("/queues"))["queues"]
            assert {queue["name"] for queue in before} <= {"celery"}, "and only if it exists"
            gateway.put(sent(f"{prefix}-video"), sent(f"{prefix}-mail"), sent(f"{prefix}-gone"))
            page = await gateway.get("/queues")
            assert names_of(page) == ["gone", "mail", "video"]
            gone, mail, _ = page["queues"]
            assert set(mail) == {
                *("name", "depth", "unacknowledged", "consumers", "oldest", "priorities", "time", "error")
            }
            assert (mail["depth"], mail["error"]) == (3, None)
            assert (gone["depth"], gone["error"]) == (None, "the broker has no such queue")
            assert (page["omitted"], page["errors"]) == (0, {})
            assert page["id"]

    asyncio.run(run())


def test_listed_queues_replace_those_of_the_events(prefix: str) -> None:
    async def run() -> None:
        async with opened(f"{prefix}-mail,{prefix}-none") as gateway:
            gateway.put(sent(f"{prefix}-video"))
            assert names_of(await gateway.get("/queues")) == ["mail", "none"]

    asyncio.run(run())


def test_filters_and_bad_parameters(prefix: str) -> None:
    async def run() -> None:
        async with opened(f"{prefix}-mail,{prefix}-video") as gateway:
            assert names_of(await gateway.get(f"/queues?queue={prefix}-v*&format=json")) == ["video"]
            assert names_of(await gateway.get(f"/queues?queue=!{prefix}-v*")) == ["mail"]
            for query, parameter in (
                ("name=a", "name"),
                ("queue=", "queue"),
                ("format=xml", "format"),
                ("fields=depth", "fields"),
            ):
                error = await gateway.get_error(f"/queues?{query}", 400)
                assert error["parameter"] == parameter

    asyncio.run(run())


def test_several_brokers_have_queues_of_their_own(prefix: str) -> None:
    async def run() -> None:
        async with opened(
            f"eu={prefix}-mail", f"us={prefix}-video", f"{prefix}-bank", clusters=("us", "eu")
        ) as gateway:
            page = await gateway.get("/queues")
            assert [(queue["cluster"], queue["depth"]) for queue in page["queues"]] == [
                ("eu", 3), ("eu", 7), ("us", 1), ("us", 7),
            ]  # fmt: skip
            only = await gateway.get("/queues?cluster=us")
            assert {queue["cluster"] for queue in only["queues"]} == {"us"}
        async with opened(clusters=("us", "eu")) as gateway:
            gateway.put(sent(f"{prefix}-mail"), sent(f"{prefix}-gone"), cluster="eu")
            page = await gateway.get("/queues")
            assert names_of(page) == ["mail", "mail"], "a queue that a broker does not have may be another's"

    asyncio.run(run())


def test_a_broker_that_is_down_from_the_start_has_an_error(prefix: str, tmp_path: Path) -> None:
    async def run(urls: list[str], clusters: tuple[str, ...], expected: set[str], shown: list[str]) -> None:
        queues = Queues(brokers(urls))
        authenticator = Authenticator(issuer_file(tmp_path))
        gateway = StateGateway(queues=queues, clusters=clusters, authenticator=authenticator)
        gateway.put(sent(f"{prefix}-mail"), cluster=clusters[0] if clusters else None)
        for scope, errors, names in (
            ({}, expected, shown),
            ({"any": [{"queue": "*-mail"}]}, expected, shown),
            ({"any": [{"queue": "*-other"}]}, set(), []),
            ({"any": [{"queue": "*-mail", "name": "shop.*"}]}, set(), []),
        ):
            text = token(celery_gateway=scope | {"may": ["workers"]})
            page = (await gateway.request("/queues", authorization=f"Bearer {text}")).json()
            assert (page["errors"].keys(), names_of(page)) == (errors, names), scope
            assert all(
                "unreachable" in error and "127.0.0.1" not in error for error in page["errors"].values()
            )
        await queues.close()

    down = "amqp://user:hunter2@127.0.0.1:1//"
    asyncio.run(run(["eu=memory://", f"us={down}"], ("eu", "us"), {"us"}, ["mail"]))
    asyncio.run(run([down], (), {""}, ["mail"]))


@pytest.mark.parametrize(
    ("scope", "shown"),
    [
        ({}, ["bank", "mail", "video"]),
        ({"any": [{"queue": "*-mail"}]}, ["mail"]),
        ({"any": [{"queue": "!*-bank"}]}, ["mail", "video"]),
        ({"any": [{"queue": "*-mail"}, {"queue": "*-video", "name": "shop.*"}]}, ["mail"]),
        ({"any": [{"name": "shop.*"}]}, []),
        ({"any": [{"cluster": "eu"}]}, []),
        ({"any": [{"state": "!SUCCESS"}]}, []),
        ({"any": []}, []),
        ({"hide": ["queue"]}, []),
        ({"any": [{"queue": "*-mail"}], "hide": ["queue"]}, []),
    ],
)
def test_a_scope_shows_the_queues_that_its_conditions_name(
    scope: dict[str, Any], shown: list[str], prefix: str, tmp_path: Path
) -> None:
    async def run() -> None:
        authenticator = Authenticator(issuer_file(tmp_path))
        async with opened(authenticator=authenticator) as gateway:
            gateway.put(*[sent(f"{prefix}-{name}") for name in ("mail", "video", "bank")])
            text = token(celery_gateway=scope | {"may": ["workers"]})
            response = await gateway.request("/queues", authorization=f"Bearer {text}")
            assert response.status_code == 200
            assert names_of(response.json()) == shown
            for query in ("", f"?queue={prefix}-bank"):
                text = token(celery_gateway=scope | {"may": ["events", "state", "metrics", "revoke"]})
                response = await gateway.request(f"/queues{query}", authorization=f"Bearer {text}")
                assert response.status_code == 403

    asyncio.run(run())


def test_the_number_of_queues_is_bounded() -> None:
    async def run() -> None:
        async with opened() as gateway:
            gateway.put(*[sent(f"many-{number:04}") for number in range(MAX_QUEUES + 30)])
            page = await gateway.get("/queues")
            assert len(page["queues"]) == MAX_QUEUES
            assert page["omitted"] == 30
            assert len(json.dumps(page)) < 100_000
            page = await gateway.get("/queues?queue=many-021*")
            assert len(page["queues"]) == 10, "the bound is that of a request"

    asyncio.run(run())
