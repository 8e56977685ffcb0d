"""No body whatsoever raises or blocks; what gets through is clean JSON; a bad event loses only itself."""

import base64
import gc
import json
import math
import pickle
import re
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from datetime import time as clock_time
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import kombu.utils.json
import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from celery_gateway.events.event import encode
from celery_gateway.events.message import Message
from celery_gateway.events.normalize import MAX_BODY_BYTES, MAX_EVENTS, REFUSED_REASONS, Normalized, normalize
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

RECEIVED_AT = 1795234871.206692
RECEIVED_TIME = "2026-11-21T04:21:11.206692Z"
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
MSGPACK = "application/x-msgpack"
DRAWN = settings(deadline=None, max_examples=tries(150), derandomize=True)

STARTED = {
    "hostname": "w1@vm", "utcoffset": 0.0, "pid": 29285, "clock": 3, "timestamp": 1795234871.212133,
    "uuid": "e1c7a1bf-5a45-4dd4-9cc1-0001adaf0e0f", "type": "task-started",
}  # fmt: skip
RECEIVED = STARTED | {
    "type": "task-received", "name": "lab.slow", "args": "(1,)", "kwargs": "{}", "retries": 0, "eta": None,
    "root_id": "e1c7a1bf-5a45-4dd4-9cc1-0001adaf0e0f", "parent_id": None, "expires": None,
}  # fmt: skip
HEARTBEAT = {
    "hostname": "w1@vm", "utcoffset": 0.0, "pid": 29285, "clock": 1, "freq": 2.0, "active": 0, "processed": 0,
    "loadavg": [0.46, 0.43, 0.49], "sw_ident": "py-celery", "sw_ver": "5.7.0", "sw_sys": "Linux",
    "timestamp": 1795234871.206692, "type": "worker-heartbeat",
}  # fmt: skip
REAL_EVENTS = (STARTED, RECEIVED, HEARTBEAT)


def refuse_constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


def text(value: Any) -> str:
    """As JSON text, in which 1, 1.0 and true are three things."""
    return json.dumps(value, sort_keys=True)


def checked(message: Message) -> Normalized:
    """What becomes of a message, found to be clean: reasons from the list, events that are valid JSON."""
    found = normalize(message, RECEIVED_AT)
    assert set(found.refused) <= set(REFUSED_REASONS)
    for event in found.events:
        assert isinstance(event["type"], str)
        assert event["type"]
        assert not event["type"].startswith("gateway-")
        assert RFC3339.fullmatch(event["time"])
        assert "id" not in event
        line = encode(event)
        decoded = json.loads(line.decode("utf-8"), parse_constant=refuse_constant)
        assert text(decoded) == text(event)
        assert b"\\ud" not in line.replace(b"\\\\", b""), "no half of a surrogate pair, not even escaped"
        assert len(line.splitlines()) == 1
    return found


def of_json(body: Any) -> Normalized:
    return checked(Message(json.dumps(body).encode()))


def only(found: Normalized) -> dict[str, Any]:
    assert found.refused == ()
    (event,) = found.events
    return event


def plain(value: Any) -> Any:
    """What the contract makes of a JSON value: the oracle."""
    unpaired = re.compile("[\ud800-\udfff]")

    def text_of(value: str) -> str:
        return unpaired.sub("\ufffd", value)

    def object_of(pairs: list[tuple[str, Any]]) -> Any:
        found = {text_of(key): item for key, item in pairs}
        tag, inner = found.get("__type__"), found.get("__value__")
        if found.keys() != {"__type__", "__value__"}:
            return found
        if tag in ["datetime", "date", "time", "decimal", "bytes", "base64"] and isinstance(inner, str):
            return inner
        if tag == "uuid" and isinstance(inner, dict):
            try:
                return str(uuid.UUID(inner["hex"]))
            except (KeyError, ValueError, AttributeError, TypeError):
                return found
        return found

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return text_of(value)
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, list):
            return [walk(item) for item in value]
        if isinstance(value, dict):
            return object_of([(key, walk(item)) for key, item in value.items()])
        return value

    return walk(value)


# ------------------------------------------------------------------------------------ drawn bodies

ANY_TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=()), st.sampled_from("\ud800\udc00\udfff\u2028\x85\x00😀\ufeffa")
    ),
    max_size=8,
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**40), 10**40),
    st.floats(allow_nan=True, allow_infinity=True),
    ANY_TEXTS,
)
KEYS = st.one_of(
    ANY_TEXTS,
    st.sampled_from(
        ["type", "uuid", "timestamp", "id", "time", "fields", "name", "__type__", "__value__", ""]
    ),
)
TAGS = st.fixed_dictionaries(
    {
        "__type__": st.sampled_from(
            ["datetime", "date", "time", "decimal", "uuid", "bytes", "base64", "other", "", 5, None, []]
        ),
        "__value__": st.one_of(
            SCALARS,
            st.fixed_dictionaries(
                {"hex": st.one_of(st.uuids().map(lambda drawn: drawn.hex), SCALARS), "version": SCALARS}
            ),
            st.lists(SCALARS, max_size=2),
        ),
    }
)
VALUES = st.recursive(
    st.one_of(SCALARS, TAGS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
TYPES = st.one_of(
    st.sampled_from(
        [
            "task-sent",
            "task-started",
            "task-progress",
            "worker-heartbeat",
            "shop-paid",
            "plain",
            "-",
            "gateway-open",
        ]
        + ["gateway-", "worker-elect", "worker-elect-ack", ""]
    ),
    VALUES,
)
EVENTS = st.builds(
    lambda fields, type: fields | {"type": type}, st.dictionaries(KEYS, VALUES, max_size=5), TYPES
)
BODIES = st.one_of(VALUES, EVENTS, st.lists(st.one_of(EVENTS, EVENTS, VALUES), max_size=5))
CONTENT_TYPES = st.sampled_from(
    [
        None,
        "",
        "application/json",
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        "application/x-msgpack",
    ]
    + [
        "application/msgpack",
        "application/x-python-serialize",
        "application/x-yaml",
        "text/plain",
        "x",
        "é;;",
    ]
)
ENCODINGS = st.sampled_from(
    [None, "", "utf-8", "UTF-8", "binary", "us-ascii", "latin-1", "utf-16", "base64", "x"]
)


@DRAWN
@given(st.binary(max_size=200), CONTENT_TYPES, ENCODINGS, st.sampled_from([None, "", "application/x-gzip"]))
def test_no_bytes_under_any_properties_raise(
    body: bytes, content_type: str | None, encoding: str | None, compression: str | None
) -> None:
    checked(Message(body, content_type, encoding, compression))


@pytest.mark.slow
@DRAWN
@given(BODIES, st.booleans())
@example([{"type": "a", "v": "\ud83d"}, {"type": "a", "v": "\ude00\ud83d"}], True)
def test_json_of_any_shape_comes_out_clean_and_nothing_else_of_it_changes(body: Any, is_ascii: bool) -> None:
    sent = json.dumps(body, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    if not is_ascii:  # then lone surrogates are not UTF-8, and each of their bytes becomes U+FFFD
        sent = sent.decode("utf-8", "replace").encode()
    found = checked(Message(sent))
    theirs = json.loads(sent.decode())
    items = theirs if isinstance(theirs, list) else [theirs]
    expected: list[dict[str, Any]] = []
    for item in map(plain, items):
        if not isinstance(item, dict) or not isinstance(item.get("type"), str) or not item["type"]:
            continue
        if item["type"].startswith("gateway-") or item["type"] in ("worker-elect", "worker-elect-ack"):
            continue
        moved = ("id", "time", "truncated")
        if any(key in item for key in moved):
            item["fields"] = {key: item.pop(key) for key in (*moved, "fields") if key in item}
        expected.append(item)
    assert len(found.refused) == len(items) - len(expected)
    assert [text({**event, "time": ""}) for event in found.events] == [
        text({**event, "time": ""}) for event in expected
    ]


@pytest.mark.slow
@DRAWN
@given(BODIES, st.data())
def test_a_body_with_some_bytes_changed_does_not_raise(body: Any, data: st.DataObject) -> None:
    packed = json.dumps(body).encode()
    at = data.draw(st.integers(0, len(packed)))
    changed = packed[:at] + data.draw(st.binary(max_size=3)) + packed[at + data.draw(st.integers(0, 3)) :]
    checked(Message(changed))
    checked(Message(packed[:at]))
    checked(Message(b"\xef\xbb\xbf" + packed))


PACKED_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=4)),
    st.builds(msgpack.Timestamp, st.integers(-(2**40), 2**40), st.integers(0, 999_999_999)),
)
PACKED_VALUES = st.recursive(
    PACKED_SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(st.text(max_size=5), st.integers(), st.binary(max_size=3)), inner, max_size=3
        )
        | st.dictionaries(st.one_of(st.floats(), st.none(), st.booleans()), inner, max_size=2),
    ),
    max_leaves=10,
)


@DRAWN
@given(st.dictionaries(st.text(max_size=5), PACKED_VALUES, max_size=4), st.binary(max_size=3))
def test_msgpack_of_any_shape_comes_out_clean(fields: dict[str, Any], tail: bytes) -> None:
    event = fields | {"type": "task-progress"}
    try:
        packed = msgpack.packb(event)
    except OverflowError:  # an integer that msgpack has no room for
        return
    found = checked(Message(packed, MSGPACK, "binary"))
    assert len(found.events) + len(found.refused) == 1
    checked(Message(packed + tail, MSGPACK, "binary"))
    checked(Message(packed[: len(packed) // 2], MSGPACK, "binary"))


@DRAWN
@given(st.sampled_from(REAL_EVENTS), st.data())
def test_a_real_event_with_one_field_of_another_kind_keeps_all_the_others(
    real: dict[str, Any], data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from(sorted(real)))
    wrong = data.draw(VALUES)
    found = of_json(real | {field: wrong})
    if field == "type":
        return
    event = only(found)
    expected = plain(json.loads(json.dumps(real | {field: wrong})))
    assert text({key: value for key, value in event.items() if key != "time"}) == text(expected)


@DRAWN
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "type", "id"]), st.integers(0, 9)), max_size=6))
def test_of_fields_named_twice_the_last_stays(pairs: list[tuple[str, int]]) -> None:
    written = ",".join(f'"{key}":"v{value}"' for key, value in pairs)
    found = checked(Message(b"{%b}" % written.encode()))
    if "type" in dict(pairs):
        event = only(found)
        assert event["type"] == f"v{dict(pairs)['type']}"
    else:
        assert found.refused == ("no-type",)


# -------------------------------------------------------------------------------- real events, times


@pytest.mark.parametrize("real", REAL_EVENTS, ids=lambda event: event["type"])
@pytest.mark.parametrize("content_type", [None, "", "application/json", "application/json;charset=UTF-8"])
def test_a_real_event_passes_whole_with_its_time(real: dict[str, Any], content_type: str | None) -> None:
    event = only(checked(Message(json.dumps(real).encode(), content_type)))
    made = datetime.fromtimestamp(real["timestamp"], UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert text(event) == text({**real, "time": made})


@pytest.mark.parametrize(
    ("timestamp", "time"),
    [
        (1, "1970-01-01T00:00:01.000000Z"),
        (0, RECEIVED_TIME),
        (-1.5, RECEIVED_TIME),
        (1795234871.206692, "2026-11-21T04:21:11.206692Z"),
        (1795234871, "2026-11-21T04:21:11.000000Z"),
        (1e-6, "1970-01-01T00:00:00.000001Z"),
        (253402300799, RECEIVED_TIME),
        (-62135596800, RECEIVED_TIME),
        (1795234871.206692e3, RECEIVED_TIME),
        (1795234871206692000, RECEIVED_TIME),
        (253402300800, RECEIVED_TIME),
        (-62135596801, RECEIVED_TIME),
        (1e300, RECEIVED_TIME),
        (10**400, RECEIVED_TIME),
        (math.inf, RECEIVED_TIME),
        (math.nan, RECEIVED_TIME),
        (True, RECEIVED_TIME),
        (None, RECEIVED_TIME),
        ("1795234871.2", RECEIVED_TIME),
        ([1], RECEIVED_TIME),
    ],
)
def test_time_is_the_timestamp_in_utc_or_when_it_was_received(timestamp: Any, time: str) -> None:
    assert only(of_json(STARTED | {"timestamp": timestamp}))["time"] == time


def test_an_event_without_a_timestamp_has_the_time_when_it_was_received() -> None:
    assert only(of_json({"type": "shop-paid"})) == {"type": "shop-paid", "time": RECEIVED_TIME}


@pytest.mark.parametrize("utcoffset", [0, 5, -5, 5.5, 1e300, None, "x"])
def test_the_utcoffset_is_kept_and_not_applied(utcoffset: Any) -> None:
    event = only(of_json(STARTED | {"utcoffset": utcoffset}))
    assert event["time"] == "2026-11-21T04:21:11.212133Z"
    assert event["utcoffset"] == utcoffset


@pytest.mark.parametrize(
    ("own", "fields"),
    [
        ({"id": 5}, {"id": 5}),
        ({"time": "noon"}, {"time": "noon"}),
        ({"truncated": True}, {"truncated": True}),
        ({"id": None, "time": None}, {"id": None, "time": None}),
        ({"id": 5, "fields": {"id": 6}}, {"id": 5, "fields": {"id": 6}}),
    ],
)
def test_a_field_named_id_or_time_is_found_again_under_fields(own: Any, fields: Any) -> None:
    event = only(of_json({"type": "shop-paid"} | own))
    assert event == {"type": "shop-paid", "fields": fields, "time": RECEIVED_TIME}


def test_a_field_named_fields_alone_stays() -> None:
    assert only(of_json({"type": "shop-paid", "fields": [1]}))["fields"] == [1]


# ------------------------------------------------------------------------------------ odd values


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_not_finite_become_null(number: str) -> None:
    body = '{"type": "a", "v": ?, "deep": [{"v": ?}]}'.replace("?", number)
    event = only(checked(Message(body.encode())))
    assert event == {"type": "a", "v": None, "deep": [{"v": None}], "time": RECEIVED_TIME}


@pytest.mark.parametrize(
    ("escaped", "expected"),
    [
        (r"\ud800", "\ufffd"),
        (r"\udc00", "\ufffd"),
        (r"a\ud800b", "a\ufffdb"),
        (r"\ud800\ud800", "\ufffd\ufffd"),
        (r"\udc00\ud800", "\ufffd\ufffd"),
        (r"\ud83d\ude00", "😀"),
        (r"\ud83d\ud83d\ude00\ude00", "\ufffd😀\ufffd"),
        (r"\ufeff\ud800", "\ufeff\ufffd"),
        (r"\\ud800", "\\ud800"),
    ],
)
def test_lone_surrogates_become_replacement_characters(escaped: str, expected: str) -> None:
    event = only(checked(Message('{"type": "a", "v": "?", "?": 1}'.replace("?", escaped).encode())))
    assert event == {"type": "a", "v": expected, expected: 1, "time": RECEIVED_TIME}


def test_bytes_that_are_not_utf_8_become_replacement_characters() -> None:
    event = only(checked(Message(b'{"type": "a", "v": "x\xff\xed\xa0\x80y"}')))
    assert event["v"].startswith("x\ufffd")
    assert event["v"].endswith("\ufffdy")


@pytest.mark.parametrize("digits", [18, 19, 20, 40, 308, 400, 4_000])
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("beside", ["", ', "nan": NaN'])
def test_an_integer_stays_to_the_last_digit(digits: int, sign: str, beside: str) -> None:
    number = sign + "1234567890" * (digits // 10) + "7" * (digits % 10)
    event = only(checked(Message(f'{{"type": "a", "v": {number}{beside}}}'.encode())))
    assert f'"v":{number},'.encode() in encode(event)


def test_a_number_keeps_its_kind() -> None:
    numbers = b"[1, 1.0, -0.0, 1e2, 0.1, 5e-324, 1.7976931348623157e308, true, 123456789.12345679]"
    body = b'{"type": "a", "v": %b}' % numbers
    event = only(checked(Message(body)))
    assert text(event["v"]) == text(json.loads(body)["v"])


def test_what_kombu_tags_becomes_plain() -> None:
    drawn = uuid.UUID("e1c7a1bf-5a45-4dd4-9cc1-0001adaf0e0f")
    custom = {
        "type": "shop-paid",
        "when": datetime(2026, 11, 21, 4, 21, 11, 206692, tzinfo=UTC),
        "naive": datetime(2026, 11, 21),
        "day": date(2026, 11, 21),
        "hour": clock_time(4, 21),
        "amount": Decimal("12.50"),
        "order": drawn,
        "text": b"caf\xc3\xa9",
        "bytes": b"\xff\x00",
        "deep": [{"amount": Decimal("1")}],
    }
    event = only(checked(Message(kombu.utils.json.dumps(custom).encode())))
    assert event["when"] in ("2026-11-21T04:21:11.206692+00:00", "2026-11-21T04:21:11.206692Z")
    del event["when"]
    assert event == {
        "type": "shop-paid",
        "naive": "2026-11-21T00:00:00",
        "day": "2026-11-21",
        "hour": "04:21:00",
        "amount": "12.50",
        "order": str(drawn),
        "text": "café",
        "bytes": base64.b64encode(b"\xff\x00").decode(),
        "deep": [{"amount": "1"}],
        "time": RECEIVED_TIME,
    }


@pytest.mark.parametrize(
    "tagged",
    [
        {"__type__": "shop.Order", "__value__": {"id": 5}},
        {"__type__": "datetime", "__value__": None},
        {"__type__": "uuid", "__value__": "x"},
        {"__type__": "uuid", "__value__": {"hex": "x" * 32}},
        {"__type__": "uuid", "__value__": {"hex": 5}},
        {"__type__": "uuid", "__value__": {}},
        {"__type__": ["datetime"], "__value__": "x"},
        {"__type__": "datetime", "__value__": "x", "more": 1},
        {"__type__": "datetime"},
    ],
)
def test_a_tag_that_is_not_known_stays_and_does_not_lose_the_batch(tagged: dict[str, Any]) -> None:
    found = of_json([STARTED, {"type": "shop-paid", "v": tagged}, HEARTBEAT])
    assert found.refused == ()
    assert [event["type"] for event in found.events] == ["task-started", "shop-paid", "worker-heartbeat"]
    assert found.events[1]["v"] == tagged


def test_what_only_msgpack_can_say_becomes_plain() -> None:
    event = only(
        checked(
            Message(
                msgpack.packb(
                    {
                        "type": "shop-paid",
                        "text": b"caf\xc3\xa9",
                        "bytes": b"\xff\x00",
                        "when": msgpack.Timestamp(1795234871, 206692000),
                        "keys": {b"two": 2, b"\xff": 3},
                        "nan": math.nan,
                    }
                ),
                MSGPACK,
            )
        )
    )
    assert (event["text"], event["bytes"], event["nan"]) == ("café", "/wA=", None)
    assert event["keys"] == {"two": 2, "/w==": 3}
    assert event["when"].startswith("2026-11-21")
    assert "04:21:11.206692" in event["when"]


def test_a_msgpack_extension_says_the_same_each_time_and_nothing_of_the_memory() -> None:
    packed = msgpack.packb({"type": "shop-paid", "v": msgpack.ExtType(5, b"abc")})
    first, second = (checked(Message(packed, MSGPACK)) for _ in range(2))
    assert first == second
    assert "0x" not in text(first.events)


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Message(b"{}", "application/x-python-serialize", "binary"), "content-type"),
        (Message(b"{}", "application/x-yaml"), "content-type"),
        (Message(b"{}", "text/plain"), "content-type"),
        (Message(b"{}", "application/jsonx"), "content-type"),
        (Message(b"{}", content_encoding="utf-16"), "content-encoding"),
        (Message(b"{}", content_encoding="gzip"), "content-encoding"),
        (Message(b"{}", compression="application/x-gzip"), "compression"),
        (Message(b" " * (MAX_BODY_BYTES + 1)), "too-large"),
        (Message(b""), "undecodable"),
        (Message(b"{"), "undecodable"),
        (Message(b'{"type": "a"} {}'), "undecodable"),
        (Message(b"\xc1", MSGPACK), "undecodable"),
        (Message(b"null"), "not-an-object"),
        (Message(b'"task-sent"'), "not-an-object"),
        (Message(b"5"), "not-an-object"),
        (Message(b"[[]]"), "not-an-object"),
        (Message(b"{}"), "no-type"),
        (Message(b'{"type": ""}'), "no-type"),
        (Message(b'{"type": 5}'), "no-type"),
        (Message(b'{"type": null}'), "no-type"),
        (Message(b'{"type": "gateway-open"}'), "reserved-type"),
        (Message(b'{"type": "gateway-"}'), "reserved-type"),
        (Message(b'{"type": "worker-elect", "task": {}}'), "gossip"),
        (Message(b'{"type": "worker-elect-ack"}'), "gossip"),
        (Message(b"[" * 100_000), "too-deep"),
        (Message(b'{"type": "a", "v": %b%b}' % (b"[" * 70, b"]" * 70)), "too-deep"),
        (Message(b'{"type": "a", "v": %b%b}' % (b"[" * 5_000, b"]" * 5_000)), "too-deep"),
        (Message(b"\x91" * 100_000, MSGPACK), "too-deep"),
        (Message(msgpack.packb({"type": "a", "v": {1: 2}}), MSGPACK), "undecodable"),  # as kombu has it
    ],
)
def test_what_cannot_be_passed_on_is_refused_with_its_reason(message: Message, reason: str) -> None:
    assert checked(message) == Normalized([], (reason,))


def test_an_empty_list_is_nothing_and_no_error() -> None:
    # Celery <= 5.6 sends them.
    assert checked(Message(b"[]")) == Normalized([], ())


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickle_is_not_unpickled_and_yaml_is_not_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "it-was-run"
    pickled = pickle.dumps({"type": "task-sent", "v": Bomb(marker)})
    pickle.loads(pickled)
    assert marker.exists(), "the bomb works"
    marker.unlink()
    yaml = f"!!python/object/apply:os.system ['touch {marker}']".encode()
    content_types = [
        "application/x-python-serialize",
        "application/x-yaml",
        "application/json",
        MSGPACK,
        "",
        None,
    ]
    for body, content_type, encoding in product((pickled, yaml), content_types, ("binary", "utf-8", None)):
        found = checked(Message(body, content_type, encoding))
        assert found.events == []
        assert len(found.refused) == 1
    assert not marker.exists()


# ------------------------------------------------------------------------ bad events between good ones


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


BAD = {
    "null": b"null",
    "a number": b"5",
    "a text": b'"task-sent"',
    "a list": b'[{"type": "task-sent"}]',
    "an empty object": b"{}",
    "no type": b'{"uuid": "u"}',
    "a type that is no text": b'{"type": ["task-sent"]}',
    "a control message": b'{"type": "gateway-close", "reason": "drain"}',
    "gossip": b'{"type": "worker-elect", "id": "x"}',
    "70 levels": json.dumps({"type": "a", "v": nested(70)}).encode(),
    "500 levels": json.dumps({"type": "a", "v": nested(500)}).encode(),
    "5,000 levels": b'{"type": "a", "v": %b%b}' % (b"[" * 5_000, b"]" * 5_000),
    "100,001 values": json.dumps({"type": "a", "v": [0] * 100_001}).encode(),
    "100,001 fields": json.dumps({"type": "a"} | {f"f{number}": 0 for number in range(100_001)}).encode(),
}
ODD = {
    "NaN": b'{"type": "a", "v": NaN}',
    "a lone surrogate": rb'{"type": "a", "v": "\ud800"}',
    "not UTF-8": b'{"type": "a", "v": "\xff"}',
    "an unknown tag": b'{"type": "a", "v": {"__type__": "x", "__value__": 1}}',
    "an integer of 5,000 digits": b'{"type": "a", "v": %b}' % (b"7" * 5_000),
}


def around(middle: bytes, *, as_nan: bool = False) -> bytes:
    """A body of three good events with another one after each of the first two."""
    good = [json.dumps(event).encode() for event in REAL_EVENTS]
    if as_nan:  # which the fast decoder does not take
        good[0] = good[0].replace(b'"clock": 3', b'"clock": NaN')
    return b"[%b]" % b",".join([good[0], middle, good[1], middle, good[2]])


@pytest.mark.slow
@pytest.mark.parametrize("as_nan", [False, True], ids=["plain", "beside NaN"])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_event_in_a_list_loses_only_itself(bad: bytes, as_nan: bool) -> None:
    found = checked(Message(around(bad, as_nan=as_nan)))
    good = [dict(event) for event in REAL_EVENTS]
    if as_nan:
        good[0]["clock"] = None
    is_refused = len(found.refused) == 2
    ours = [event for event in found.events if is_refused or event["type"] != "a"]
    assert [{key: event[key] for key in event if key != "time"} for event in ours] == good
    assert len(found.events) + len(found.refused) == 5


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_an_odd_event_in_a_list_costs_the_others_nothing(odd: bytes) -> None:
    found = checked(Message(around(odd)))
    ours = [event for event in found.events if event["type"] != "a"]
    assert text([{key: event[key] for key in event if key != "time"} for event in ours]) == text(REAL_EVENTS)
    assert len(found.events) + len(found.refused) == 5


@DRAWN
@given(st.lists(st.one_of(st.sampled_from(REAL_EVENTS), st.sampled_from(list(BAD)[:10])), max_size=30))
def test_the_good_ones_come_out_in_order_and_to_the_letter(items: list[Any]) -> None:
    written = [BAD[item] if isinstance(item, str) else json.dumps(item).encode() for item in items]
    found = checked(Message(b"[%b]" % b", ".join(written)))
    good = [item for item in items if not isinstance(item, str)]
    assert text([{key: event[key] for key in event if key != "time"} for event in found.events]) == text(good)
    assert len(found.refused) == len(items) - len(good)


def test_a_full_batch_of_big_events_is_not_too_much() -> None:
    # 24 is Celery's batch; a custom event may well bring a list of some thousands.
    batch = [{"type": "task-progress", "uuid": "u", "points": list(range(4_000))} for _ in range(24)]
    assert len(of_json(batch).events) == 24
    odd = json.dumps(batch).encode().replace(b'"u"', b'"\\ud800"')
    assert len(checked(Message(odd)).events) == 24


# ------------------------------------------------------------------------------------------- cost


def repeated(item: bytes, n: int, *, between: bytes = b",") -> bytes:
    return between.join([item] * max(1, n // (len(item) + len(between))))


def of_events(item: bytes) -> Callable[[int], bytes]:
    return lambda n: b"[%b]" % repeated(item, n)


def of_one_event(item: bytes) -> Callable[[int], bytes]:
    return lambda n: b'{"type":"a","v":[%b]}' % repeated(item, n)


def fields(n: int, item: bytes) -> bytes:
    return b'{"type":"a",%b}' % b",".join([item % number for number in range(n // (len(item) + 5))])


def packed_tuples(n: int) -> bytes:
    """A msgpack map with array keys that all have one hash: Python's hash(-1) is hash(-2)."""
    width = max(1, (n // 12).bit_length() - 1)
    pairs = (bytes([0x90 | width, *key, 0xC0]) for key in product((0xFF, 0xFE), repeat=width))
    head = b"\x82\xa4type\xa1a\xa1v\xdf" + (1 << width).to_bytes(4, "big")
    return head + b"".join(pairs)


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "zeros": of_one_event(b"0"),
    "NaNs": of_one_event(b"NaN"),
    "zeros after a NaN": lambda n: b'{"type":"a","x":NaN,"v":[%b]}' % repeated(b"0", n),
    "objects": of_one_event(b"{}"),
    "lists in a list": of_one_event(b"[]"),
    "small events": of_events(b'{"type":"a"}'),
    "small events with NaN": of_events(b'{"type":"a","v":NaN}'),
    "not events": of_events(b"0"),
    "long integers": of_one_event(b"7" * 4_000),
    "long floats": of_one_event(b"0." + b"7" * 4_000),
    "too long an integer": lambda n: b'{"type":"a","v":%b}' % (b"7" * n),
    "a long text of surrogates": lambda n: b'{"type":"a","v":"%b"}' % (rb"\ud800" * (n // 6)),
    "short texts with surrogates": of_one_event(rb'"\ud800"'),
    "a text of escapes": lambda n: b'{"type":"a","v":"%b"}' % (rb"\n\u2028" * (n // 8)),
    "a text that is not UTF-8": lambda n: b'{"type":"a","v":"%b"}' % (b"\xff" * n),
    "line separators": lambda n: b'{"type":"a","v":"%b"}' % ("\u2028\x85".encode() * (n // 5)),
    "many fields": lambda n: fields(n, b'"field-%d":0'),
    "many fields after a NaN": lambda n: fields(n, b'"field-%d":NaN'),
    "one field again and again": lambda n: fields(n, b'"f":%d'),
    "tags": of_one_event(b'{"__type__":"uuid","__value__":{"hex":"7"}}'),
    "a too deep one, then an open text of quotes": lambda n: b"[" * 2_000 + b'"' + rb"\"" * (n // 12),
    "a too deep one between many": lambda n: b"[%b%b%b]" % (b"[" * 2_000, b"]" * 2_000, b",0" * (n // 2)),
    "open lists": lambda n: b"[" * n,
    "open objects": lambda n: b'{"a":' * (n // 5),
    "spaces": lambda n: b'{"type":"a"' + b" " * n + b"}",
    "garbage": lambda n: b"x" * n,
    "an open text": lambda n: b'{"type":"' + rb"\"" * (n // 2),
}
HOSTILE_PACKED: dict[str, Callable[[int], bytes]] = {
    "array keys of one hash": packed_tuples,
    "nested arrays": lambda n: b"\x91" * n,
    "huge lengths": lambda n: b"\xdd\x00\xff\xff\xff" * (n // 5),
    "the hugest length": lambda n: b"\xdd\xff\xff\xff\xff" + b"\x01" * n,
    "zeros": lambda n: b"\x82\xa4type\xa1a\xa1v\xdd" + n.to_bytes(4, "big") + b"\x00" * n,
    "a long binary": lambda n: b"\x82\xa4type\xa1a\xa1v\xc6" + n.to_bytes(4, "big") + b"\xff" * n,
    "a long extension": lambda n: (
        b"\x82\xa4type\xa1a\xa1v\xc9" + n.to_bytes(4, "big") + b"\x05" + b"\xff" * n
    ),
}
SHAPES = [
    *(pytest.param(make, "application/json", id=name) for name, make in HOSTILE.items()),
    *(pytest.param(make, MSGPACK, id=f"msgpack: {name}") for name, make in HOSTILE_PACKED.items()),
]


def cpu_seconds(message: Message) -> float:
    """The cost of a message, through to the bytes; the shorter of two tries, since the machine is shared."""

    def once() -> float:
        started = time.process_time()
        for event in normalize(message, RECEIVED_AT).events:
            encode(event)
        return time.process_time() - started

    tries: Iterable[float] = (once() for _ in range(2))
    return min(tries)


@pytest.mark.parametrize(("make", "content_type"), SHAPES)
def test_four_times_the_body_is_about_four_times_the_work(
    make: Callable[[int], bytes], content_type: str
) -> None:
    small, big = make(25_000), make(100_000)
    ratio_of_sizes = len(big) / len(small)
    small_seconds = cpu_seconds(Message(small, content_type))
    # A quadratic one takes sixteen times as long. What is quick anyway is not measured well, nor a danger.
    assert cpu_seconds(Message(big, content_type)) < max(0.02, 2.5 * ratio_of_sizes * small_seconds)


COSTLIEST = ("long integers", "a long text of surrogates", "objects", "many fields", "zeros after a NaN")


@pytest.mark.slow
@pytest.mark.parametrize("name", COSTLIEST)
def test_the_biggest_body_takes_seconds_at_most(name: str) -> None:
    body = HOSTILE[name](MAX_BODY_BYTES - 100)
    assert MAX_BODY_BYTES * 0.8 < len(body) <= MAX_BODY_BYTES
    started = time.process_time()
    for event in normalize(Message(body), RECEIVED_AT).events:
        encode(event)
    assert time.process_time() - started < 3


def test_a_list_of_a_hundred_thousand_events_is_refused_or_passed_quickly() -> None:
    started = time.process_time()
    found = normalize(Message(b"[%b]" % b",".join([b'{"type":"a"}'] * 100_000)), RECEIVED_AT)
    assert time.process_time() - started < 3
    assert found == Normalized([], ("too-complex",))
    most = normalize(Message(b"[%b]" % b",".join([b'{"type":"a"}'] * MAX_EVENTS)), RECEIVED_AT)
    assert len(most.events) == MAX_EVENTS


@pytest.mark.parametrize(
    "body", [b"[0]", b" " * 300_000 + b'{"type":"a","v":[]}', b"[" * 300_000, b"x" * 300_000]
)
@pytest.mark.parametrize("was_enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(body: bytes, was_enabled: bool) -> None:
    was_enabled_before = gc.isenabled()
    try:
        (gc.enable if was_enabled else gc.disable)()
        normalize(Message(body), RECEIVED_AT)
        assert gc.isenabled() == was_enabled
    finally:
        (gc.enable if was_enabled_before else gc.disable)()
