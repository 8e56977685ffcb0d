"""Side doors of scopes and tokens: snapshots that change while they are read, slow readers, proxies."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from celery_gateway.access.authenticator import Authenticator
from celery_gateway.asgi import Gateway
from celery_gateway.errors import InvalidToken
from celery_gateway.settings import Settings
from celery_gateway.stream.completion import MIN_SWEEP_TARGETS
from tests.support.access_file import AccessFile
from tests.support.asgi_exchange import Exchange
from tests.support.state_gateway import StateGateway, known, step

pytestmark = [pytest.mark.unit, pytest.mark.slow]

SNAPSHOT = "/events?format=ndjson&snapshot=1"


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (logging has no event)
            await asyncio.sleep(0.05)


class World:
    """A gateway with an access file, and streams of one token."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.access = AccessFile(folder)
        self.gateway = StateGateway(authenticator=Authenticator(str(self.access.path)), **options)

    def stream(self, path: str, **scope: Any) -> Exchange:
        token = self.access.sign(subject="alice", **scope)
        return Exchange(self.gateway.app, path, headers={"authorization": f"Bearer {token}"})

    async def snapshot(self, change: Callable[[], None], **scope: Any) -> list[dict[str, Any]]:
        """Read a snapshot, and change something after its first page; return its tasks."""
        stream = self.stream(SNAPSHOT, **scope)
        await stream.until(lambda each: b"gateway-snapshot" in each.body, 10)
        assert b'"done":true' not in stream.body, "it was read before the change"
        change()
        await stream.until(lambda each: b'"done":true' in each.body, 10)
        stream.disconnect()
        return [task for message in stream.messages for task in message.get("tasks", ())]


@pytest.mark.parametrize("scope", [{"name": "mine.*"}, {"queue": "mine"}, {"root_id": "mine"}])
async def test_a_snapshot_has_no_foreign_task_that_was_evicted_and_is_known_again(
    tmp_path: Path, scope: dict[str, str]
) -> None:
    world = World(tmp_path, max_tasks=3_000)
    mine = {"name": "mine.x", "queue": "mine", "root": "mine"}
    foreign = known("foreign", "theirs", name="bank.pay", args="('theirs',)")
    world.gateway.put(foreign)
    for number in range(3_000):
        task = {**known(f"mine-{number}", mine["root"], name=mine["name"])}
        world.gateway.put({**task, "type": "task-sent", "queue": mine["queue"]})
    assert not world.gateway.pipeline.tasks.find("foreign")
    tasks = await world.snapshot(lambda: world.gateway.put(foreign), **scope)
    assert len(tasks) >= 2_000 and {task["name"] for task in tasks} == {"mine.x"}


async def test_a_snapshot_has_no_task_that_leaves_the_scope_meanwhile(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in range(3_000):
        world.gateway.put(known(f"t{number}"), step("started", f"t{number}"))

    def end() -> None:
        world.gateway.put(step("succeeded", "t1", result="'outside of the scope'"))

    tasks = await world.snapshot(end, any=[{"state": ["STARTED"]}])
    assert {task["state"] for task in tasks} == {"STARTED"}


async def test_a_slow_reader_gets_nothing_that_is_newer_than_its_token(tmp_path: Path) -> None:
    world = World(tmp_path)

    class Slow(Exchange):
        async def _send(self, message: Any) -> None:
            await super()._send(message)
            if message["type"] == "http.response.body":
                await asyncio.sleep(0.2)

    token = world.access.sign(seconds=2, any=[{}])
    begun_at = time.time()
    stream = Slow(world.gateway.app, "/events?format=ndjson", headers={"authorization": f"Bearer {token}"})
    number = 0
    while not stream.is_done:
        assert time.time() < begun_at + 15, "the stream does not end"
        for _ in range(8):
            number += 1
            world.gateway.put(known(f"t{number}", args="x" * 20_000, made_at=time.time()))
        await asyncio.sleep(0.1)
    made = [message["made_at"] - begun_at for message in stream.messages if "made_at" in message]
    assert max(made) < 2 + 4, "the end is rounded up to a second, and one piece may be under way"
    assert stream.messages[-1]["reason"] == "expired"


async def test_the_user_of_a_proxy_does_not_count_in_requests_of_foreign_pages(tmp_path: Path) -> None:
    """The cookie of the proxy goes along with them, as our own would."""
    file = tmp_path / "auth.toml"
    file.write_text(
        '[proxy]\nuser_header = "X-User"\nscope = {}\n[proxy.users."jörg"]\nscope = { may = [] }\n'
    )
    gateway = Gateway(
        Settings(broker="memory://", auth=str(file), trusted_proxies=["10.0.0.0/8"], allow_origins=["*"])
    )
    async with gateway.lifespan():

        async def status(user: str, **headers: str) -> int:
            named = {"host": "localhost", "x-user": user, **headers}
            exchange = Exchange(gateway, "/tasks", headers=named)
            await exchange.done()
            return exchange.status

        assert await status("alice") == 200
        assert await status("alice", origin="http://localhost") == 200
        assert await status("alice", origin="https://evil.example") == 401
        assert await status("alice", **{"sec-fetch-site": "cross-site"}) == 401
        assert await status("jörg".encode().decode("latin-1")) == 403, "the entry of this user"
        assert await status("j\xf6rg") == 403, "it is not UTF-8, so it is nobody"


async def test_the_user_of_a_proxy_requests_actions_from_the_own_page_only(tmp_path: Path) -> None:
    """Also pages of an origin that may read as this user cannot; and no token of another principal helps."""
    access = AccessFile(tmp_path)
    other = access.create("other", ["revoke"])
    text = access.path.read_text()
    access.path.write_text(
        text + '\n[proxy]\nuser_header = "X-User"\nscope = { may = ["revoke", "state"] }\n'
    )
    gateway = Gateway(
        Settings(
            broker="memory://",
            auth=str(access.path),
            trusted_proxies=["10.0.0.0/8"],
            allow_origins=["https://shop.example"],
            allow=["revoke"],
        )
    )
    async with gateway.lifespan():

        async def status(method: str = "POST", **headers: str) -> int:
            json = {"content-type": "application/json"} if method == "POST" else {}
            path = "/tasks/a/revoke" if method == "POST" else "/tasks"
            named = {"host": "localhost", "x-user": "alice", **json, **headers}
            exchange = Exchange(gateway, path, method=method, headers=named)
            await exchange.done()
            return exchange.status

        shop = "https://shop.example"
        assert await status() == await status(origin="http://localhost") == 404, "there is no such task"
        assert await status("GET", origin=shop) == 200
        assert await status(origin=shop) == 403
        assert await status(origin=shop, authorization="Bearer x") == 403
        assert await status(origin=shop, authorization=f"Bearer {other}") == 403
        named = {"host": "localhost", "content-type": "application/json", "origin": shop}
        own = Exchange(
            gateway,
            "/tasks/a/revoke",
            method="POST",
            headers=named | {"authorization": f"Bearer {other}"},
        )
        await own.done()
        assert own.status == 404, "without the header of the proxy, the token counts"


async def test_an_access_file_that_cannot_be_parsed_at_all_stops_no_checks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    access = AccessFile(tmp_path)
    token = access.create("grafana", ["state"])
    authenticator = Authenticator(str(access.path))
    running = asyncio.create_task(authenticator.run())
    with caplog.at_level(logging.ERROR):
        access.path.write_text(access.path.read_text() + f"\nnumber = {'1' * 5_000}\n")
        await wait_until(lambda: bool(caplog.records))
        access.remove("grafana")
        async with asyncio.timeout(30):
            with pytest.raises(InvalidToken):
                while True:
                    await authenticator.authenticate(token)
                    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_streams_that_wait_for_one_workflow_leave_nothing_behind(tmp_path: Path) -> None:
    """Each ``quiet_time`` is a target of its own."""
    world = World(tmp_path)
    world.gateway.put(known("r"))
    for number in range(2 * MIN_SWEEP_TARGETS):
        path = f"/events?format=ndjson&root_id=r&until=ready&quiet_time={number + 1}"
        stream = world.stream(path, root_id="r")
        await stream.begun()
        stream.disconnect()
        await stream.done()
    waiting = world.gateway.pipeline.completions._waiting
    assert sum(map(len, waiting.values())) <= MIN_SWEEP_TARGETS + 1
