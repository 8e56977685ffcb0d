"""Failures by signature: what failures of one cause have in common, within bounds."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_gateway.state import failure_groups
from celery_gateway.state.failure_groups import FailureGroups
from celery_gateway.state.failure_signature import last_frame, normalized, signature
from tests.support.cpu_time import scaled

pytestmark = pytest.mark.unit

TRACEBACK = """Traceback (most recent call last):
  File "/usr/lib/python3.12/site-packages/celery/app/trace.py", line 453, in trace_task
    R = retval = fun(*args, **kwargs)
  File "/srv/app/shop/tasks.py", line 88, in charge
    pay(order)
  File "/srv/app/shop/payments.py", line 12, in pay
    client.post(url)
  File "/usr/lib/python3.12/site-packages/httpx/_client.py", line 1144, in post
    return self.request(
httpx.ConnectTimeout: timed out
"""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("KeyError('order 17')", "KeyError('order 4711')"),
        (
            "E('no 3f2504e0-4f89-11d3-9a0c-0305e82c3301')",
            "E('no 11111111-4f89-11d3-9a0c-0305e82c3301')",
        ),
        ("E('at 0x7f00aa')", "E('at 0x1')"),
        ("E(\"no such user 'anna'\")", "E(\"no such user 'otto'\")"),
        ("E('digest deadbeef01 differs')", "E('digest 00112233aabb differs')"),
        ("E(17)", "E(18)"),
        ("E(\"can't open 'alpha'\")", "E(\"can't open 'beta'\")"),
    ],
)
def test_failures_that_differ_in_values_have_one_signature(one: str, other: str) -> None:
    assert signature(one, TRACEBACK).key == signature(other, TRACEBACK).key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("KeyError('a b')", TRACEBACK), ("ValueError('a b')", TRACEBACK)),
        (("E('first text')", TRACEBACK), ("E('second text')", TRACEBACK)),
        (("E('x')", TRACEBACK), ("E('x')", TRACEBACK.replace("line 12", "line 13"))),
        (("E('x')", TRACEBACK), ("E('x')", None)),
        (("E('deadbeef is no word')", None), ("E('another word')", None)),
    ],
)
def test_failures_with_other_causes_have_other_signatures(
    one: tuple[str, str | None], other: tuple[str, str | None]
) -> None:
    assert signature(*one).key != signature(*other).key


def test_the_parts_of_a_signature() -> None:
    found = signature("PaymentTimeout('order 7: no reply')", TRACEBACK)
    assert found[1:] == ("PaymentTimeout", "order 7: no reply", "shop/payments.py:12 in pay")
    assert len(found.key) == 16 and int(found.key, 16) >= 0
    assert signature(None, None)[1:] == ("", "", None)
    assert signature("ExceptionWithTraceback()", TRACEBACK)[1:3] == ("ConnectTimeout", "timed out")
    assert signature("shop.errors.Broken('x',)", None)[1:3] == ("Broken", "x")
    assert signature("E('a', 'b')", None)[1:3] == ("E", "'a', 'b'")
    assert signature("ValueError: no repr", None)[1:3] == ("ValueError", "no repr")


def test_without_an_own_frame_it_is_the_last_one() -> None:
    only_installed = (
        'File "/x/site-packages/a/b.py", line 1, in f\n  File "/x/site-packages/c.py", line 2, in g\n'
    )
    assert last_frame(only_installed) == "site-packages/c.py:2 in g"
    assert last_frame(r'File "C:\app\tasks.py", line 3, in run') == "app/tasks.py:3 in run"
    assert last_frame("no frames") is None


FILES: dict[str, str | None] = json.loads(
    Path(__file__).parents[1].joinpath("support", "library_files.json").read_text("utf-8")
)["files"]


@pytest.mark.parametrize("file", FILES)
def test_a_frame_of_a_library_is_not_the_own_one(file: str) -> None:
    """The dashboard shows the same frames as own ones: clients/dashboard/test/traceback.test.ts."""
    frame = last_frame(f'  File "/srv/shop/own.py", line 1, in f\n  File "{file}", line 2, in g\n')
    assert (frame == "shop/own.py:1 in f") is (FILES[file] is not None)


def test_failures_that_end_in_one_place_of_python_are_grouped_by_the_caller() -> None:
    end = '  File "/usr/lib/python3.12/json/decoder.py", line 355, in raw_decode\n'
    orders, mail = (
        signature("JSONDecodeError('x')", f'  File "/srv/shop/{file}", line {line}, in load\n{end}')
        for file, line in (("orders.py", 10), ("mail.py", 99))
    )
    assert (orders.frame, mail.frame) == ("shop/orders.py:10 in load", "shop/mail.py:99 in load")
    assert orders.key != mail.key
    assert last_frame(end) == "json/decoder.py:355 in raw_decode"


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_texts_have_a_signature(exception: str, traceback: str) -> None:
    found = signature(exception, traceback)
    assert found == signature(exception, traceback)
    assert normalized(normalized(exception)) == normalized(exception)


@pytest.mark.timing
@pytest.mark.parametrize(
    "text",
    [
        '  File "/srv/a.py", line 5, in f\n    x()\n' * 30_000,
        'File "' * 200_000,
        'File "a", line ' * 80_000,
        f'File "{"python" * 130}\\\\x", line 5\n' * 1_000,
        "'" * 1_000_000,
        "a'b\"c`" * 170_000,
        "0x" * 500_000,
        "deadbee" * 150_000 + "!",
        "12345678-" * 110_000,
        "(" * 1_000_000,
        "\ud800" * 1_000_000,
    ],
    ids=lambda text: text[:12].encode("ascii", "backslashreplace").decode(),
)
def test_a_megabyte_of_hostile_text_takes_little_time(text: str) -> None:
    began = time.thread_time()
    for _ in range(10):
        signature(text, text)
        signature(f"E({text!r})", text)
    assert (time.thread_time() - began) / 20 < scaled(0.02)


def test_groups_and_their_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_groups, "MAX_GROUPS", 5)
    groups = FailureGroups()
    monkeypatch.setattr(failure_groups, "MAX_NAMES", 20)
    for number in range(40):
        groups.add(signature("E('x')", None), (f"name-{number}", None), f"u{number}", "w@h", 100.0 + number)
        assert groups.size_bytes == next(groups.newest()).size_bytes
    for letter in "abcd":
        groups.add(signature(f"{letter}()", None), ("n", None), "u", None, 200.0)
    (last,) = [group for group in groups.newest() if group.exception == "E"]
    assert [name for name, _ in last.names] == [f"name-{number}" for number in range(20, 40)]
    assert last.others is not None
    assert (last.others.count, last.others.uuid) == (20, "u19")
    assert (last.others.first, last.others.last) == (100.0, 119.0)
    groups.add(signature("e()", None), ("n", None), "u", None, 201.0)
    assert [group.exception for group in groups.newest()] == ["e", "d", "c", "b", "a"]


def test_the_name_that_has_not_failed_for_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_groups, "MAX_NAMES", 2)
    groups = FailureGroups()
    for number, name in enumerate("abacb"):
        groups.add(signature("E()", None), (name, None), f"u{number}", None, float(number))
    (group,) = groups.newest()
    assert group.others is not None
    assert {name: failures.count for (name, _), failures in group.names.items()} == {"c": 1, "b": 1}
    assert (group.others.count, group.others.first, group.others.uuid) == (3, 0.0, "u2")
    assert group.size_bytes == groups.size_bytes


def test_a_group_without_room_has_the_estimated_size(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, fresh = FailureGroups(), FailureGroups()
    for number in range(3 * failure_groups.MAX_NAMES):
        groups.add(signature("E()", None), (f"n{number:03}", None), "u", "w", float(number))
    monkeypatch.setattr(failure_groups, "MAX_NAMES", failure_groups.MAX_NAMES + 1)
    for number in range(failure_groups.MAX_NAMES):
        fresh.add(signature("E()", None), (f"n{number:03}", None), "u", "w", float(number))
    assert groups.size_bytes == fresh.size_bytes


def test_the_size_of_groups_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_groups, "MAX_BYTES", 50_000)
    groups = FailureGroups()
    for number in range(500):
        text = chr(0x4E00 + number) * 900
        groups.add(signature(f"E('{text}')", None), ("n", None), "u" * 900, "w" * 900, float(number))
        assert groups.size_bytes == sum(group.size_bytes for group in groups.newest()) <= 50_000
    assert 5 < len(groups) < 50
