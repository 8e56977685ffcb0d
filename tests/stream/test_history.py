"""The history against a list that keeps everything: positions, ids, and evictions."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.stream.history import ENTRY_OVERHEAD_BYTES, Entry, History
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

DRAWN = settings(deadline=None, max_examples=tries(150), derandomize=True)
ROOMY = 1 << 30


def add(history: History, json_bytes: int = 10, times: float = 0.0) -> Entry:
    entry = Entry(history.id_of(history.position + 1), (), None, b"x" * json_bytes, times)
    history.append(entry)
    return entry


def filled(count: int, **options: int) -> tuple[History, list[Entry]]:
    history = History(**{"max_bytes": ROOMY} | options, epoch="e")
    return history, [add(history) for _ in range(count)]


def test_an_empty_history_is_at_position_zero() -> None:
    history = History(max_bytes=ROOMY)
    assert (history.position, history.evicted, history.size_bytes) == (0, 0, 0)
    assert list(history.after(0, 10)) == []
    assert history.position_of(history.id_of(0).decode()) == 0


def test_entries_are_numbered_from_one_and_read_in_order() -> None:
    history, entries = filled(5)
    assert history.position == 5
    assert [entry.id for entry in entries] == [history.id_of(position) for position in range(1, 6)]
    assert list(history.after(0, 10)) == entries
    assert list(history.after(3, 10)) == entries[3:]
    assert list(history.after(1, 2)) == entries[1:3]
    assert list(history.after(5, 10)) == []
    assert list(history.after(2, 0)) == []


@DRAWN
@given(
    st.integers(1, 40_000),
    st.lists(st.one_of(st.integers(0, 50), st.integers(0, 5_000)), max_size=60),
    st.integers(1, 5),
)
def test_the_history_keeps_the_newest_entries_that_fit_and_always_the_last(
    max_bytes: int, sizes: list[int], limit: int
) -> None:
    history, everything = History(max_bytes=max_bytes), []
    for size in sizes:
        everything.append(add(history, size))
        expected: list[Entry] = []
        for entry in reversed(everything):
            if expected and sum(kept.size_bytes for kept in expected) + entry.size_bytes > max_bytes:
                break
            expected.insert(0, entry)
        assert history.position == len(everything)
        assert history.evicted == len(everything) - len(expected)
        assert history.size_bytes == sum(entry.size_bytes for entry in expected)
        assert list(history.after(history.evicted, len(everything))) == expected
    for position in range(history.evicted, history.position + 1):
        assert list(history.after(position, limit)) == everything[position : position + limit]


def test_positions_stay_valid_through_tens_of_thousands_of_evictions() -> None:
    history = History(max_bytes=50 * (ENTRY_OVERHEAD_BYTES + 10), epoch="e")
    for number in range(1, 20_001):
        add(history)
        if number % 97 == 0 and number > 50:
            assert history.evicted == number - 50
            assert [entry.id for entry in history.after(number - 3, 10)] == [
                history.id_of(position) for position in (number - 2, number - 1, number)
            ]
            assert len(history.after(history.evicted, 1_000)) == 50


def test_an_entry_larger_than_the_history_stays_until_the_next() -> None:
    history = History(max_bytes=1_000)
    big = add(history, 100_000)
    assert list(history.after(0, 10)) == [big]
    small = add(history, 1)
    assert list(history.after(1, 10)) == [small]
    assert history.evicted == 1
    assert history.size_bytes <= 1_000


@pytest.mark.slow
def test_memory_stays_within_the_limit() -> None:
    history = History(max_bytes=2_000_000)
    tracemalloc.start()
    try:
        for _ in range(30_000):
            add(history, 1_000)
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert history.evicted > 25_000
    assert held_bytes < 2_000_000
    assert history.size_bytes <= 2_000_000


def test_an_id_has_its_position_evicted_or_not() -> None:
    history, _ = filled(500, max_bytes=20 * (ENTRY_OVERHEAD_BYTES + 10))
    assert history.evicted == 480
    for position in range(history.position + 1):
        assert history.position_of(history.id_of(position).decode()) == position


@pytest.mark.parametrize(
    "id",
    [
        *(
            "",
            "e",
            "e-",
            "-",
            "-1",
            "1",
            "e1",
            "e-x",
            "e--1",
            "e-+1",
            "e- 1",
            "e-1 ",
            " e-1",
            "e-1\n",
            "e-1.0",
        ),
        *("e-1e0", "e-1_0", "e-0x1", "e-١", "e-¹", "e-１", "E-1", "f-1", "ee-1", "e-e-1", "e-1-1", "e\0-1"),
        *("e-4", "e-999999999999999999", "e-9999999999999999999", "e-" + "9" * 10_000, "é-1", "\ud800-1"),
    ],
)
def test_an_id_that_is_not_of_this_log_has_no_position(id: str) -> None:
    history, _ = filled(3)
    assert history.position_of(id) is None


@DRAWN
@given(st.text(max_size=30))
def test_no_text_as_an_id_raises(id: str) -> None:
    history, _ = filled(3)
    for text in (id, "e-" + id):
        position = history.position_of(text)
        assert position is None or 0 <= position <= 3


def test_an_id_has_a_position_once_its_entry_was_appended() -> None:
    history, _ = filled(3)
    assert history.position_of("e-4") is None
    add(history)
    assert history.position_of("e-4") == 4


def test_each_start_draws_an_epoch_of_its_own() -> None:
    histories = [History(max_bytes=1) for _ in range(200)]
    assert len({history.epoch for history in histories}) == 200
    for one, other in zip(histories, histories[1:], strict=False):
        assert other.position_of(one.id_of(0).decode()) is None


@DRAWN
@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=40),
    st.floats(-2, 42, allow_nan=False),
    st.integers(3, 50),
)
def test_position_at_is_before_the_first_entry_that_was_appended_then_or_later(
    steps: list[float], time: float, kept: int
) -> None:
    history, times = History(max_bytes=kept * (ENTRY_OVERHEAD_BYTES + 10)), [0.0]
    for step in steps:
        times.append(times[-1] + step)
        add(history, 10, times[-1])
    position = history.position_at(time)
    assert history.evicted <= position <= history.position
    assert all(at >= time for at in times[1:][position:])
    assert all(at < time for at in times[1:][history.evicted : position])


def test_an_id_is_valid_in_a_header_and_in_a_query_string() -> None:
    history, entries = filled(12)
    for id in (History(max_bytes=1).id_of(0), history.id_of(0), entries[-1].id):
        assert id.replace(b"-", b"").isalnum()


def test_a_history_that_begins_at_a_position_has_evicted_everything_before() -> None:
    history, _ = filled(3)
    history.begin(99, [("a", 1), ("b", 50)])
    assert (history.position, history.evicted, history.size_bytes) == (99, 99, 0)
    assert history.position_of("e-1") is None
    assert [history.position_of(id) for id in ("a-49", "a-50", "b-50", "b-99", "b-100")] == [
        *(49, None, 50),
        *(99, None),
    ]
    entry = add(history)
    history.begin_term("c")
    newest = add(history)
    assert (entry.id, newest.id) == (b"b-100", b"c-101")
    assert [history.entry(position) for position in (100, 101)] == [entry, newest]
    assert list(history.after(99, 10)) == [entry, newest]
    assert history.position_since(0.0, 1.0, 1.0) == 99
