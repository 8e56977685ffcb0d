"""Events with the records of their tasks: what is looked up, shared, replaced and truncated."""

import gc
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.events.event import encode
from celery_gateway.events.fields import ALL_FIELDS, Fields
from celery_gateway.stream import record_view as views
from celery_gateway.stream.framing import FORMATS, WEBSOCKET, text_message
from celery_gateway.stream.record_view import RecordView, record_view
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

NDJSON = FORMATS["ndjson"]
RECORD = {"uuid": "u", "state": "STARTED", "result": None}
EVENT = {"id": "e-1", "type": "task-started", "uuid": "u", "state": "STARTED"}
Asked = tuple[str, str | None, frozenset[str] | None]


class Table:
    """Returns records, and keeps what it was asked for."""

    def __init__(self, **records: dict[str, Any]) -> None:
        self.records = records
        self.asked: list[Asked] = []

    def find(self, uuid: str, cluster: str | None, fields: Fields) -> bytes | None:
        self.asked.append((uuid, cluster, fields))
        record = self.records.get(uuid)
        return None if record is None else encode(record)


def write(view: RecordView, event: dict[str, Any]) -> Any:
    return json.loads(view.event(b"e-1", encode(event)))


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"uuid": "u"}, ("u", None)),
        ({"uuid": "u", "cluster": "eu"}, ("u", "eu")),
        ({"uuid": "u", "cluster": {"of": "the application"}}, ("u", None)),
        ({"uuid": 12345}, ("12345", None)),
        ({"uuid": ["a", "\u2028"]}, ('["a","\u2028"]', None)),
        ({"uuid": ""}, ("", None)),
    ],
)
def test_a_record_is_looked_up_by_the_ids_of_the_event(
    fields: dict[str, Any], asked: tuple[str, str | None]
) -> None:
    table = Table()
    event = {"id": "e-1", "type": "task-started", **fields}
    assert write(record_view(NDJSON, ALL_FIELDS, 0, table.find), event) == event | {"record": None}
    assert table.asked == [(*asked, ALL_FIELDS)]


@pytest.mark.parametrize("fields", [{}, {"uuid": None}])
def test_an_event_without_a_uuid_has_no_record_and_keeps_its_own(fields: dict[str, Any]) -> None:
    table = Table()
    event = {"id": "e-1", "type": "worker-heartbeat", "record": 1, **fields}
    assert write(record_view(NDJSON, ALL_FIELDS, 0, table.find), event) == event
    assert table.asked == []


def test_a_field_of_the_application_is_replaced_not_repeated() -> None:
    table = Table(u=RECORD)
    for fields in (ALL_FIELDS, Fields(frozenset({"record", "state"}))):
        line = record_view(NDJSON, fields, 0, table.find).event(b"e-1", encode(EVENT | {"record": {"n": 1}}))
        assert line.count(b'"record"') == 1
        assert json.loads(line)["record"] == RECORD


def test_fields_are_those_of_the_event_and_of_the_record() -> None:
    table = Table(u=RECORD)
    fields = Fields(frozenset({"state"}))
    assert write(record_view(NDJSON, fields, 0, table.find), EVENT) == {
        "id": "e-1",
        "type": "task-started",
        "state": "STARTED",
        "record": RECORD,
    }
    assert table.asked == [("u", None, fields)]


def test_each_framing_writes_it_in_its_own_way() -> None:
    table = Table(u=RECORD)
    expected = encode(EVENT | {"record": RECORD})
    written = {
        NDJSON: expected + b"\n",
        FORMATS["sse"]: b"id: e-1\ndata: %b\n\n" % expected,
        WEBSOCKET: text_message(expected),
    }
    for framing, frame in written.items():
        view = record_view(framing, ALL_FIELDS, 0, table.find)
        assert view.event(b"e-1", encode(EVENT)) == frame
        assert view.keepalive(b"e-1") == framing.keepalive(b"e-1")


@settings(deadline=None, max_examples=tries(200))
@given(st.integers(0, 5_000), st.integers(0, 5_000), st.sampled_from([2_000, 3_000, 4_096, 8_192]))
def test_event_and_record_together_are_not_longer_than_the_limit(
    event_chars: int, record_chars: int, limit: int
) -> None:
    table = Table(u=RECORD | {"result": "r" * record_chars})
    event = EVENT | {"result": "r" * event_chars}
    line = record_view(NDJSON, ALL_FIELDS, limit, table.find).event(b"e-1", encode(event))
    assert len(line) <= limit + 1
    told = json.loads(line)
    record = told["record"]
    assert (told["uuid"], told["state"], record["uuid"], record["state"]) == ("u", "STARTED", "u", "STARTED")
    is_whole = len(encode(event | {"record": table.records["u"]})) <= limit
    assert is_whole == ("truncated" not in told and "truncated" not in record)


def test_clients_that_ask_for_the_same_share_a_view_which_goes_with_the_last_of_them() -> None:
    gc.collect()
    before = len(views._views)
    table = Table()
    kept = [record_view(NDJSON, Fields(frozenset({"state"})), 0, table.find) for _ in range(3)]
    assert kept[0] is kept[1] is kept[2]
    assert record_view(NDJSON, ALL_FIELDS, 0, table.find) is not kept[0]
    assert record_view(NDJSON, Fields(frozenset({"state"})), 0, Table().find) is not kept[0]
    kept.clear()
    gc.collect()
    assert len(views._views) == before


def test_it_costs_more_than_the_fields_alone() -> None:
    long = frozenset(str(number) * 1_000 for number in range(50))
    fields = (ALL_FIELDS, Fields(frozenset({"a"})), Fields(long))
    costs = [record_view(NDJSON, each, 0, Table().find).cost for each in fields]
    assert costs == sorted(costs) and NDJSON.cost < costs[0] < costs[-1]
