"""Actions: who may request them, what is refused, what is sent, logged and emitted.

The broker is kombu's, in memory; `tests/broker/test_task_control.py` has real brokers and workers.
"""

import asyncio
import json
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import Connection, Exchange, Queue

from celery_gateway.access.actions import SIGNALS, parse_actions
from celery_gateway.access.authenticator import Authenticator
from celery_gateway.asgi import Gateway
from celery_gateway.broker import task_control
from celery_gateway.broker.task_control import BATCH_TASKS, TaskControl
from celery_gateway.broker.urls import brokers
from celery_gateway.errors import OverLimit
from celery_gateway.events.message import Message
from celery_gateway.http import action_endpoints, fair_share
from celery_gateway.http.action_endpoints import TARGET_BYTES, Actions
from celery_gateway.http.carriers import COOKIE
from celery_gateway.http.fair_share import FairShare
from celery_gateway.pipeline.feed import Feed
from celery_gateway.settings import Settings
from tests.support.served_gateway import QuietSource
from tests.support.state_gateway import StateGateway, known, step
from tests.support.token_issuer import issuer_file, token

pytestmark = pytest.mark.unit

BOTH = ("revoke", "terminate")
JSON = {"content_type": "application/json"}
OWN = "http://gateway"


class Mailbox:
    """What the workers of a broker in memory get, by the name of the control exchange."""

    def __init__(self) -> None:
        self.exchange = f"control-{uuid.uuid4().hex[:8]}"
        self._connection = Connection("memory://")
        exchange = Exchange(f"{self.exchange}.pidbox", type="fanout", durable=False)
        self._queue = Queue(uuid.uuid4().hex, exchange)(self._connection.channel())
        self._queue.declare()

    def read(self) -> list[dict[str, Any]]:
        found = []
        while message := self._queue.get(no_ack=True):
            found.append(json.loads(message.body))
        return found

    def arguments(self) -> list[dict[str, Any]]:
        commands = self.read()
        assert all(command["method"] == "revoke" and command["destination"] is None for command in commands)
        return [command["arguments"] for command in commands]


class Case:
    """A gateway that allows some actions, and its workers' mailbox."""

    def __init__(
        self,
        allowed: Sequence[str] = BOTH,
        folder: Path | None = None,
        clusters: tuple[str, ...] = (),
        **options: Any,
    ) -> None:
        self.mailbox = Mailbox()
        named = brokers([f"{cluster}=memory://" for cluster in clusters] or ["memory://"])
        controls = {broker.name: TaskControl(broker, self.mailbox.exchange) for broker in named}
        authenticator = None if folder is None else Authenticator(issuer_file(folder))
        self.gateway = StateGateway(
            authenticator=authenticator,
            actions=Actions(tuple(allowed), controls),
            clusters=clusters,
            **options,
        )

    async def post(
        self, path: str, body: object = None, scope: Mapping[str, Any] | None = None, **headers: str
    ) -> httpx.Response:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if scope is not None:
            headers["authorization"] = f"Bearer {token(celery_gateway=dict(scope))}"
        return await self.gateway.request(path, method="POST", body=content, **{**JSON, **headers})

    async def refused(self, path: str, status: int, code: str, *given: Any, **headers: Any) -> dict[str, Any]:
        """Return the error of a request that is refused, which sends nothing."""
        response = await self.post(path, *given, **headers)
        error: dict[str, Any] = response.json()["error"]
        assert (response.status_code, error["code"]) == (status, code), response.text
        assert self.mailbox.read() == []
        return error

    @asynccontextmanager
    async def stream(
        self, query: str = "", scope: Mapping[str, Any] | None = None
    ) -> AsyncIterator[Callable[[], list[dict[str, Any]]]]:
        """A stream; the block gets a function that returns its messages so far."""
        received: list[dict[str, Any]] = []
        headers = [(b"host", b"gateway")]
        if scope is not None:
            headers.append((b"authorization", b"Bearer " + token(celery_gateway=dict(scope)).encode()))
        is_open, end = asyncio.Event(), asyncio.Event()

        async def receive() -> dict[str, Any]:
            await end.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            for line in message.get("body", b"").splitlines():
                received.append(json.loads(line))
                is_open.set()

        running = asyncio.create_task(
            self.gateway.app(
                {
                    "type": "http", "method": "GET", "path": "/events", "raw_path": b"/events",
                    "query_string": f"format=ndjson&{query}".encode(), "headers": headers,
                    "http_version": "1.1", "scheme": "http", "server": ("gateway", 80),
                    "client": ("127.0.0.1", 1),
                },
                receive,
                send,
            )
        )  # fmt: skip
        try:
            async with asyncio.timeout(30):
                await is_open.wait()
            yield lambda: received
        finally:
            end.set()
            await asyncio.gather(running, return_exceptions=True)

    async def flushed(self, *streams: Callable[[], list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        """Return the control messages of streams; what was emitted before has arrived."""
        mark = f"mark-{uuid.uuid4().hex}"
        self.gateway.pipeline.hub.broadcast(lambda id: _mark(id, mark))
        async with asyncio.timeout(30):
            while not all(any(each.get("mark") == mark for each in stream()) for stream in streams):  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        return [[m for m in stream() if m["type"] == "gateway-control"] for stream in streams]


def _mark(id: bytes, mark: str) -> Any:
    message = action_endpoints.control_message(id, {"mark": mark})
    return message._replace(json=message.json.replace(b"gateway-control", b"gateway-mark"))


# ---- what is allowed


def test_actions_are_off_by_default() -> None:
    async def run() -> None:
        case = Case(allowed=())
        case.gateway.put(known("a"))
        for path in ("/tasks/a/revoke", "/workflows/a/revoke", "/tasks/unknown/revoke"):
            error = await case.refused(path, 403, "actions-off")
            assert "--allow" in error["message"]
        response = await case.gateway.request("/tasks/a/revoke")
        assert response.status_code == 404, "GET is that of a task"

    asyncio.run(run())


def test_a_waiting_task_is_revoked_and_everyone_who_sees_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        case = Case()
        case.gateway.put(known("a"), known("b", name="bank.pay"))
        async with case.stream() as all_, case.stream("name=bank.*") as bank, case.stream("type=x") as typed:
            response = await case.post("/tasks/a/revoke")
            assert response.status_code == 202
            assert response.json() == {"revoked": ["a"], "count": 1}
            assert response.headers["cache-control"] == "no-store"
            assert case.mailbox.arguments() == [{"task_id": ["a"], "terminate": False, "signal": None}]
            (told,), others, (also,) = await case.flushed(all_, bank, typed)
            assert others == [], "its filter does not match the task"
            assert told == also, "a filter by the type of events does not exclude it"
            assert told.pop("id") == case.gateway.pipeline.hub.history.id_of(3).decode()
            assert isinstance(told.pop("time"), float)
            assert told == {
                "type": "gateway-control", "action": "revoke", "terminate": False, "signal": None,
                "uuid": "a", "name": "shop.pay", "root_id": "a",
            }  # fmt: skip

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    (line,) = [each.getMessage() for each in caplog.records if each.name.endswith("action_endpoints")]
    assert line.startswith("action: revoke by anyone (no authentication) from '127.0.0.1': tasks: 'a'")


def test_it_is_an_entry_of_the_history_that_can_be_resumed_over() -> None:
    async def run() -> None:
        case = Case()
        case.gateway.put(known("a"), known("b"))
        before = case.gateway.pipeline.hub.id.decode()
        await case.post("/tasks/a/revoke")
        case.gateway.put(step("started", "b"))
        for query, count in (("", 1), ("uuid=a", 1), ("uuid=b", 0), ("uuid=a&type=task-failed", 1)):
            async with case.stream(f"last_event_id={before}&{query}") as resumed:
                (messages,) = await case.flushed(resumed)
                assert len(messages) == count, query
                if count:
                    id = messages[0]["id"]
                    async with case.stream(f"last_event_id={id}&{query}") as later:
                        assert await case.flushed(later) == [[]]

    asyncio.run(run())


def test_terminate_needs_to_be_allowed_and_asked_for() -> None:
    async def run() -> None:
        case = Case()
        case.gateway.put(known("a"), step("started", "a"))
        assert (await case.post("/tasks/a/revoke", {"terminate": True})).status_code == 202
        assert case.mailbox.arguments() == [{"task_id": ["a"], "terminate": True, "signal": "SIGTERM"}]
        for signal in SIGNALS:
            await case.post("/tasks/a/revoke", {"terminate": True, "signal": signal})
            assert case.mailbox.arguments()[0]["signal"] == signal
        without = Case(allowed=("revoke",))
        without.gateway.put(known("a"))
        error = await without.refused("/tasks/a/revoke", 403, "actions-off", {"terminate": True})
        assert error["parameter"] == "terminate"
        assert (await without.post("/tasks/a/revoke", {"terminate": False})).status_code == 202

    asyncio.run(run())


def test_what_cannot_be_revoked() -> None:
    async def run() -> None:
        case = Case()
        case.gateway.put(known("a"), step("started", "a"), step("succeeded", "a", result="1"))
        error = await case.refused("/tasks/a/revoke", 409, "task-ready")
        assert error["state"] == "SUCCESS"
        await case.refused("/workflows/a/revoke", 409, "task-ready")
        await case.refused("/tasks/b/revoke", 404, "task-unknown")
        await case.refused("/workflows/b/revoke", 404, "workflow-unknown")
        case.gateway.put(known("c"))
        await case.refused("/tasks/c/revoke?cluster=eu", 404, "task-unknown")  # brokers have no names
        await case.refused("/workflows/c/revoke?cluster=eu", 404, "workflow-unknown")

    asyncio.run(run())


def test_an_id_may_have_any_characters() -> None:
    async def run() -> None:
        case = Case()
        for uid in ("a/b", "a/revoke", "ü?#&", "a b", "a\nb", "a\r\n/\u2028"):
            case.gateway.put(known(uid))
            response = await case.post(f"/tasks/{quote(uid, safe='')}/revoke")
            assert response.json()["revoked"] == [uid]
            assert case.mailbox.arguments()[0]["task_id"] == [uid]

    asyncio.run(run())


def test_an_id_is_sent_as_text_also_if_it_is_a_number() -> None:
    """A number would end a worker of Celery 5.7 whose result backend has files or Redis."""

    async def run() -> None:
        case = Case()
        for uid in (12345, 1.5, True):
            case.gateway.put(known(uid))  # type: ignore[arg-type]
            text = json.dumps(uid)
            response = await case.post(f"/tasks/{text}/revoke")
            assert response.json() == {"revoked": [text], "count": 1}
            assert case.mailbox.arguments()[0]["task_id"] == [text]

    asyncio.run(run())


def test_several_brokers() -> None:
    async def run() -> None:
        case = Case(clusters=("eu", "us"))
        case.gateway.put(known("a"), cluster="eu")
        case.gateway.put(known("a"), known("b"), cluster="us")
        error = await case.refused("/tasks/a/revoke", 409, "ambiguous")
        assert sorted(error["allowed"]) == ["eu", "us"]
        await case.refused("/workflows/a/revoke", 409, "ambiguous")
        async with case.stream() as all_, case.stream("cluster=eu") as eu:
            assert (await case.post("/tasks/a/revoke?cluster=us")).status_code == 202
            assert (await case.post("/workflows/b/revoke")).status_code == 202
            told, others = await case.flushed(all_, eu)
            assert [(each["uuid"], each["cluster"]) for each in told] == [("a", "us"), ("b", "us")]
            assert others == []

    asyncio.run(run())


def test_with_a_shared_log_it_goes_to_the_open_streams_that_show_the_task() -> None:
    async def run() -> None:
        case = Case()
        case.gateway.put(known("a"))
        hub = case.gateway.pipeline.hub
        keys = case.gateway.pipeline.tasks.find("a", None)[0].keys()
        async with (
            case.stream() as all_,
            case.stream("name=bank.*") as bank,
            case.stream("type=task-failed") as typed,
        ):
            before = hub.history.position
            hub.broadcast_local(lambda id: action_endpoints.control_message(id, {"uuid": "a"}), keys)
            assert hub.history.position == before, "it is no entry"
            counts = [len(messages) for messages in await case.flushed(all_, bank, typed)]
            assert counts == [1, 0, 1]

    asyncio.run(run())


# ---- workflows


def test_a_workflow_is_revoked_without_the_tasks_that_are_ready() -> None:
    async def run() -> None:
        case = Case()
        case.gateway.put(known("r"), *[known(f"t{number}", "r") for number in range(5)], known("other"))
        case.gateway.put(step("succeeded", "r"), step("failed", "t1"), step("started", "t2"))
        async with case.stream() as all_, case.stream("uuid=t3") as one:
            response = await case.post("/workflows/r/revoke", {"terminate": True})
            assert response.json() == {"revoked": ["t0", "t2", "t3", "t4"], "count": 4}
            assert case.mailbox.arguments()[0]["task_id"] == ["t0", "t2", "t3", "t4"]
            told, only = await case.flushed(all_, one)
            assert [each["uuid"] for each in told] == ["t0", "t2", "t3", "t4"]
            assert [each["uuid"] for each in only] == ["t3"]

    asyncio.run(run())


def test_a_large_workflow_is_revoked_as_a_whole_in_batches() -> None:
    async def run() -> None:
        case = Case()
        count = 20 * BATCH_TASKS + 10
        case.gateway.put(known("r"))
        for number in range(count - 1):
            case.gateway.put(known(f"t{number}", "r"))
        body = (await case.post("/workflows/r/revoke")).json()
        assert body["count"] == count
        batches = [arguments["task_id"] for arguments in case.mailbox.arguments()]
        assert list(map(len, batches)) == [BATCH_TASKS] * 20 + [10]
        assert sum(batches, []) == body["revoked"] == ["r", *[f"t{number}" for number in range(count - 1)]]
        assert case.gateway.pipeline.limits.memory.used == 0

    asyncio.run(run())


def test_the_memory_of_a_revoke_is_charged() -> None:
    async def run() -> None:
        case = Case(memory_bytes=500_000)
        case.gateway.put(known("r"), *[known(f"t{number}", "r") for number in range(2_000)])
        error = await case.refused("/workflows/r/revoke", 503, "limit")
        assert error["reason"] == "memory"
        assert case.gateway.pipeline.limits.memory.used == 0

    asyncio.run(run())


def test_members_that_are_not_visible_are_not_charged(tmp_path: Path) -> None:
    async def run() -> None:
        case = Case(folder=tmp_path, memory_bytes=500_000)
        case.gateway.put(known("r"), *[known(f"t{number}", "r") for number in range(2_000)])
        case.gateway.put(known("x", "r", name="bank.pay"))
        scope = {"any": [{"name": "air.*"}], "may": ["revoke"]}
        await case.refused("/workflows/r/revoke", 404, "workflow-unknown", scope=scope)
        scope = {"any": [{"name": "bank.*"}], "may": ["revoke"]}
        assert (await case.post("/workflows/r/revoke", scope=scope)).json()["revoked"] == ["x"]
        for number in range(2_000):  # nor are those that are ready
            case.gateway.put(step("succeeded", f"t{number}"))
        response = await case.post("/workflows/r/revoke", scope={"may": ["revoke"]})
        assert response.json()["revoked"] == ["r", "x"]

    asyncio.run(run())


def test_hidden_members_of_several_brokers_are_read_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = 0
    pause = FairShare.pause

    async def counted(share: FairShare) -> None:
        nonlocal pauses
        pauses += 1
        await pause(share)

    monkeypatch.setattr(fair_share, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(FairShare, "pause", counted)

    async def run() -> None:
        case = Case(folder=tmp_path, clusters=("eu", "us"))
        for cluster in ("eu", "us"):
            case.gateway.put(known("r"), *[known(f"t{n}", "r") for n in range(200)], cluster=cluster)
        scope = {"any": [{"name": "bank.*"}], "may": ["revoke", "state"]}
        await case.refused("/workflows/r/revoke", 404, "workflow-unknown", scope=scope)
        assert pauses >= 400
        bearer = f"Bearer {token(celery_gateway=scope)}"
        for path in ("/workflows/r", "/workflows?q=r"):
            before = pauses
            await case.gateway.request(path, authorization=bearer)
            assert pauses >= before + 400, path
        case.gateway.put(known("x", "r", name="bank.pay"), cluster="us")
        assert (await case.post("/workflows/r/revoke", scope=scope)).json()["revoked"] == ["x"]

    asyncio.run(run())


# ---- tokens and scopes


def test_a_token_needs_the_kind(tmp_path: Path) -> None:
    async def run() -> None:
        case = Case(folder=tmp_path)
        case.gateway.put(known("a"))
        await case.refused("/tasks/a/revoke", 401, "unauthorized")
        for may in ([], ["events", "state", "workers", "metrics", "dashboard"], ["terminate"]):
            await case.refused("/tasks/a/revoke", 403, "forbidden", scope={"may": may})
        await case.refused("/tasks/a/revoke", 403, "forbidden", scope={})
        scope = {"may": ["revoke"]}
        assert (await case.post("/tasks/a/revoke", scope=scope)).status_code == 202
        assert case.mailbox.read()
        error = await case.refused("/tasks/a/revoke", 403, "forbidden", {"terminate": True}, scope=scope)
        assert error["parameter"] == "terminate"
        assert (await case.post("/tasks/a/revoke", {"terminate": True}, {"may": BOTH})).status_code == 202

    asyncio.run(run())


def test_only_visible_tasks_are_revoked_and_told(tmp_path: Path) -> None:
    async def run() -> None:
        case = Case(folder=tmp_path)
        names = {"r": "shop.root", "s1": "shop.pay", "s2": "shop.pay", "b1": "bank.pay"}
        case.gateway.put(
            *[known(uid, "r", name=name) for uid, name in names.items()], known("b2", name="bank.x")
        )
        shop = {"any": [{"name": "shop.*"}]}
        revoking = shop | {"may": ["revoke"]}
        watching = {"may": ["events"]}
        for path, kind in (("/tasks/b1", "task"), ("/tasks/none", "task"), ("/workflows/b2", "workflow")):
            error = await case.refused(f"{path}/revoke", 404, f"{kind}-unknown", scope=revoking)
            assert "this token does not show it" in error["message"]
        async with (
            case.stream(scope=watching) as all_,
            case.stream(scope=shop | watching) as shops,
            case.stream(scope={"any": [{"name": "bank.*"}]} | watching) as banks,
            case.stream(scope={"any": [{"name": "shop.*", "type": "task-sent"}]} | watching) as typed,
            case.stream("name=shop.root", scope=shop | watching) as root,
        ):
            body = (await case.post("/workflows/r/revoke", scope=revoking)).json()
            assert body["revoked"] == ["r", "s1", "s2"]
            streams = await case.flushed(all_, shops, banks, typed, root)
            assert [[each["uuid"] for each in told] for told in streams] == [
                ["r", "s1", "s2"], ["r", "s1", "s2"], [], [], ["r"],
            ]  # fmt: skip
            assert not any("principal" in each or "alice" in str(each) for each in streams[0])

    asyncio.run(run())


def test_operations_have_a_quota(tmp_path: Path) -> None:
    async def run() -> None:
        case = Case(folder=tmp_path)
        case.gateway.pipeline.limits.quotas.set_general({"operations_per_second": 1})
        statuses = [
            (await case.post("/tasks/none/revoke", scope={"may": ["revoke"]})).status_code for _ in range(12)
        ]
        assert statuses[:5] == [404] * 5
        assert 429 in statuses

    asyncio.run(run())


# ---- pages of other origins


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"origin": "https://evil.example"}, "forbidden-origin"),
        ({"origin": "null"}, "forbidden-origin"),
        ({"origin": "https://shop.example"}, "forbidden-origin"),  # of --allow-origin: it may read
        ({"origin": OWN, "sec_fetch_site": "cross-site"}, "forbidden-origin"),
        ({"sec_fetch_site": "cross-site"}, "forbidden-origin"),
        ({"sec_fetch_site": "same-site"}, "forbidden-origin"),
        ({"content_type": "text/plain"}, "unsupported-media-type"),
        ({"content_type": "application/x-www-form-urlencoded"}, "unsupported-media-type"),
        ({"content_type": "multipart/form-data; boundary=x"}, "unsupported-media-type"),
        ({"content_type": "application/jsonp"}, "unsupported-media-type"),
        ({"content_type": "text/plain; application/json"}, "unsupported-media-type"),
        ({"content_type": ""}, "unsupported-media-type"),
    ],
)
def test_a_foreign_page_cannot_revoke(headers: dict[str, str], code: str) -> None:
    async def run() -> None:
        case = Case()
        case.gateway.put(known("a"))
        status = 403 if code == "forbidden-origin" else 415
        await case.refused("/tasks/a/revoke", status, code, **headers)
        await case.refused("/workflows/a/revoke", status, code, **headers)

    asyncio.run(run())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": OWN},
        {"origin": OWN, "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
        {"content_type": "Application/JSON; charset=utf-8"},
    ],
)
def test_the_own_page_and_programs_can(headers: dict[str, str]) -> None:
    async def run() -> None:
        case = Case()
        case.gateway.put(known("a"))
        assert (await case.post("/tasks/a/revoke", **headers)).status_code == 202

    asyncio.run(run())


def test_a_session_counts_for_the_own_page_only(tmp_path: Path) -> None:
    async def run() -> None:
        case = Case(folder=tmp_path)
        case.gateway.put(known("a"))
        scope = {"may": ["revoke"]}
        cookie = f"{COOKIE}=session.{token(celery_gateway=scope)}"
        shop = "https://shop.example"  # its pages may read with the cookie
        await case.refused("/tasks/a/revoke", 403, "forbidden-origin", cookie=cookie, origin=shop)
        await case.refused("/tasks/a/revoke", 401, "unauthorized", cookie=cookie, sec_fetch_site="cross-site")
        response = await case.post("/tasks/a/revoke", cookie=cookie, origin=OWN)
        assert response.status_code == 202
        response = await case.post("/tasks/a/revoke", scope=scope, origin=shop)
        assert response.status_code == 202, "it has a token of its own"

    asyncio.run(run())


# ---- bodies


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        (b"{", "body"),
        (b"[]", "body"),
        (b"null", "body"),
        (b"1", "body"),
        (b"[" * 4_000, "body"),
        (b" " * 5_000, "body"),
        ({"terminate": 1}, "terminate"),
        ({"terminate": None}, "terminate"),
        ({"terminate": "true"}, "terminate"),
        ({"signal": "SIGTERM"}, "signal"),
        ({"terminate": False, "signal": "SIGKILL"}, "signal"),
        ({"terminate": True, "signal": "SIGSTOP"}, "signal"),
        ({"terminate": True, "signal": "sigterm"}, "signal"),
        ({"terminate": True, "signal": 9}, "signal"),
        ({"terminate": True, "signal": ["SIGTERM"]}, "signal"),
        ({"terminate": True, "signal": ""}, "signal"),
        ({"task_id": "b"}, "task_id"),
        ({"destination": []}, "destination"),
    ],
)
def test_bad_bodies_are_refused(body: object, parameter: str) -> None:
    async def run() -> None:
        case = Case()
        case.gateway.put(known("a"))
        response = await case.post("/tasks/a/revoke", body)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert error["parameter"] == parameter
        assert case.mailbox.read() == []

    asyncio.run(run())


@pytest.mark.parametrize("query", ["terminate=true", "signal=SIGKILL", "x=1", "cluster=a&cluster=b"])
def test_bad_queries_are_refused(query: str) -> None:
    async def run() -> None:
        case = Case()
        case.gateway.put(known("a"))
        assert (await case.post(f"/tasks/a/revoke?{query}")).status_code == 400
        assert case.mailbox.read() == []

    asyncio.run(run())


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(SIGNALS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["terminate", "signal"]) | st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(_VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
def test_any_body_is_a_valid_command_or_an_error(body: bytes) -> None:
    async def run() -> None:
        case = Case()
        case.gateway.put(known("a"))
        response = await case.post("/tasks/a/revoke", body)
        sent = case.mailbox.arguments()
        if response.status_code == 400:
            assert sent == []
            return
        assert response.status_code == 202
        (arguments,) = sent
        given = json.loads(body or b"{}")
        terminate = given.get("terminate", False)
        assert set(given) <= {"terminate", "signal"}
        assert arguments["terminate"] is terminate
        assert arguments["signal"] == ((given.get("signal") or "SIGTERM") if terminate else None)

    asyncio.run(run())


# ---- the log


def test_no_value_of_an_event_makes_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    uid = "a\nINFO action: revoke by 'root'\x1b[2J\u2028\u202e"

    async def run() -> None:
        case = Case()
        case.gateway.put(
            known("r"), step("succeeded", "r"), known(uid, "r", name="n\r\nevil\x00" + "x" * 500)
        )
        assert (await case.post("/workflows/r/revoke")).json()["revoked"] == [uid]

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    (line,) = [each.getMessage() for each in caplog.records if "action:" in each.getMessage()]
    assert line.isprintable()
    assert repr(uid) in line
    assert len(line) < 500


# ---- the broker


def test_an_unreachable_broker_is_an_error_and_nothing_is_emitted(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        case = Case()
        url = "amqp://user:hunter2@127.0.0.1:1//"
        control = TaskControl(brokers(url)[0])
        case.gateway = StateGateway(actions=Actions(BOTH, {None: control}))
        case.gateway.put(known("a"))
        async with case.stream() as all_:
            error = await case.refused("/tasks/a/revoke", 502, "broker-unreachable")
            assert error["revoked"] == []
            assert "unreachable" in error["message"]
            assert "127.0.0.1" not in error["message"], "without --verbose-health"
            assert await case.flushed(all_) == [[]]

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert "hunter2" not in caplog.text
    assert "127.0.0.1:1" in caplog.text, "the log has the reason"
    assert "action: " not in caplog.text
    (line,) = [each for each in caplog.messages if each.startswith("action not confirmed: ")]
    assert line.endswith("tasks: 'a' ('shop.pay')")


@pytest.mark.parametrize("is_in_time", [True, False], ids=["in-time", "late"])
def test_a_shutdown_waits_for_a_command(
    is_in_time: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A real broker cannot be made to wait for a moment."""
    taken, gate = threading.Event(), threading.Event()

    def broadcast(*arguments: Any, **options: Any) -> None:
        taken.set()
        gate.wait(30)

    monkeypatch.setattr(task_control, "broadcast", broadcast)
    monkeypatch.setattr(Actions, "finish", partialmethod(Actions.finish, 30.0 if is_in_time else 0.05))

    async def run() -> None:
        gateway = Gateway(Settings(broker="memory://", allow=("revoke",)))
        async with gateway.lifespan():
            feed = Feed(None, QuietSource())
            for _ in gateway.pipeline.on_message(Message(json.dumps([known("a")]).encode()), feed) or ():
                pass
            transport = httpx.ASGITransport(app=gateway)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                headers = {"content-type": "application/json"}
                request = asyncio.create_task(client.post("/tasks/a/revoke", headers=headers))
                async with asyncio.timeout(30):
                    while not taken.is_set():  # noqa: ASYNC110
                        await asyncio.sleep(0.005)
                assert gateway.limits.memory.used == TARGET_BYTES
                request.cancel()  # its client disconnects
                await asyncio.gather(request, return_exceptions=True)
            if is_in_time:
                asyncio.get_running_loop().call_later(0.1, gate.set)
        gate.set()

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    (line,) = [each for each in caplog.messages if each.startswith("action")]
    assert line.startswith("action: revoke by" if is_in_time else "action not confirmed: revoke by")


def test_the_number_of_waiting_commands_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_control, "MAX_WAITING", 3)

    async def run() -> None:
        mailbox = Mailbox()
        control = TaskControl(brokers("memory://")[0], mailbox.exchange)
        sending = [control.revoke([str(number)], None) for number in range(5)]
        results = await asyncio.gather(*sending, return_exceptions=True)
        assert [type(result) for result in results] == [type(None)] * 3 + [OverLimit] * 2
        assert len(mailbox.read()) == 3

    asyncio.run(run())


# ---- the setting


def test_the_setting() -> None:
    assert parse_actions([]) == ()
    assert parse_actions("revoke") == ("revoke",)
    assert parse_actions(["terminate", "revoke,revoke"]) == BOTH
    for bad in ("terminate", "retry", "revoke;terminate"):
        with pytest.raises(ValueError, match=r"revoke"):
            parse_actions([bad])
