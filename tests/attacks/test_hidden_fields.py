"""Hidden fields cannot be read or probed: two gateways that differ in these fields alone answer the same.

That covers whatever depends on them: lengths, ETags, truncation, filters, errors, aggregates of workflows.
"""

import asyncio
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from celery_gateway.access.authenticator import Authenticator
from tests.support.asgi_exchange import Exchange
from tests.support.state_gateway import StateGateway
from tests.support.token_issuer import issuer_file, token
from tests.support.two_tenants import SHOP, events_of, recently, texts

pytestmark = pytest.mark.unit

HIDDEN: dict[str, list[str]] = {
    "args": ["args"],
    "call": ["args", "kwargs", "eta", "expires"],
    "result": ["result"],
    "error": ["exception", "traceback"],
    "custom": ["note"],
    "progress": ["progress"],
    "runtime": ["runtime"],
    "route": ["queue", "routing_key", "exchange"],
    "place": ["hostname", "worker", "client"],
}
MORE = ("/workflows/shop-uuid-6", "/workers")
QUERIES = [
    "since=earliest",
    "since=earliest&view=record",
    "since=earliest&max_event_bytes=2000",
    "since=earliest&view=record&max_event_bytes=2000",
    "snapshot=1",
    "snapshot=1&view=record&max_event_bytes=2000",
    "since=earliest&fields={fields}",
    "since=earliest&fields={fields},state&view=record",
    "snapshot=1&fields={fields}",
    "uuid=shop-uuid-1&until=ready",
]


def values(field: str, variant: int) -> Any:
    """A value of a field in one of two worlds: short in one, and long in the other."""
    if field in ("progress", "runtime"):
        return 0.25 * variant
    if field == "eta":
        return f"2030-01-0{variant}T00:00:00+00:00"
    if field == "expires":
        return None if variant == 1 else "2030-01-01T00:00:00+00:00"
    if field == "hostname":
        return f"machine{variant}@host"
    return f"SECRET {variant}" if variant == 1 else f"SECRET {variant} " + "x" * 5_000


def events(hidden: list[str], variant: int, begin: float) -> list[dict[str, Any]]:
    made = []
    for event in events_of(SHOP, begin):
        changed = {field: values(field, variant) for field in hidden if field in event}
        if event["type"] == "task-sent" and "routing_key" in hidden:
            changed |= {
                "routing_key": values("routing_key", variant),
                "exchange": values("exchange", variant),
            }
        if event["type"] == "task-sent" and "hostname" in hidden:
            changed["hostname"] = f"gen{variant}@host"
        if not (event["type"].startswith("worker-") and "hostname" in hidden):  # workers have no other name
            made.append(event | changed)
    return made


class Hidden:
    """A gateway in one of two worlds, and a token that hides what is different."""

    def __init__(
        self, folder: Path, hidden: list[str], variant: int, begin: float, *, max_event_bytes: int = 0
    ) -> None:
        self.gateway = StateGateway(
            authenticator=Authenticator(issuer_file(folder)), max_event_bytes=max_event_bytes
        )
        self.gateway.put(*events(hidden, variant, begin))
        pipeline = self.gateway.pipeline  # what waits for the name of its task goes on now, in both worlds
        pipeline._emit(pipeline.tasks.release_all(asyncio.get_running_loop().time(), None))
        self._epoch = self.gateway.pipeline.hub.id.decode().partition("-")[0]
        scope = {"any": [{"uuid": "*"}], "hide": hidden, "may": ["events", "state", "workers"]}
        self.headers = {"authorization": f"Bearer {token(celery_gateway=scope)}"}

    def begin(self, target: str) -> Exchange:
        return Exchange(self.gateway.app, target.replace("{epoch}", self._epoch), headers=self.headers)

    def comparable(self, response: Exchange) -> tuple[int, str, str]:
        text = response.body.decode().replace(self._epoch, "EPOCH")
        text = re.sub(r'"(since|retry_ms)":[\d.]+', r'"\1":0', text)
        text = re.sub(r'"cursor":"[^"]*"', '"cursor":"…"', text)
        etag = response.headers.get("etag", "").replace(self._epoch, "EPOCH")
        return response.status, "" if "…" in text or '"since"' in text else etag, text


def targets(fields: list[str]) -> Iterator[str]:
    some = ",".join(fields)
    for path in ("/tasks", "/tasks/shop-uuid-1", "/tasks/shop-uuid-3", "/workflows/shop-uuid-1", *MORE):
        yield path
        yield f"{path}?fields=uuid,{some}" if path != "/workers" else f"{path}?fields={some}"
        yield f"{path}?fields=attempts,custom,uuid"
    yield "/tasks?limit=1"
    for number in range(1, 20):
        yield f"/events/{{epoch}}-{number}"
        yield f"/events/{{epoch}}-{number}?fields={some}"
    for field, pattern in product(fields, ("*", "SECRET*", "!SECRET 1", "machine1@host")):
        yield f"/tasks?{field}={pattern}"
        yield f"/events?{field}={pattern}&until=ready"
        yield f"/workers?{field}={pattern}"
    yield from (f"/tasks?q={some}", f"/tasks?sort={some}", f"/tasks?fields={some}x")
    for path in ("/tasks", "/tasks/counts", "/workflows"):
        yield from (f"{path}?q=SECRET", f"{path}?q=1", f"{path}?q=xxxx", f"{path}?since=1h", path)
        yield from (f"{path}?{field}>0.3" for field in fields)
        yield from (f"{path}?{field}=0.5" for field in ("runtime", "progress", "queued_seconds"))
    yield from (f"/tasks?sort={sign}{field}" for field in fields for sign in ("", "-"))
    yield from (f"/tasks?sort={order}" for order in ("-runtime", "-progress", "ended", "begun"))
    yield from (f"/tasks/counts?by={field}" for field in ("state", "name", "queue", "hostname"))
    yield from ("/workflows?fields=progress", "/workers/worker@shop", f"/workers/worker@shop?fields={some}")


@pytest.mark.parametrize("name", HIDDEN)
async def test_responses_do_not_depend_on_hidden_fields(tmp_path: Path, name: str) -> None:
    hidden = HIDDEN[name]
    begin = recently()  # the same for both
    pair = [Hidden(tmp_path, hidden, variant, begin) for variant in (1, 2)]
    for target in targets(hidden):
        responses = [await each.begin(target).done() for each in pair]
        compared = [each.comparable(response) for each, response in zip(pair, responses, strict=True)]
        assert compared[0] == compared[1], target
        assert "SECRET" not in compared[0][2].replace(target.partition("=")[2], ""), target
    formats = ("", "&format=ndjson")
    queries = [f"{query.format(fields=','.join(hidden))}{format}" for query in QUERIES for format in formats]
    streams = [{query: each.begin(f"/events?{query}") for query in queries} for each in pair]
    for each in (*streams[0].values(), *streams[1].values()):
        await each.begun()
    for gateway in pair:
        gateway.gateway.pipeline.hub.close()
    for query in queries:
        first, second = [await each[query].done() for each in streams]
        texts_of = [
            re.sub(r"retry: ?\d+", "", each.comparable(stream)[2])
            for each, stream in zip(pair, (first, second), strict=True)
        ]
        assert texts_of[0] == texts_of[1], query
        assert "SECRET" not in texts_of[0]


@pytest.mark.parametrize("name", ["args", "call", "result", "error", "custom"])
async def test_truncation_names_no_hidden_field(tmp_path: Path, name: str) -> None:
    """An event above `--max-event-bytes` is cut before fields are removed: its list of names is filtered."""
    each = Hidden(tmp_path, HIDDEN[name], 2, recently(), max_event_bytes=2_000)
    streams = [each.begin(f"/events?{query}") for query in ("since=earliest", "since=earliest&view=record")]
    streams += [each.begin("/events?since=earliest&fields=state,mark&format=ndjson")]
    for stream in streams:
        await stream.begun()
    each.gateway.pipeline.hub.close()
    for stream in streams:
        messages = (await stream.done()).messages
        assert any(message.get("mark") == "shop-2" for message in messages)
        assert not set(HIDDEN[name]) & set(texts(messages))


async def test_a_hidden_field_cannot_be_filtered_in_any_way(tmp_path: Path) -> None:
    each = Hidden(tmp_path, ["queue", "hostname"], 1, recently())
    for path in ("/events", "/tasks", "/ws"):
        for field in ("queue", "hostname"):
            for pattern in ("x", "*", "!x", ""):
                target = f"{path}?{field}={pattern}"
                if path == "/ws":
                    handshake = Exchange(each.gateway.app, target, headers=each.headers, subprotocols=())
                    assert (await handshake.done()).status in (400, 403)
                else:
                    assert (await each.begin(target).done()).status in (400, 403), target
    assert (await each.begin("/workers?hostname=*").done()).status == 403
    for hostname in ("worker@shop", "unknown@host"):
        assert (await each.begin(f"/workers/{hostname}").done()).status == 403
    opened = await Exchange(each.gateway.app, "/ws", headers=each.headers, subprotocols=()).begun()
    filters = [{"any": [{"queue": ["*"]}]}, {"any": [{"name": "x"}, {"hostname": "!x"}]}]
    for filter in filters:
        opened.send_json({"op": "filter"} | filter)
        opened.send_json({"op": "open"} | filter)
        opened.send_json({"op": "open", "snapshot": filter["any"]})
    await opened.until(lambda opened: len(errors(opened)) == 3 * len(filters))
    assert {error["code"] for error in errors(opened)} == {"forbidden"}
    opened.disconnect()
    await opened.done()


def errors(opened: Exchange) -> list[dict[str, Any]]:
    return [message for message in opened.messages if message["type"] == "gateway-error"]
