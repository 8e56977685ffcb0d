"""The filter index: it finds exactly the items whose filter matches, and keeps nothing of removed items."""

import gc
import random
import sys
import time
import weakref
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.events.event import FILTER_FIELDS, Keys, keys
from celery_gateway.events.filter import AnyOf, Filter
from celery_gateway.events.filter_parser import parse
from celery_gateway.events.matcher import MAX_VALUE_CHARS
from celery_gateway.events.pattern import escape
from celery_gateway.stream.filter_index import FilterIndex
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

LONG = "ab" + "x" * 5_000
VALUES = ["a", "ab", "b", "a.b", "a,b", "!a", "a*", "\\", LONG]
PATTERNS = [
    *map(escape, VALUES[:-1]),
    "a*",
    "ab*",
    "abx*",
    "a?",
    "?",
    "*",
    "*b",
    "!a",
    "!*b",
    r"!\!a",
    r"!a\*",
    "\\",
]
FILTERS = st.dictionaries(
    st.sampled_from(FILTER_FIELDS), st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3), max_size=3
).map(parse)
MATCHERS = st.one_of(FILTERS, st.frozensets(FILTERS, max_size=3).map(AnyOf))
EVENTS = st.dictionaries(st.sampled_from(FILTER_FIELDS), st.sampled_from(VALUES)).map(keys)


@pytest.mark.slow
@pytest.mark.parametrize("is_cache_small", [False, True])
@settings(deadline=None, max_examples=tries(100))
@given(st.lists(MATCHERS, max_size=12), st.lists(EVENTS, min_size=1, max_size=12), st.randoms())
def test_the_index_finds_what_evaluating_every_filter_finds(
    is_cache_small: bool, matchers: list[Filter | AnyOf], events: list[Keys], chance: random.Random
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if is_cache_small:
            patch.setattr("celery_gateway.stream.filter_index.MAX_CACHE_BYTES", 5_000)
            patch.setattr("celery_gateway.stream.filter_index.MIN_REMOVALS", 2)
            patch.setattr("celery_gateway.stream.filter_index.MAX_NEW_ENTRIES", 1)
        index: FilterIndex[int] = FilterIndex()
        present: dict[int, Filter | AnyOf] = {}

        def check() -> None:
            for event in chance.sample(events, chance.randint(1, len(events))):
                found = list(index.find(event))
                wanted = [item for item, matcher in present.items() if matcher.matches(event)]
                assert sorted(found) == sorted(wanted)

        for item, matcher in enumerate(matchers):
            index.add(matcher, item)
            present[item] = matcher
            check()
        for item in chance.sample(sorted(present), len(present)):
            matcher = present.pop(item)
            index.remove(matcher, item)
            check()
            if chance.random() < 0.3:
                index.add(matcher, item + 100)
                present[item + 100] = matcher
                check()
        for item, matcher in present.items():
            index.remove(matcher, item)
        assert is_empty(index)


def is_empty(index: FilterIndex[Any]) -> bool:
    tables = [index._by_id]
    counts = [len(index._entries), len(index._caches), index._multiple_count]
    for table in tables:
        counts += [len(table.entries), len(table.others), len(table._prefix_chars)]
        counts += [len(table._by_value), len(table._by_prefix), len(table._prefix_counts)]
    return not any(counts)


evaluated: list[Keys] = []


class Watched(Filter):
    """A filter that records in ``evaluated`` the keys that it is evaluated for."""

    def matches(self, keys: Keys) -> bool:
        evaluated.append(keys)
        return super().matches(keys)


def test_filters_on_other_ids_are_not_evaluated() -> None:
    evaluated.clear()
    index: FilterIndex[str] = FilterIndex()
    for number in range(5_000):
        index.add(Watched(parse({"root_id": [f"root-{number}"]}).clauses), str(number))
    assert list(index.find(keys({"type": "task-started", "root_id": "root-77"}))) == ["77"]
    assert len(evaluated) == 1


def test_each_alternative_is_found_by_itself() -> None:
    """2,000 clients watch the workers and one task each."""
    evaluated.clear()

    def watched(**parameters: str) -> Filter:
        return Watched(parse({field: [value] for field, value in parameters.items()}).clauses)

    index: FilterIndex[str] = FilterIndex()
    for number in range(2_000):
        index.add(AnyOf(frozenset([watched(type="worker-*"), watched(uuid=f"u{number}")])), str(number))
    task = keys({"type": "task-started", "uuid": "u77"})
    assert list(index.find(task)) == ["77"]
    assert len(list(index.find(keys({"type": "worker-online"})))) == 2_000
    evaluated.clear()
    assert list(index.find(task)) == ["77"]
    assert list(index.find(keys({"type": "task-started", "uuid": "u78"}))) == ["78"]
    assert len(evaluated) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("of_many", "of_guests"), [("n{}*", "n1?34x"), ("*n{}x", "*n1*"), ("!{}", "!{}"), ("n{}", "n1234x")]
)
def test_added_and_removed_items_cause_no_evaluation_of_the_others(of_many: str, of_guests: str) -> None:
    evaluated.clear()
    index: FilterIndex[str] = FilterIndex()
    for number in range(2_000):
        index.add(Watched(parse({"name": [of_many.format(number)]}).clauses), str(number))
    events = [keys({"type": "task-started", "name": name, "state": "STARTED"}) for name in ("n1234x", "y")]
    before = [len(list(index.find(event))) for event in events]
    evaluated.clear()
    for number in range(1_500):
        comes = Watched(parse({"name": [of_guests.format(f"guest{number}")]}).clauses)
        index.add(comes, f"guest{number}")
        assert len(list(index.find(events[0]))) == before[0] + 1
        index.remove(comes, f"guest{number}")
        assert len(list(index.find(events[0]))) == before[0]
    assert len(evaluated) == 1_500
    assert [len(list(index.find(event))) for event in events] == before
    assert len(evaluated) <= 1_500 + 2_000  # for the other name, whose result was dropped


@pytest.mark.slow
def test_names_and_prefixes_are_looked_up() -> None:
    """4,000 new names, and 8,000 clients with a name or a prefix each."""
    evaluated.clear()
    index: FilterIndex[str] = FilterIndex()
    for number in range(2_000):
        index.add(Watched(parse({"name": [f"team{number}.*"], "type": ["task-*"]}).clauses), f"p{number}")
        index.add(Watched(parse({"name": [f"team{number}.x", f"y{number}"]}).clauses), f"e{number}")
        index.add(Watched(parse({"hostname": [f"h{number}"], "name": ["t*"]}).clauses), f"h{number}")
        index.add(Watched(parse({"uuid": ["!x"], "name": [f"team{number}.?"]}).clauses), f"u{number}")
    for number in range(4_000):
        event = keys({"type": "task-sent", "uuid": f"{number}", "name": f"team{number}.x", "hostname": "h1"})
        found = {f"p{number}", f"e{number}", f"u{number}"} if number < 2_000 else set()
        assert set(index.find(event)) == found | {"h1"}
    assert len(evaluated) <= 4_000 * 5


def test_equal_filters_are_evaluated_once() -> None:
    evaluated.clear()
    index: FilterIndex[int] = FilterIndex()
    for number in range(1_000):
        index.add(Watched(parse({"uuid": ["*a*"]}).clauses), number)
    assert list(index.find(keys({"uuid": "xay"}))) == list(range(1_000))
    assert len(evaluated) == 1


def test_a_filter_on_more_fields_does_not_affect_the_results_of_others() -> None:
    evaluated.clear()
    index: FilterIndex[str] = FilterIndex()
    index.add(Watched(parse({"name": ["*a*"]}).clauses), "it")
    fields = ("type", "hostname", "state", "queue", "cluster")
    for number in range(500):
        other = parse({field: ["!x"] for field in random.Random(number).sample(fields, 2)})
        index.add(other, "other")
        event = keys({field: f"{field}{number}" for field in fields} | {"name": "a"})
        assert set(index.find(event)) == {"it", "other"}
        index.remove(other, "other")
    assert len(evaluated) == 1


def cached_bytes(index: FilterIndex[Any]) -> int:
    seen: set[int] = set()

    def size(value: Any) -> int:
        if id(value) in seen:
            return 0
        seen.add(id(value))
        own = sys.getsizeof(value)
        if isinstance(value, dict):
            return own + sum(size(key) + size(each) for key, each in value.items())
        return own + sum(map(size, value)) if isinstance(value, tuple) else own

    return sum(size(cache.young) + size(cache.old) for cache in index._caches.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a{}", "a{}" + "😀" * 300, "a{}" + "x" * 9_000])
def test_the_cache_is_bounded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celery_gateway.stream.filter_index.MAX_CACHE_BYTES", 500_000)
    index: FilterIndex[str] = FilterIndex()
    for number in range(20):
        index.add(parse({"name": ["a*"], "hostname": [f"!{number}"]}), f"one{number}")
    index.add(parse({"name": ["a*"]}), "it")
    largest_bytes = 0
    for number, host in product(range(40), range(40)):
        event = keys({"name": name.format(number), "hostname": f"b{host}"})
        assert len(list(index.find(event))) == 21
        if host == 0:
            largest_bytes = max(largest_bytes, cached_bytes(index))
    assert 200_000 < largest_bytes < 600_000


def test_the_cache_keeps_no_removed_filter() -> None:
    index: FilterIndex[str] = FilterIndex()
    event = keys({"name": "a"})
    removed = []
    index.add(parse({"name": ["*"]}), "stays")
    for number in range(100):
        filter = Watched(parse({"name": ["*a*", f"!x{number}"]}).clauses)
        removed.append(weakref.ref(filter))
        index.add(filter, "it")
        assert set(index.find(event)) == {"stays", "it"}
        index.remove(filter, "it")
    del filter
    gc.collect()
    assert not [filter for filter in removed if filter() is not None]
    # The result of an event that is not repeated does not keep removed entries, either.
    for number in range(3_000):
        filter = parse({"name": [f"!x{number}"]})
        index.add(filter, "it")
        index.find(keys({"name": "b"}))
        index.remove(filter, "it")
    results = [*index._caches[parse({"name": ["a"]}).fields].young, *index._caches[frozenset([1])].old]
    assert "a" not in results


def test_a_long_name_is_cached_by_its_beginning() -> None:
    evaluated.clear()
    index: FilterIndex[str] = FilterIndex()
    index.add(Watched(parse({"name": ["*x*"]}).clauses), "it")
    for number in range(100):
        assert list(index.find(keys({"name": "x" * MAX_VALUE_CHARS + str(number)}))) == ["it"]
    assert len(evaluated) == 1


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["team{}.*", "*team{}.*"])
def test_added_and_removed_filters_cost_little_cpu_time(pattern: str) -> None:
    """5,000 different filters; for each of 500 events one filter is added, and another one is removed."""
    index: FilterIndex[int] = FilterIndex()
    filters = [parse({"name": [pattern.format(number)]}) for number in range(5_500)]
    events = [keys({"type": "task-sent", "name": f"team{number}.charge"}) for number in range(100)]
    for number, filter in enumerate(filters[:5_000]):
        index.add(filter, number)
    for event in events:
        index.find(event)

    def work() -> None:
        for number in range(500):
            index.add(filters[5_000 + number], 5_000 + number)
            assert len(list(index.find(events[number % 100]))) == 1
            index.remove(filters[number + 500], number + 500)

    reference = cpu_seconds(lambda: [[each.matches(event) for each in filters] for event in events])
    assert cpu_seconds(work) < reference, "a fifth of what it takes to evaluate all filters"


@pytest.mark.slow
def test_prefixes_of_all_lengths_are_found_in_little_cpu_time() -> None:
    index: FilterIndex[int] = FilterIndex()
    filters = []
    for number in range(1, 900):
        filters += [parse({"name": ["a" * number + end]}) for end in ("b*", f"c{number}*")]
        index.add(filters[-2], number)
        index.add(filters[-1], -number)
    events = [keys({"name": "a" * 900 + str(number)}) for number in range(100)]
    found = cpu_seconds(lambda: [list(index.find(event)) for event in events])
    assert found < 5 * cpu_seconds(lambda: [[each.matches(event) for each in filters] for event in events])
    assert list(index.find(keys({"name": "a" * 63 + "bx"}))) == [63]
    assert list(index.find(keys({"name": "a" * 800 + "bx"}))) == [800]
