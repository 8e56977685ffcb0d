"""The index finds exactly those whose filter matches, and forgets those that leave."""

import random
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.event import FILTER_FIELDS, Keys, keys
from gateway.filter import AnyOf, Filter, escape, parse
from gateway.index import MAX_MEMO, Index

VALUES = ["a", "ab", "b", "a.b", "a,b", "!a", "a*", "\\"]
PATTERNS = [*map(escape, VALUES), "a*", "?", "*", "!a", "!*b", r"!\!a", r"!a\*", "\\"]
FILTERS = st.dictionaries(
    st.sampled_from(FILTER_FIELDS), st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3), max_size=3
).map(parse)
MATCHERS = st.one_of(FILTERS, st.frozensets(FILTERS, max_size=3).map(AnyOf))
EVENTS = st.dictionaries(st.sampled_from(FILTER_FIELDS), st.sampled_from(VALUES)).map(keys)


@settings(deadline=None, max_examples=300)
@given(st.lists(MATCHERS, max_size=12), st.lists(EVENTS, min_size=1, max_size=12), st.randoms())
def test_it_finds_what_asking_everybody_finds(
    matchers: list[Filter | AnyOf], events: list[Keys], chance: random.Random
) -> None:
    index: Index[int] = Index()
    present: dict[int, Filter | AnyOf] = {}

    def check() -> None:
        for event in events:
            found = list(index.find(event))
            assert sorted(found) == [item for item, matcher in present.items() if matcher.matches(event)]

    for item, matcher in enumerate(matchers):
        index.add(matcher, item)
        present[item] = matcher
        check()
    for item in chance.sample(sorted(present), len(present)):
        index.remove(present.pop(item), item)
        check()


def test_subscribers_of_other_ids_are_not_even_asked() -> None:
    asked: list[str] = []

    class Watched(Filter):
        def matches(self, keys: Keys) -> bool:
            asked.append("")
            return super().matches(keys)

    index: Index[str] = Index()
    for number in range(5_000):
        index.add(Watched(parse({"root_id": [f"root-{number}"]}).clauses), str(number))
    assert list(index.find(keys({"type": "task-started", "root_id": "root-77"}))) == ["77"]
    assert len(asked) == 1


def test_what_it_remembers_is_bounded() -> None:
    index: Index[str] = Index()
    index.add(parse({"name": ["a*"], "hostname": ["b*"]}), "it")
    for name, host in product(range(150), range(150)):
        event = keys({"name": f"a{name}", "hostname": f"b{host}"})
        assert list(index.find(event)) == ["it"]
    assert len(index._memo) <= MAX_MEMO
