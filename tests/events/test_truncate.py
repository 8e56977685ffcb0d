"""Truncation: any object fits, keeps its shape, and says which fields were cut."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.events.event import encode
from celery_gateway.events.truncate import ELLIPSIS, shorten, truncate
from celery_gateway.settings import MIN_EVENT_BYTES
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

TEXTS = st.one_of(
    st.text(max_size=20),
    st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=4), st.integers(1, 1_000)),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=6,
)
# Without a field ``truncated``, which ``normalize`` moves.
OBJECTS = st.dictionaries(TEXTS.filter(lambda name: name != "truncated"), VALUES, max_size=6)


@pytest.mark.slow
@settings(deadline=None, max_examples=tries(100), derandomize=True)
@given(OBJECTS, st.integers(MIN_EVENT_BYTES, 20_000))
def test_any_object_fits_and_says_what_was_cut(fields: dict[str, Any], max_bytes: int) -> None:
    whole = encode(fields)
    shortened = shorten(whole, max_bytes)
    assert len(shortened) <= max_bytes
    if len(whole) <= max_bytes:
        assert shortened == whole
        return
    got, plain = json.loads(shortened), json.loads(whole)
    cut = set(got.pop("truncated"))
    long = {name for name in plain if len(encode(name)) > 40}
    assert cut or long, "nothing is listed"
    for name, value in got.items():
        if name != "fields" and name not in cut and name not in long:
            assert value == plain[name]


def test_a_truncated_event_is_shared_and_short_events_do_not_displace_it() -> None:
    """Many clients with one limit, and many short events between the long ones."""
    long = encode({"type": "x", "text": "t" * 9_000})
    first = shorten(long, 4_000)
    for number in range(100):
        short = encode({"type": "x", "n": number})
        assert shorten(short, 4_000) is short and shorten(long, 0) is long
    assert shorten(long, 4_000) is first


def test_only_the_longest_texts_are_cut() -> None:
    event = {"type": "task-failed", "uuid": "u", "exception": "e" * 900, "traceback": "t" * 50_000, "n": 5}
    got = truncate(event, 5_000)
    assert got["truncated"] == ["traceback"]
    assert got["traceback"].endswith(ELLIPSIS) and event["traceback"].startswith(got["traceback"][:-1])
    assert {name: got[name] for name in ("type", "uuid", "exception", "n")} == {
        name: event[name] for name in ("type", "uuid", "exception", "n")
    }
    assert 4_900 < len(encode(got)) <= 5_000, "the room is used"


def test_two_long_texts_share_the_room() -> None:
    got = truncate({"type": "x", "a": "a" * 40_000, "b": "b" * 90_000}, 10_000)
    assert got["truncated"] == ["a", "b"]
    assert abs(len(got["a"]) - len(got["b"])) < 5


def test_texts_inside_lists_and_objects_are_cut_and_the_shape_stays() -> None:
    got = truncate({"type": "x", "info": {"rows": [{"text": "é" * 9_000, "n": 1}, "short"]}}, 4_000)
    assert got["info"]["rows"][0]["n"] == 1 and got["info"]["rows"][1] == "short"
    assert got["info"]["rows"][0]["text"].endswith("é" + ELLIPSIS)
    assert got["truncated"] == ["info"]


@pytest.mark.parametrize(
    "value",
    [list(range(20_000)), {str(n): n for n in range(20_000)}, [[]] * 20_000],
    ids=["numbers", "object", "lists"],
)
def test_a_value_without_texts_becomes_null(value: object) -> None:
    got = truncate({"type": "x", "uuid": "u", "value": value}, 4_000)
    assert got == {"type": "x", "uuid": "u", "value": None, "truncated": ["value"]}


def test_fields_are_left_out_only_when_their_names_are_too_long() -> None:
    got = truncate(
        {"n" * 900_000: 1, **{f"name{n}": n for n in range(10_000)}, "type": "x", "uuid": "u"}, 20_000
    )
    assert got["type"] == "x" and got["uuid"] == "u" and got["name5"] == 5
    assert len(encode(got)) <= 20_000


def test_what_is_truncated_again_lists_the_fields_of_both() -> None:
    event = {"id": "e-1", "type": "x", "numbers": list(range(9_000)), "text": "t" * 3_000}
    once = truncate(event, 5_000)
    assert once["truncated"] == ["numbers"]
    twice = truncate(once, 2_500)
    assert twice["truncated"] == ["numbers", "text"] and "fields" not in twice


def test_what_clients_route_and_resume_by_stays_whole() -> None:
    own = {"id": "e-1", "type": "order-shipped", "uuid": "u" * 36, "state": "SHIPPED", "timestamp": 1.5}
    many = {f"field{number}": f"value{number}" for number in range(5_000)}
    got = truncate({**many, **own}, 20_000)
    assert {name: got[name] for name in own} == own
    assert len(encode(got)) <= 20_000
    rest = {name: value for name, value in got.items() if name in many}
    assert len(rest) > 500 and all(many[name] == value for name, value in rest.items())


def test_many_short_texts_are_not_cut_to_nothing() -> None:
    for limit in (30_000, 50_000, 150_000):
        got = truncate({"type": "x", "texts": ["aaaaaaaaaa"] * 19_000}, limit)
        assert len(encode(got)) <= limit
        assert got["truncated"] == ["texts"]
