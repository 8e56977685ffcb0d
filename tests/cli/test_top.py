"""`celery-gateway top`: its page, and the terminal that it draws on."""

import io
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from celery_gateway.cli.top_numbers import ASCII_BARS, bars, duration, rate, share
from celery_gateway.cli.top_overview import DEAD_SECONDS, QUIET_SECONDS, SORTS, Overview
from celery_gateway.cli.top_view import MIN_WIDTH, Page, render
from tests.support.thorough import tries

NOW = 1_764_000_000.0


def statistics(*items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"type": "gateway-statistics", "window": 3600.0, "time": NOW, "names": list(items)} | fields


def item(name: str | None, **fields: Any) -> dict[str, Any]:
    buckets = {"seconds": 60.0, "start": NOW - 119.0, "succeeded": [10, 30], "failed": [0, 0]}
    return {"name": name, "buckets": buckets | {"retried": [0, 0]}, "succeeded": 40} | fields


def opened(now: float = NOW, **source: Any) -> Overview:
    """An overview of a gateway that consumes."""
    overview = Overview()
    overview.on_message({"type": "gateway-open", "id": "a-1"}, now)
    sources = [{"cluster": None, "consuming": True, "reason": "consuming"} | source]
    overview.on_message({"type": "gateway-status", "sources": sources}, now)
    return overview


def text_of(overview: Overview, width: int = 120, height: int | None = None, now: float = NOW) -> str:
    """The page as text without styles."""
    console = Console(width=width, file=io.StringIO(), color_system=None, legacy_windows=False)
    console.print(render(overview, Page(width, height, "busy", "1h"), now))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# Numbers


@pytest.mark.unit
@given(st.lists(st.integers(0, 10**6), max_size=80), st.integers(1, 80))
def test_only_zero_has_no_bar_and_the_highest_one_is_full(values: list[int], width: int) -> None:
    text = bars(values, width, ASCII_BARS)
    assert len(text) == min(width, len(values))
    if len(values) <= width:
        for symbol, value in zip(text, values, strict=True):
            level = ASCII_BARS.index(symbol)
            assert (level == 0) == (value == 0)
            if value:
                assert (level - 1) * max(values) < 8 * value <= level * max(values)
    elif any(values):
        assert ASCII_BARS[-1] in text


@pytest.mark.unit
@given(st.floats(0, 1e12))
def test_a_duration_is_read_back_to_within_five_percent(seconds: float) -> None:
    number, unit = duration(seconds).removeprefix("<").split(" ")
    size = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}[unit]
    assert float(number) * size == pytest.approx(seconds, rel=0.06, abs=0.001)
    assert rate(seconds)


@pytest.mark.unit
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_share_is_all_or_nothing_only_if_it_is(part: int, rest: int) -> None:
    text = share(part, part + rest)
    assert (text == "100 %") == (rest == 0 < part)
    assert (text == "0 %") == (part == 0 < rest)


# The state


@pytest.mark.unit
def test_the_status_is_good_only_while_data_arrives_and_all_brokers_are_consumed() -> None:
    assert Overview().health(NOW).level == "waiting"
    overview = Overview()
    overview.on_message({"type": "gateway-open", "id": "a-1"}, NOW)
    assert overview.health(NOW).level == "waiting"  # the state of the broker is not known yet
    overview = opened()
    assert overview.health(NOW + QUIET_SECONDS).level == "ok"
    assert overview.health(NOW + QUIET_SECONDS + 1).level == "waiting"
    assert overview.health(NOW + DEAD_SECONDS + 1).level == "bad"
    overview.on_problem("the stream ended; reconnecting")
    assert overview.health(NOW).text == "the stream ended; reconnecting"
    overview.on_message({"type": "gateway-bookmark", "id": "a-2"}, NOW + 50)
    assert overview.health(NOW + 50).level == "ok"
    away = opened(consuming=False, reason="nothing listens there", cluster="eu")
    assert away.health(NOW).level == "bad"
    assert "broker eu: nothing listens there" in text_of(away)


@pytest.mark.unit
def test_a_connection_begins_with_all_names_and_goes_on_with_changes() -> None:
    overview = opened()
    overview.on_message(statistics(item("a"), item("b")), NOW)
    overview.on_message(statistics(item("b", running=2), item("c")), NOW)
    assert [(row.name, row.running) for row in overview.rows("name", NOW)] == [("a", 0), ("b", 2), ("c", 0)]
    overview.on_message({"type": "gateway-open", "id": "b-1"}, NOW)  # another connection
    overview.on_message(statistics(item("c"), item("d", succeeded=0)), NOW)
    assert [row.name for row in overview.rows("name", NOW)] == ["c"]  # d has nothing to show


@pytest.mark.unit
def test_the_rate_is_that_of_the_last_minute() -> None:
    overview = opened()
    overview.on_message(statistics(item("a")), NOW)
    # The current bucket began 59 s ago, so a sixtieth of the one before counts.
    (row,) = overview.rows("busy", NOW)
    assert row.per_minute == pytest.approx(30 + 10 / 60)
    for later, expected in ((31, 15.0), (61, 0.0), (1000, 0.0)):  # without any message, nothing has ended
        (row,) = overview.rows("busy", NOW + later)
        assert row.per_minute == pytest.approx(expected, abs=0.01)


@pytest.mark.unit
def test_the_clock_of_the_gateway_gives_the_ages() -> None:
    overview = opened()
    failure = {"uuid": "u", "time": NOW + 100 - 12, "exception": "Timeout()"}
    overview.on_message(statistics(item("a", last_failure=failure), time=NOW + 100), NOW)
    assert "12 s ago: Timeout()" in text_of(overview, 160)


@pytest.mark.unit
def test_what_a_token_does_not_show_is_named() -> None:
    overview = opened()
    overview.refused |= {"statistics", "queues"}
    overview.on_workers([{"hostname": "w1@h", "status": "online", "alive": True}])
    text = text_of(overview)
    assert "does not show statistics (it needs the permission state)" in text
    assert "queues: the token does not show them (it needs the permission workers)" in text
    assert "w1@h" in text


@pytest.mark.unit
def test_workers_and_queues_that_need_attention_are_first() -> None:
    overview = opened()
    overview.on_workers(
        [
            {"hostname": "a@h", "status": "online", "alive": True, "sends_task_events": False},
            {"hostname": "b@h", "status": "silent", "alive": False, "since": NOW - 30},
        ]
    )
    overview.on_queues(
        [
            {"name": "mail", "depth": 0, "consumers": 0},
            {"name": "media", "depth": 340, "consumers": 0, "oldest": NOW - 400},
            {"name": "gone", "error": "it does not exist"},
        ]
    )
    lines = text_of(overview).splitlines()
    found = [next(n for n, line in enumerate(lines) if line.startswith(name)) for name in ("b@h", "a@h")]
    assert found == sorted(found)
    assert "silent for 30 s" in lines[found[0]] and "use -E" in lines[found[1]]
    (media,) = (line for line in lines if line.startswith("media"))
    assert "340" in media and "6.7 min" in media and media.rstrip().endswith("no consumer")
    assert not next(line for line in lines if line.startswith("mail")).rstrip().endswith("consumer")
    assert "it does not exist" in text_of(overview)


# Whatever a stream has

ODD = st.sampled_from(
    [
        math.nan,
        math.inf,
        -1,
        10**400,
        2**63,
        "\x1b[2J",
        "a\x9bb",
        "\u202e\ud800\u2028",
        "[bold]x[/bold]",
        "漢" * 300,
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def with_fields(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), JSON, max_size=len(names))


SERIES = st.lists(st.integers(0, 50) | ODD, max_size=5)
BUCKETS = st.fixed_dictionaries(
    {
        "seconds": st.just(60.0) | JSON,
        "start": st.just(NOW) | JSON,
        "succeeded": SERIES,
        "failed": SERIES | JSON,
    }
)
ITEM = st.builds(
    lambda some, buckets, name: {**some, "buckets": buckets, "name": name, "running": 1},
    with_fields("waiting", "succeeded", "failed", "retried", "runtime", "wait", "last_failure", "cluster"),
    BUCKETS | JSON,
    JSON,
)
WORKER = with_fields("hostname", "status", "alive", "since", "active", "processed", "loadavg", "cluster")
QUEUE = with_fields("name", "depth", "unacknowledged", "consumers", "oldest", "error", "cluster")
SOURCE = with_fields("cluster", "consuming", "reason")


@pytest.mark.unit
@pytest.mark.slow
@settings(max_examples=tries(120), deadline=None)
@given(
    st.lists(ITEM | JSON, max_size=12),
    st.lists(WORKER | JSON, max_size=12),
    st.lists(QUEUE | JSON, max_size=12),
    st.lists(SOURCE | JSON, max_size=2),
    st.sampled_from(SORTS),
    st.sampled_from([MIN_WIDTH, 80, 100, 118, 140, 200]),
    st.integers(12, 60) | st.none(),
    JSON,
)
def test_any_json_gives_a_page_that_fits_and_cannot_steer_the_terminal(
    items: list[Any],
    workers: list[Any],
    queues: list[Any],
    sources: list[Any],
    sort: Any,
    width: int,
    height: int | None,
    odd: Any,
) -> None:
    overview = Overview()
    overview.on_message({"type": "gateway-status", "sources": sources}, NOW)
    overview.on_message({"type": "gateway-worker", "worker": odd}, NOW)
    overview.on_message(statistics(*items, total=odd, other=odd, time=odd), NOW)
    overview.on_workers(workers)
    overview.on_queues(queues)
    console = Console(width=width, file=io.StringIO(), color_system=None, legacy_windows=False)
    console.print(render(overview, Page(width, height, sort, "1h"), NOW))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    lines = text.split("\n")[:-1]
    assert all(cell_len(line) <= width for line in lines)
    if height is not None and height >= 20:
        assert len(lines) < height  # and one line of the caller
    for line in lines:
        assert not any(
            ord(each) < 32 or 0x7F <= ord(each) < 0xA0 or each in "\u202e\u2028\ud800" for each in line
        )
    text.encode()
