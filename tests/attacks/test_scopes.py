"""Nothing outside of a scope is visible: two tenants, scopes, endpoints, transports and parameters.

Two checks find leaks. An oracle decides for each event and each task whether it is visible. And a tenant gets
the same responses, byte by byte, from a gateway that has never received an event of the other tenant: that
finds what nobody has listed.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from celery_gateway.access.actions import ACTIONS
from celery_gateway.access.authenticator import Authenticator
from celery_gateway.broker.queues import Queues
from celery_gateway.broker.task_control import TaskControl
from celery_gateway.broker.urls import brokers
from celery_gateway.http.action_endpoints import Actions
from celery_gateway.state import join_buffer
from tests.support.asgi_exchange import Exchange
from tests.support.live_streams import KINDS, Stream, served
from tests.support.served_gateway import until
from tests.support.state_gateway import StateGateway, known
from tests.support.token_issuer import issuer_file, token
from tests.support.two_tenants import BANK, SHOP, Oracle, World, texts, world

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_buffer, "JOIN_WAIT_SECONDS", 0.05)


Scope = dict[str, Any]
ROOTS = [f"shop-uuid-{number}" for number in range(1, 10)]

OF_THE_SHOP: dict[str, Scope] = {
    "root": {"any": [{"root_id": ROOTS}]},
    "one-root": {"any": [{"root_id": "shop-uuid-1"}]},
    "uuid": {"any": [{"uuid": ["shop-uuid-1", "shop-uuid-4", "shop-uuid-5", "shop-uuid-6"]}]},
    "uuid-glob": {"any": [{"uuid": "shop-*"}]},
    "name": {"any": [{"name": "shop.*"}]},
    "not-name": {"any": [{"name": "!bank.*"}]},
    "not-root": {"any": [{"root_id": ["!bank-*"]}]},
    "not-queue": {"any": [{"queue": "!bank-queue", "name": ["!bank*"]}]},
    "queue": {"any": [{"queue": "shop-queue"}]},
    "parent": {"any": [{"parent_id": "shop-uuid-1", "name": "shop.*"}]},
    "hostname": {"any": [{"hostname": ["worker@shop", "gen1@shop"]}]},
    "type": {"any": [{"type": "task-*", "name": "shop.*"}]},
    "state": {"any": [{"state": ["SUCCESS", "FAILURE"], "root_id": ROOTS}]},
    "several": {"any": [{"name": "shop.*", "queue": "shop-queue"}, {"uuid": "shop-uuid-2"}, {"queue": "x"}]},
    "hidden": {"any": [{"name": "shop.*"}], "hide": ["args", "kwargs", "result", "traceback", "note"]},
    "nothing": {"any": []},
    "nothing-known": {"any": [{"name": "shop.none"}]},
}
"""Scopes that show nothing of the bank."""
OTHERS: dict[str, Scope] = {
    "all": {},
    "any-filter": {"any": [{}]},
    "ended": {"any": [{"state": ["SUCCESS", "FAILURE"]}]},
    "type-of-all": {"any": [{"type": ["task-succeeded", "audit-*"]}]},
    "named": {"any": [{"name": "*"}]},
    "queued": {"any": [{"queue": "?*"}]},
    "both": {"any": [{"name": "bank.*", "state": "!SUCCESS"}, {"root_id": "shop-uuid-1"}]},
    "bank": {"any": [{"name": "bank.*"}]},
}
SCOPES = OF_THE_SHOP | OTHERS
COMPARABLE_TASKS = [name for name in SCOPES if name not in ("hostname", "type", "type-of-all")]
"""Scopes of which the oracle decides for tasks, too: a task has no single type or hostname."""

FILTERS = [
    "",
    "name=bank.*",
    "root_id=bank-uuid-1,shop-uuid-1",
    "uuid=bank-uuid-1,bank-uuid-18,shop-uuid-1",
    "parent_id=shop-uuid-1",
    "queue=bank-queue,shop-queue",
    "hostname=worker@*",
    "state=SUCCESS,PROGRESS",
    "name=!nothing",
    "type=task-*,audit-*",
]
"""What a client of the shop asks for."""


class Attacker:
    """A gateway that has received the events of a world, and the tokens of all scopes."""

    def __init__(self, folder: Path, may: tuple[str, ...]) -> None:
        memory = brokers("memory://")
        self.gateway = StateGateway(
            authenticator=Authenticator(issuer_file(folder)),
            max_tasks=40,
            wait_known_seconds=0.1,
            queues=Queues(memory),
            actions=Actions(ACTIONS, {None: TaskControl(memory[0], "attacked")}),
        )
        self.oracle = Oracle()
        self.epoch = self.gateway.pipeline.hub.id.decode().partition("-")[0]
        self._headers: dict[str, dict[str, str]] = {}
        for name, scope in SCOPES.items():
            claim = scope | {"may": list(may)}
            for number in range(4):  # several principals, so that no quota is reached
                text = token(celery_gateway=claim, sub=f"{name}-{number}")
                self._headers[f"{name}-{number}"] = {"authorization": f"Bearer {text}"}
        self.ids: dict[str, str] = {}

    def headers(self, scope: str, number: int = 0) -> dict[str, str]:
        return self._headers[f"{scope}-{number % 4}"]

    async def receive(self, part: list[dict[str, Any]]) -> None:
        """Process events, and wait until the last one is in the stream."""
        self.gateway.put(*part)
        self.oracle.receive(part)
        await until(lambda: self.gateway.pipeline.tasks.next_deadline is None)
        self.oracle.release()

    async def request(self, scope: str, target: str, **options: Any) -> Exchange:
        options["headers"] = self.headers(scope) | options.get("headers", {})
        return await Exchange(self.gateway.app, target, **options).done()

    async def find_ids(self) -> None:
        """Find the id of each event, as a client with all rights."""
        stream = await Exchange(
            self.gateway.app, "/events?since=earliest&format=ndjson", headers=self.headers("all", 3)
        ).until(lambda stream: len(stream.body.split(b"\n")) > len(self.oracle.emitted) + 2)
        self.ids = {message["mark"]: message["id"] for message in stream.messages if "mark" in message}
        stream.disconnect()
        await stream.done()

    def comparable(self, text: bytes) -> str:
        """A response without the log's own ids, and the times of the gateway's own clock."""
        plain = re.sub(rf"{self.epoch}-\d+~?", "ID", text.decode())
        plain = re.sub(r'"(since|retry_ms|time|first|last)":[\d.]+', r'"\1":0', plain)
        plain = re.sub(r'"buckets":\{[^}]*\}', '"buckets":{}', plain)
        return re.sub(r'"cursor":"[^"]*"', '"cursor":"…"', plain)


ALL_KINDS = ("events", "state", "workers")


@asynccontextmanager
async def worlds(folder: Path, seed: int, may: tuple[str, ...] = ALL_KINDS) -> AsyncIterator[Any]:
    """Two gateways, one with both tenants and one with the shop alone, after their early events."""
    both = world(seed)
    pair = Attacker(folder / "both", may), Attacker(folder / "alone", may)
    alone: World = both.without(BANK)
    for attacker, part in zip(pair, (both.early, alone.early), strict=True):
        await attacker.receive(part)
    yield pair, (both.late, alone.late)


# ------------------------------------------------------------------------------------------- streams

TRANSPORTS = ("sse", "ndjson", "post", "websocket", "websocket-filter", "websocket-open")
BEGINNINGS = ("", "since=earliest", "since=1h", "last_event_id={first}", "snapshot=1")


def stream(attacker: Attacker, scope: str, transport: str, query: str, number: int = 0) -> Exchange:
    """Begin a stream; with `websocket-*`, operations replace the filter later."""
    app, headers = attacker.gateway.app, attacker.headers(scope, number)
    if transport == "sse":
        return Exchange(app, f"/events?{query}", headers=headers)
    if transport == "ndjson":
        return Exchange(app, f"/events?{query}&format=ndjson", headers=headers)
    if transport == "post":
        return Exchange(
            app,
            "/events?format=ndjson",
            method="POST",
            headers=headers,
            body=json.dumps(as_json(query)).encode(),
        )
    first = "" if transport == "websocket-open" else query
    exchange = Exchange(app, f"/ws?{first}", headers=headers, subprotocols=())
    if transport == "websocket-filter":
        exchange.send_json({"op": "filter", "any": [{}]})
        exchange.send_json({"op": "filter", "any": as_json(query).get("any", [{}])})
    elif transport == "websocket-open":
        exchange.send_json({"op": "open"} | as_json(query))
    return exchange


def as_json(query: str) -> dict[str, Any]:
    """A query as the JSON of `POST /events`."""
    values: dict[str, Any] = {}
    for name, _, value in (pair.partition("=") for pair in query.split("&") if pair):
        if name in ("since", "last_event_id", "view", "max_event_bytes"):
            values[name] = value
        elif name == "snapshot":
            values[name] = True
        elif name == "fields":
            values[name] = value.split(",")
        else:
            values.setdefault("any", [{}])[0][name] = value.split(",")
    return values


def marks(exchange: Exchange) -> list[str]:
    """The marks of a stream's events, since it was opened last."""
    messages = exchange.messages
    begin = max(at for at, message in enumerate(messages) if message["type"] == "gateway-open")
    return [message["mark"] for message in messages[begin:] if "mark" in message]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_streams_carry_exactly_what_the_oracle_allows(tmp_path: Path, seed: int) -> None:
    """All scopes at the same time, so that shared work of the hub cannot mix them up."""
    both = world(seed)
    attacker = Attacker(tmp_path, ALL_KINDS)
    await attacker.receive(both.early)
    await attacker.find_ids()
    before = len(attacker.oracle.emitted)
    first = attacker.ids[attacker.oracle.emitted[0].mark]
    streams: dict[tuple[str, str, str], Exchange] = {}
    for index, (scope, beginning) in enumerate(product(SCOPES, BEGINNINGS)):
        transport = TRANSPORTS[(index + seed) % len(TRANSPORTS)]
        query = beginning.format(first=first)
        streams[scope, transport, beginning] = stream(attacker, scope, transport, query, index)
    for (_, transport, beginning), each in streams.items():
        count = 2 if transport == "websocket-open" else 1
        await each.until(lambda each, count=count: count_of('"gateway-open"', each) == count)  # type: ignore[misc]
        if beginning == "snapshot=1":
            await each.until(lambda each: count_of('"done":true', each))
        assert each.status in (101, 200), each.body
    shown_early = {scope: attacker.oracle.uuids(SCOPES[scope]) for scope in SCOPES}
    await attacker.receive(both.late)
    attacker.gateway.pipeline.hub.close()
    for (scope, transport, beginning), exchange in streams.items():
        await exchange.done()
        visible = attacker.oracle.events(SCOPES[scope])
        live = [mark for mark in visible if mark in {each.mark for each in attacker.oracle.emitted[before:]}]
        after_first = [mark for mark in visible if mark != attacker.oracle.emitted[0].mark]
        expected = {"last_event_id={first}": after_first, "since=earliest": visible, "since=1h": visible}
        assert marks(exchange) == expected.get(beginning, live), (scope, transport, beginning)
        if scope in COMPARABLE_TASKS:
            shown = {
                task["uuid"]
                for message in exchange.messages
                if message["type"] == "gateway-snapshot"
                for task in message["tasks"]
            }
            assert shown == (shown_early[scope] if beginning == "snapshot=1" else set()), (scope, transport)
        if scope in OF_THE_SHOP:
            assert_nothing_of_the_bank(exchange.messages)
            assert_nothing_hidden(exchange.messages, SCOPES[scope])


@pytest.mark.parametrize("scope", ["one-root", "not-name", "hidden", "both", "nothing"])
async def test_our_own_server_applies_scopes_too(tmp_path: Path, scope: str) -> None:
    """Its connections write streams themselves, in frames that streams of equal scopes share."""
    attacker = Attacker(tmp_path, ALL_KINDS)
    both = world(18)
    await attacker.receive(both.early)
    early = set(attacker.oracle.events(SCOPES[scope]))
    async with served(attacker.gateway, "direct") as port:
        streams: list[tuple[Stream, bool]] = []
        for number, (kind, query) in enumerate(product(KINDS, ("", "since=earliest", "view=record"))):
            query = "" if kind == "post" else query
            headers = list(attacker.headers(scope, number).items())
            made = await Stream(kind, headers, query=query).open(attacker.gateway.app, port)
            streams.append((made, query == "since=earliest"))
        await attacker.receive(both.late)
        attacker.gateway.pipeline.hub.close()
        visible = attacker.oracle.events(SCOPES[scope])
        for made, is_replay in streams:
            await asyncio.wait_for(made.task, 10)
            found = [message["mark"] for message in made.messages if "mark" in message]
            assert found == [mark for mark in visible if is_replay or mark not in early], made.kind
            if scope in OF_THE_SHOP:
                assert_nothing_of_the_bank(made.messages)
                assert_nothing_hidden(made.messages, SCOPES[scope])


def assert_nothing_of_the_bank(value: Any) -> None:
    found = [text for text in texts(value) if "bank" in text]
    assert not found, f"texts of the other tenant: {found[:5]}"


def assert_nothing_hidden(value: Any, scope: Mapping[str, Any]) -> None:
    hidden = set(scope.get("hide", ())) & set(texts(value))
    assert not hidden, f"hidden fields: {hidden}"


PATTERNS: dict[str, list[str]] = {
    "name": ["shop.*", "bank.*", "shop.pay", "*pay", "!bank.*", "!*", "?hop.pay", "!shop.pay", "*", "x"],
    "root_id": ["shop-uuid-1", "bank-uuid-1", "bank-*", "!bank-uuid-1", "*-1", "!*-1?"],
    "parent_id": ["shop-uuid-1", "*", "!shop-uuid-1", "bank-*"],
    "uuid": ["shop-uuid-1", "shop-*", "!bank-*", "*-4", "*-1?", "bank-uuid-18"],
    "queue": ["shop-queue", "!bank-queue", "*", "bank-queue"],
    "state": ["SUCCESS", "!SUCCESS", "RE*", "PROGRESS", "!PROGRESS"],
    "hostname": ["worker@*", "!worker@bank", "gen1@shop"],
    "type": ["task-*", "!task-progress", "task-succeeded", "audit-*", "*"],
    "cluster": ["*", "!x"],
}


def random_scope(dice: random.Random) -> Scope:
    """One to three filters, of one to three fields, with one to three patterns each."""
    return {
        "any": [
            {
                field: dice.sample(PATTERNS[field], dice.randint(1, min(3, len(PATTERNS[field]))))
                for field in dice.sample(list(PATTERNS)[: dice.choice((5, 8, 9))], dice.randint(1, 3))
            }
            for _ in range(dice.randint(1, 3))
        ]
    }


@pytest.mark.parametrize("seed", range(20, 24))
async def test_random_scopes_show_what_the_oracle_allows(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    both = world(seed)
    attacker = Attacker(tmp_path, ALL_KINDS)
    await attacker.receive(both.early)
    scopes = [random_scope(dice) for _ in range(60)]
    app = attacker.gateway.app
    opened = []
    for number, scope in enumerate(scopes):
        headers = {"authorization": f"Bearer {token(celery_gateway=scope, sub=f'random-{number}')}"}
        opened.append((headers, Exchange(app, "/events?since=earliest&format=ndjson", headers=headers)))
    for _, exchange in opened:
        await exchange.begun()
    await attacker.receive(both.late)
    for (headers, _), scope in zip(opened, scopes, strict=True):
        listed = json.loads((await Exchange(app, "/tasks?limit=1000", headers=headers).done()).body)["tasks"]
        if not {"type", "hostname"} & {field for filter in scope["any"] for field in filter}:
            assert {task["uuid"] for task in listed} == attacker.oracle.uuids(scope), scope
    attacker.gateway.pipeline.hub.close()
    for (_, exchange), scope in zip(opened, scopes, strict=True):
        assert marks(await exchange.done()) == attacker.oracle.events(scope), scope
    sizes = {len(attacker.oracle.events(scope)) for scope in scopes}
    assert len(sizes) > 10, "the scopes differ"


def count_of(text: str, exchange: Exchange) -> int:
    return "\n".join([exchange.body.decode(), *exchange.texts]).count(text)


STREAM_QUERIES = [
    *FILTERS,
    "snapshot=1",
    "since=earliest&view=record",
    "since=earliest&fields=args,state,mark,children,note",
    "since=earliest&max_event_bytes=2000",
    "snapshot=1&view=record&uuid=shop-uuid-1,bank-uuid-1",
    "last_event_id=unknown-1&since=earliest",
    "since=earliest&root_id=shop-uuid-1",
    "since=1h&name=*",
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 5])
async def test_streams_are_the_same_without_the_other_tenant(tmp_path: Path, seed: int) -> None:
    async with worlds(tmp_path, seed) as (pair, lates):
        opened: list[dict[tuple[str, str], Exchange]] = []
        for attacker, late in zip(pair, lates, strict=True):
            streams: dict[tuple[str, str], Exchange] = {}
            for index, (scope, query) in enumerate(product(OF_THE_SHOP, STREAM_QUERIES)):
                transport = TRANSPORTS[(index + seed) % 4]
                streams[scope, query] = stream(attacker, scope, transport, query, index)
            for index, scope in enumerate(OTHERS):
                streams[scope, ""] = stream(attacker, scope, "ndjson", "snapshot=1", index)
            for each in streams.values():
                await each.begun()
            await attacker.receive(late)
            attacker.gateway.pipeline.hub.close()
            for each in streams.values():
                await each.done()
            opened.append(streams)
        assert_same(pair, opened)


def assert_same(pair: tuple[Attacker, Attacker], opened: list[dict[Any, Exchange]]) -> None:
    for key, exchange in opened[0].items():
        if key[0] not in OF_THE_SHOP:
            continue
        other = opened[1][key]
        assert exchange.status == other.status, key
        ours, theirs = (
            each.comparable(
                "\n".join(exchange.texts).encode()
                if exchange.texts
                else b"\n".join(line for line in exchange.body.split(b"\n") if not line.startswith(b"retry"))
            )
            for each, exchange in zip(pair, (exchange, other), strict=True)
        )
        assert ours == theirs, key


async def test_an_event_has_the_record_of_its_task_only_if_that_is_visible_now(tmp_path: Path) -> None:
    """A scope by state, for one, can show an event and not what has become of its task."""
    attacker = Attacker(tmp_path, ALL_KINDS)
    both = world(16)
    await attacker.receive([*both.early, *both.late])
    streams = {
        scope: await stream(attacker, scope, "ndjson", "since=earliest&view=record").begun()
        for scope in COMPARABLE_TASKS
    }
    attacker.gateway.pipeline.hub.close()
    seen = set()
    for scope, exchange in streams.items():
        allowed = attacker.oracle.uuids(SCOPES[scope])
        for message in (await exchange.done()).messages:
            if "mark" in message and "uuid" in message:
                is_shown = message["record"] is not None
                assert is_shown == (message["uuid"] in allowed), (scope, message)
                seen.add(is_shown)
    assert seen == {True, False}


async def test_reports_of_streams_are_the_same_without_the_other_tenant(tmp_path: Path) -> None:
    """Workers and statistics; all scopes at the same time, since streams with equal scopes share them."""
    both = world(19)
    pair = Attacker(tmp_path / "both", ALL_KINDS), Attacker(tmp_path / "alone", ALL_KINDS)
    opened: list[dict[str, Exchange]] = []
    for attacker, part in zip(pair, (both, both.without(BANK)), strict=True):
        await attacker.receive([*part.early, *part.late])
        query = "workers=1&statistics=1s&type=none"
        streams = {scope: stream(attacker, scope, "ndjson", query) for scope in SCOPES}
        for scope, each in streams.items():
            await each.begun()
            await each.until(lambda each: count_of('"gateway-statistics"', each))
            if scope in ("all", "hostname"):
                await each.until(lambda each: count_of('"gateway-worker"', each))
            each.disconnect()
            await each.done()
        opened.append(streams)
    for scope in OF_THE_SHOP:
        ours, theirs = (
            sorted(attacker.comparable(streams[scope].body).splitlines())
            for attacker, streams in zip(pair, opened, strict=True)
        )
        assert ours == theirs, scope
        assert_nothing_of_the_bank(opened[0][scope].messages)
        assert_nothing_hidden(opened[0][scope].messages, SCOPES[scope])
    assert "bank" in opened[0]["all"].body.decode()


async def test_skipped_events_are_counted_within_a_scope(tmp_path: Path) -> None:
    attacker = Attacker(tmp_path, ALL_KINDS)
    both = world(19)
    await attacker.receive(both.early)
    streams = {
        scope: await stream(attacker, scope, "ndjson", "since=earliest&max_rate=1").begun()
        for scope in SCOPES
    }
    await attacker.receive(both.late)
    attacker.gateway.pipeline.hub.close()
    for scope, exchange in streams.items():
        await exchange.done()
        visible = attacker.oracle.events(SCOPES[scope])
        found = marks(exchange)
        assert [mark for mark in visible if mark in found] == found
        count = sum(message.get("count", 0) for message in exchange.messages)
        assert len(found) + count == len(visible), scope
        assert not visible or found


@pytest.mark.parametrize("order", [("all", "uuid"), ("uuid", "all")])
async def test_snapshots_at_the_same_time_share_nothing_across_scopes(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    """Of one task, by one filter: the children that others may see are not in the snapshot of the shop."""
    attacker = Attacker(tmp_path, ALL_KINDS)
    both = world(17)
    await attacker.receive([*both.early, *both.late])
    child = "bank-uuid-19"
    for query in (
        "uuid=shop-uuid-1&snapshot=1",
        "name=shop.pay&snapshot=1",
        "root_id=shop-uuid-1&snapshot=1",
    ):
        streams = {scope: stream(attacker, scope, "ndjson", query) for scope in order}
        for scope, exchange in streams.items():
            await exchange.until(lambda exchange: count_of('"done":true', exchange))
            (shown,) = [
                task["children"]
                for message in exchange.messages
                for task in message.get("tasks", ())
                if task["uuid"] == "shop-uuid-1"
            ]
            assert (child in shown) == (scope == "all"), (scope, query)
            exchange.disconnect()
            await exchange.done()


async def test_a_stream_resumes_after_any_event_of_others_without_a_word_about_it(tmp_path: Path) -> None:
    attacker = Attacker(tmp_path, ALL_KINDS)
    both = world(6)
    await attacker.receive([*both.early, *both.late])
    await attacker.find_ids()
    emitted = [each.mark for each in attacker.oracle.emitted]
    visible = attacker.oracle.events(SCOPES["name"])
    streams = {}
    for index, mark in enumerate(emitted):
        headers, query = attacker.headers("name", index), f"&last_event_id={attacker.ids[mark]}"
        if index % 2:
            headers, query = headers | {"last-event-id": attacker.ids[mark]}, ""
        streams[mark] = Exchange(attacker.gateway.app, f"/events?format=ndjson{query}", headers=headers)
    for each in streams.values():
        await each.begun()
    attacker.gateway.pipeline.hub.close()
    for mark, each in streams.items():
        await each.done()
        later = set(emitted[emitted.index(mark) + 1 :])
        assert marks(each) == [mark for mark in visible if mark in later]
        assert {message["type"] for message in each.messages if "mark" not in message} <= {
            "gateway-open",
            "gateway-status",
            "gateway-close",
        }


async def test_waiting_for_what_is_not_visible_is_like_waiting_for_what_is_unknown(tmp_path: Path) -> None:
    """`until=ready`: the same messages at the same time, and the same 204 for those that come back."""
    async with worlds(tmp_path, 7) as (pair, lates):
        attacker = pair[0]
        await attacker.receive(lates[0])
        await attacker.find_ids()

        async def wait(uuid: str, **more: str) -> str:
            query = "&".join(f"{name}={value}" for name, value in more.items())
            target = f"/events?uuid={uuid}&until=ready&format=ndjson&{query}"
            exchange = await attacker.request("name", target)
            return f"{exchange.status} " + attacker.comparable(exchange.body).replace(uuid, "UUID")

        queries: tuple[dict[str, str], ...] = (
            {},
            {"snapshot": "1"},
            {"since": "earliest"},
            {"last_event_id": attacker.ids["bank-1"]},
        )
        uuids = ("nobody-1", "bank-uuid-1", "bank-uuid-2", "bank-uuid-5", "bank-uuid-17", "shop-uuid-5")
        for query in (*queries, *queries):  # the second time the end is remembered
            ends = await asyncio.gather(*(wait(uuid, **query) for uuid in uuids))
            assert len(set(ends)) == 1, (query, ends)
            assert '"reason":"unknown"' in ends[0] or ends[0] == "204 "
        assert '"reason":"ready"' in await wait("shop-uuid-1")
        for root in ("bank-uuid-1", "unknown-uuid-1", "shop-uuid-1"):
            refused = await attacker.request("name", f"/events?root_id={root}&until=ready")
            assert refused.status == 403, "the scope has no root, so it cannot wait for a workflow"
        ended = await attacker.request("one-root", "/events?root_id=shop-uuid-1&until=ready&quiet_time=0")
        assert ended.messages[-1]["reason"] == "ready"
        assert ended.messages[-1]["known"] == 3, "tasks that lie about their root are not counted"


# --------------------------------------------------------------------------------------------- state

FIELDS = "fields=uuid,name,state,children,attempts,args,result"
SPELLINGS = {"shop-uuid-1": "shop%2Duuid%2D1", "bank-uuid-1": "bank%2Duuid-1"}


def targets() -> Iterator[str]:
    """Requests for state that do not depend on ids of events."""
    uuids = [f"{tenant}-uuid-{n}" for tenant in (SHOP, BANK) for n in (1, 2, 3, 4, 5, 6, 9, 17, 18, 19)]
    for filter in FILTERS:
        yield f"/tasks?{filter}".rstrip("?").replace("type=task-*,audit-*", "type=task-*")
    yield from ("/tasks?limit=1", f"/tasks?{FIELDS}", "/tasks?cluster=x", "/tasks?limit=1000&state=!SUCCESS")
    for uuid in [*uuids, *SPELLINGS.values(), "unknown"]:
        for kind in ("tasks", "workflows"):
            yield f"/{kind}/{uuid}"
            yield f"/{kind}/{uuid}?{FIELDS}"
            yield f"/{kind}/{uuid}?cluster=x"
        yield f"/tasks/{uuid}/"
        yield f"/tasks/{uuid}%2F"
    yield from ("/workers", "/workers?hostname=worker@*", "/workers?fields=processed", "/workers?cluster=!x")
    yield from ("/statistics", "/statistics?window=24h&name=shop.*,bank.*", "/statistics?cluster=!x")
    yield from ("/failures", "/failures?name=bank.*", "/failures?limit=1&since=1h")
    yield from ("/queues", "/queues?queue=bank-queue", "/queues?queue=!x&format=json", "/queues?name=x")
    yield from ("/metrics", "/", "/healthz", "/readyz", "/tasks/", "/workflows/", "/workflows", "/workers/")
    yield from ("/unknown", "//events", "//tasks", "/tasks//bank-uuid-1", "/tasks/../tasks/bank-uuid-1")
    yield from ("/%74asks", "/tasks%2Fbank-uuid-1", "/tasks/%2e%2e/bank-uuid-1", "/tasks?unknown=1")
    yield from ("/tasks?fields=unknown", "/tasks?cursor=x", "/tasks?uuid=", "/tasks?args=x", "/tasks?q=bank")
    yield from list_targets()


LISTS = [
    *("q=bank", "q=shop", "q=bank-uuid-1", "q=shop-uuid-1", "q=BANK%20ARGS", "q=lies", "q=", "since=1h"),
    *("since=1m&before=1s", "before=1h", "limit=1", "limit=2&sort=oldest", "format=json", "format=html"),
    *("state=SUCCESS,running", "queue=bank-queue", "root_id=bank-uuid-1,shop-uuid-1", "name=!x", "x>1"),
]
"""Parameters of the lists of tasks and workflows, and of the numbers of tasks."""


def list_targets() -> Iterator[str]:
    for path in ("/tasks", "/tasks/counts", "/workflows"):
        yield from (f"{path}?{query}" for query in LISTS)
        yield f"{path}?q=bank&cluster=!x"
    for order in ("begun", "-started", "ended", "-runtime", "queued_seconds", "-attempt", "progress"):
        yield f"/tasks?sort={order}"
        yield f"/tasks?sort={order}&limit=2&q=shop"
    for comparison in (
        "runtime>=1",
        "queued_seconds<5",
        "attempt=1",
        "retries>0",
        "progress<=0.5",
        "stale=0",
    ):
        yield f"/tasks?{comparison}"
        yield f"/tasks/counts?{comparison}&by=hostname,queue"
    yield from ("/tasks/counts", "/tasks/counts?by=state,name,queue,hostname", "/tasks/counts/")
    yield from ("/workflows?state=waiting", "/workflows?state=failed,!lost", "/workflows?total>=2&failed<1")
    yield from ("/workflows?ready=1&sort=oldest", "/workflows?fields=counts,begun", "/workflows?uuid=bank-*")
    for hostname in ("worker@shop", "worker@bank", "gen1@bank", "unknown", "worker%40bank", "worker@bank/"):
        yield f"/workers/{hostname}"
        yield f"/workers/{hostname}?fields=processed,active&format=json"
        yield f"/workers/{hostname}?cluster=x"


METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [8, 9])
async def test_state_is_the_same_without_the_other_tenant(tmp_path: Path, seed: int) -> None:
    async with worlds(tmp_path, seed) as (pair, lates):
        for attacker, late in zip(pair, lates, strict=True):
            await attacker.receive(late)
        for scope in OF_THE_SHOP:
            for target in targets():
                number = sum(map(ord, scope + target))
                if seed == 8 and number % 2:
                    continue
                method = "GET" if seed == 8 else METHODS[number % len(METHODS)]
                responses = [await each.request(scope, target, method=method) for each in pair]
                compared = [comparable(*each) for each in zip(pair, responses, strict=True)]
                assert compared[0] == compared[1], (scope, method, target)
                body = responses[0].body.decode()
                if "bank" not in target and target != "/metrics":
                    assert "bank" not in body, (scope, method, target)
                if responses[0].status == 200 and body.startswith("{"):
                    assert_nothing_hidden(json.loads(body), SCOPES[scope])


def comparable(attacker: Attacker, response: Exchange) -> tuple[int, dict[str, str], str]:
    """A response: its `ETag` counts, unless it depends on a cursor, or on a time of the gateway."""
    body = attacker.comparable(response.body)
    is_own = "…" in body or '"since"' in body or '"time":0' in body or '"last":0' in body
    is_own = is_own or not body
    ignored = {"content-length"} | ({"etag"} if is_own else set())
    headers = {name: value for name, value in response.headers.items() if name not in ignored}
    return response.status, headers, body


@pytest.mark.parametrize("seed", [10, 11])
async def test_state_is_what_the_oracle_allows(tmp_path: Path, seed: int) -> None:
    both = world(seed)
    attacker = Attacker(tmp_path, ALL_KINDS)
    await attacker.receive([*both.early, *both.late])
    await attacker.find_ids()
    for scope in SCOPES:
        events = set(attacker.oracle.events(SCOPES[scope]))
        for mark, id in attacker.ids.items():
            response = await attacker.request(scope, f"/events/{id}")
            assert (response.status == 200) == (mark in events), (scope, mark)
            if response.status == 200:
                assert json.loads(response.body)["mark"] == mark
        if scope not in COMPARABLE_TASKS:
            continue
        allowed = attacker.oracle.uuids(SCOPES[scope])
        listed = json.loads((await attacker.request(scope, "/tasks?limit=1000")).body)["tasks"]
        assert {task["uuid"] for task in listed} == allowed, scope
        assert all(set(task["children"]) <= allowed for task in listed), scope
        paged = [uuid async for uuid in pages(attacker, scope)]
        assert sorted(paged) == sorted(allowed), "each page has the visible tasks only, and all are found"
        for uuid in attacker.oracle.tasks:
            response = await attacker.request(scope, f"/tasks/{uuid}")
            assert response.status == (200 if uuid in allowed else 404), (scope, uuid)
        for root in {"shop-uuid-1", "bank-uuid-1", "bank-uuid-18", "shop-uuid-6"}:
            response = await attacker.request(scope, f"/workflows/{root}")
            members = set(re.findall(r'"uuid":"([^"]*)"', response.body.decode()))
            assert members <= allowed, (scope, root)
            assert response.status in (200, 404)
            if response.status == 200:
                assert json.loads(response.body)["total"] == len(members) > 0


async def pages(attacker: Attacker, scope: str) -> AsyncIterator[str]:
    cursor = ""
    while True:
        page = json.loads((await attacker.request(scope, f"/tasks?limit=2&{cursor}")).body)
        for task in page["tasks"]:
            yield task["uuid"]
        if page["cursor"] is None:
            return
        assert len(page["tasks"]) == 2, "a page is not shorter for tasks that are not visible"
        cursor = f"cursor={page['cursor']}"


async def test_unknown_evicted_and_foreign_are_the_same_404(tmp_path: Path) -> None:
    attacker = Attacker(tmp_path, ALL_KINDS)
    both = world(12)
    await attacker.receive([*both.early, *both.late])
    await attacker.find_ids()
    flood = Oracle()
    many = [
        {"type": "task-received", "uuid": f"bank-many-{n}", "name": "bank.pay", "root_id": f"bank-many-{n}"}
        | {"hostname": "worker@bank", "timestamp": time.time(), "mark": f"bank-many-{n}", "parent_id": None}
        for n in range(80)
    ]
    flood.receive(many)
    attacker.gateway.put(*many)
    evicted = [uuid for uuid in attacker.oracle.tasks if not attacker.gateway.pipeline.tasks.find(uuid)]
    assert "bank-uuid-1" in evicted and attacker.gateway.pipeline.tasks.was_evicted("bank-uuid-1")
    assert b"evicted" in (await attacker.request("all", "/tasks/bank-uuid-1")).body
    for scope in OF_THE_SHOP:
        for kind in ("tasks", "workflows"):
            bodies = {
                (await attacker.request(scope, f"/{kind}/{uuid}")).body.decode().replace(uuid, "UUID")
                for uuid in ("unknown-1", "bank-many-79", "bank-uuid-1", "bank-uuid-18", "bank-uuid-5")
            }
            assert len(bodies) == 1, (scope, kind, bodies)
    uuids = ("unknown-1", "bank-uuid-1", "bank-many-79")
    streams = {
        (scope, uuid): stream(attacker, scope, "ndjson", f"uuid={uuid}&until=ready")
        for scope, uuid in product(OF_THE_SHOP, uuids)
    }
    for scope in OF_THE_SHOP:
        ends = {
            attacker.comparable((await streams[scope, uuid].done()).body).replace(uuid, "UUID")
            for uuid in uuids
        }
        assert len(ends) == 1, scope


async def test_a_large_foreign_workflow_is_unknown_and_no_error(tmp_path: Path) -> None:
    """A limit of memory must not be reached by what is not visible."""
    gateway = StateGateway(authenticator=Authenticator(issuer_file(tmp_path)), memory_bytes=1 << 20)
    gateway.put(*(known(f"bank-{n}", "bank-0", name="bank.pay", args="x" * 2_000) for n in range(1_000)))
    gateway.put(known("shop-1", "bank-0"))
    scopes = {"all": {}, "shop": {"any": [{"name": "shop.*"}]}, "none": {"any": [{"name": "x.*"}]}}
    answers = {}
    for name, scope in scopes.items():
        headers = {"authorization": f"Bearer {token(celery_gateway=scope, sub=name)}"}
        exchange = await Exchange(gateway.app, "/workflows/bank-0", headers=headers).done()
        answers[name] = exchange.status, exchange.body
    assert answers["all"][0] in (429, 503), "the control"
    assert json.loads(answers["shop"][1])["total"] == 1
    headers = {"authorization": f"Bearer {token(celery_gateway=scopes['none'], sub='none')}"}
    unknown = await Exchange(gateway.app, "/workflows/bank-x", headers=headers).done()
    assert answers["none"] == (404, unknown.body.replace(b"bank-x", b"bank-0"))


async def test_no_etag_confirms_what_is_not_visible(tmp_path: Path) -> None:
    attacker = Attacker(tmp_path, ALL_KINDS)
    both = world(13)
    await attacker.receive([*both.early, *both.late])
    await attacker.find_ids()
    paths = ["/tasks", "/tasks/bank-uuid-1", "/workflows/bank-uuid-1", "/workers", "/tasks?name=bank.*"]
    paths += [f"/events/{id}" for mark, id in attacker.ids.items() if mark.startswith("bank")]
    for path in paths:
        full = await attacker.request("all", path)
        etag = full.headers["etag"]
        for scope in ("name", "root", "uuid-glob", "nothing", "hidden"):
            for given in (etag, etag.removeprefix("W/"), "*", f'"x", {etag}'):
                plain = await attacker.request(scope, path)
                asked = await attacker.request(scope, path, headers={"if-none-match": given})
                if given == "*" and plain.status == 200:
                    assert asked.status == 304
                else:
                    assert asked.status == plain.status and asked.body == plain.body, (scope, path, given)


async def test_a_cursor_shows_no_numbers_and_takes_none(tmp_path: Path) -> None:
    """The number of a task in the table would show how many tasks others have."""
    async with worlds(tmp_path, 14) as (pair, _):
        cursors = [json.loads((await each.request("name", "/tasks?limit=1")).body)["cursor"] for each in pair]
        epoch, _, rest = cursors[0].partition("-")
        again = json.loads((await pair[0].request("name", "/tasks?limit=1")).body)["cursor"]
        assert not rest.isdigit() or len(rest) > 20
        other = f"{int(rest[-1], 16) ^ 1:x}"
        for tampered in (
            f"{epoch}-1",
            f"{epoch}-{rest[:-1]}",
            f"{epoch}-{rest[:-1]}{other}",
            f"{epoch}-{rest}0",
        ):
            refused = await pair[0].request("name", f"/tasks?limit=1&cursor={tampered}")
            assert refused.status == 400, tampered
        assert again == cursors[0], "else the ETag of a page would never be the same"
        page = json.loads((await pair[0].request("name", f"/tasks?cursor={again}")).body)
        assert page["tasks"] and all(task["name"] == "shop.pay" for task in page["tasks"])


# ---------------------------------------------------------------------------------- may, and routes


@pytest.mark.parametrize("may", [(), ("events",), ("state",), ("workers",), ("metrics",), ("dashboard",)])
async def test_each_kind_of_endpoint_has_to_be_allowed(tmp_path: Path, may: tuple[str, ...]) -> None:
    async with worlds(tmp_path, 15, may) as (pair, lates):
        attacker = pair[0]
        await attacker.receive(lates[0])
        kinds = {
            "/events": "events",
            "/events?format=ndjson": "events",
            "/events/x-1": "events",
            "/tasks": "state",
            "/tasks/bank-uuid-1": "state",
            "/tasks/%2F": "state",
            "/workflows/bank-uuid-1": "state",
            "/tasks/counts": "state",
            "/workflows": "state",
            "/workers/worker@bank": "workers",
            "/workers": "workers",
            "/queues": "workers",
            "/statistics": "state",
            "/failures": "state",
            "/metrics": "metrics",
            "/": "dashboard",
        }
        for scope, (path, kind), method in product(("all", "name"), kinds.items(), ("GET", "HEAD")):
            response = Exchange(attacker.gateway.app, path, method=method, headers=attacker.headers(scope))
            await response.until(lambda response: response.status)
            assert (response.status == 403) == (kind not in may), (scope, path, method)
            if response.status == 403:
                await response.done()
                assert 'error="insufficient_scope"' in response.headers["www-authenticate"]
                assert "bank" not in response.body.decode().replace(path, "")
            response.disconnect()
            await response.done()
        for query in ("", "snapshot=1", "view=record"):
            needed = {"events"} | ({"state"} if query else set())
            for transport in ("sse", "ndjson", "post", "websocket"):
                opened = await stream(attacker, "name", transport, query).begun()
                assert (opened.status in (101, 200)) == (needed <= set(may)), (transport, query)
                for message in opened.messages if opened.status in (101, 200) else ():
                    assert not message.get("workers"), "workers need a right of their own"
                opened.disconnect()
                await opened.done()
        operated = await Exchange(
            attacker.gateway.app, "/ws", headers=attacker.headers("name"), subprotocols=()
        ).begun()
        if operated.status == 101:
            operated.send_json({"op": "open", "snapshot": True})
            await operated.until(lambda each: any("forbidden" in text for text in each.texts))
            operated.disconnect()
            await operated.done()


async def test_actions_reach_only_what_a_scope_shows(tmp_path: Path) -> None:
    """Also the responses are the same as without the other tenant."""
    may = (*ALL_KINDS, *ACTIONS)
    async with worlds(tmp_path, 26, may) as (pair, lates):
        for attacker, late in zip(pair, lates, strict=True):
            await attacker.receive(late)
        json_headers = {"content-type": "application/json"}
        revoked: set[str] = set()
        for scope, uuid, kind in product(OF_THE_SHOP, (1, 2, 4, 5, 9, 17), ("tasks", "workflows")):
            for tenant in (SHOP, BANK):
                target = f"/{kind}/{tenant}-uuid-{uuid}/revoke"
                responses = [
                    await each.request(scope, target, method="POST", headers=json_headers) for each in pair
                ]
                compared = [comparable(*each) for each in zip(pair, responses, strict=True)]
                assert compared[0] == compared[1], (scope, target)
                assert responses[0].status in (202, 404, 409), responses[0].body
                if responses[0].status == 202:
                    found = set(json.loads(responses[0].body)["revoked"])
                    if scope in COMPARABLE_TASKS:
                        assert found <= pair[0].oracle.uuids(SCOPES[scope]), (scope, target)
                    assert_nothing_of_the_bank(sorted(found))
                    revoked |= found
        assert revoked, "some tasks of the shop are not ready"


async def test_metrics_name_no_task_and_no_principal(tmp_path: Path) -> None:
    attacker = Attacker(tmp_path, ("metrics", "events", "state"))
    both = world(25)
    await attacker.receive([*both.early, *both.late])
    for scope in ("all", "name"):
        await attacker.request(scope, "/tasks")
        metrics = (await attacker.request(scope, "/metrics")).body.decode()
        assert "celery_gateway_tasks_known" in metrics
        assert not re.search("shop|bank|uuid|worker@", metrics)


async def test_a_mounted_application_applies_scopes_too(tmp_path: Path) -> None:
    attacker = Attacker(tmp_path, ALL_KINDS)
    both = world(19)
    await attacker.receive([*both.early, *both.late])
    app = Starlette(routes=[Mount("/celery", attacker.gateway.app)])
    for scope in ("name", "one-root", "nothing"):
        listed = await Exchange(app, "/celery/tasks", headers=attacker.headers(scope)).done()
        tasks = json.loads(listed.body)["tasks"]
        assert {task["uuid"] for task in tasks} == attacker.oracle.uuids(SCOPES[scope])
        for path in ("/celery/tasks/bank-uuid-1", "/celery/workflows/bank-uuid-1"):
            assert (await Exchange(app, path, headers=attacker.headers(scope)).done()).status == 404
            assert (await Exchange(app, path).done()).status == 401
    for path in ("/tasks", "/celery/celery/tasks", "/celery//tasks", "//celery/tasks"):
        assert (await Exchange(app, path, headers=attacker.headers("all")).done()).status == 404


@pytest.mark.parametrize("prefix", ["", "/celery"])
async def test_variants_of_a_path_need_a_token_or_do_not_exist(tmp_path: Path, prefix: str) -> None:
    gateway = StateGateway(authenticator=Authenticator(issuer_file(tmp_path)), root_path=prefix)
    gateway.put(known("bank-uuid-1", name="bank.pay"))
    variants = ("//tasks", "/tasks/", "/%74asks", "/TASKS", "/tasks/bank-uuid-1", "/tasks%2fbank-uuid-1")
    variants += ("/./tasks", "/x/../tasks", "/tasks;x", "/tasks%00", "/tasks/bank-uuid-1/", "/celery/tasks")
    variants += ("/celery/celery/tasks", "/celery", "/events/", "//events", "/ws", "/metrics/", "/workers%20")
    for variant, method in product((*variants, *(quote(v, safe="/") for v in variants)), METHODS):
        for root in {"", prefix}:
            response = await Exchange(gateway.app, root + variant, method=method).done()
            assert response.status in (204, 307, 401, 404, 405, 426), (variant, method, response.status)
            assert b"bank.pay" not in response.body
