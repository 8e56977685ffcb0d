"""The filter against a matcher that is written another way, and the conformance table of all clients."""

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.event import FILTER_FIELDS, keys
from gateway.filter import MAX_GLOBS, MAX_PATTERN_CHARS, MAX_PATTERNS, AnyOf, Filter, build, parse

# As the README lists them.
FIELDS = ("type", "name", "root_id", "parent_id", "uuid", "hostname", "state", "queue", "cluster")
TABLE = json.loads((Path(__file__).parent / "conformance" / "filter.json").read_text("utf-8"))

Parameters = dict[str, list[str]]
EventFields = dict[str, Any]
DRAWN = settings(deadline=None, max_examples=250, derandomize=True)


def glob_matches(pattern: str, text: str) -> bool:
    """Walks all places in the text that the pattern can have come to."""
    places = {0}
    for sign in pattern:
        if sign == "*":
            places = set(range(min(places), len(text) + 1))
        else:
            places = {at + 1 for at in places if at < len(text) and sign in ("?", text[at])}
        if not places:
            return False
    return len(text) in places


def expected_match(parameters: Parameters, event: EventFields) -> bool:
    for field, values in parameters.items():
        texts = ",".join(values).split(",") if values else []
        wanted = [text for text in texts if text[0] != "!"]
        excluded = [text[1:] for text in texts if text[0] == "!"]
        value = event.get(field)
        if not isinstance(value, str):
            if wanted:
                return False
            continue
        if wanted and not any(glob_matches(text, value) for text in wanted):
            return False
        if any(glob_matches(text, value) for text in excluded):
            return False
    return True


SIGNS = st.sampled_from(list("aab.*?![]\\^$+(){}|-&~#: \n\té\u2028😀"))
TEXTS = st.text(st.one_of(st.sampled_from("ab"), SIGNS), max_size=6)


@st.composite
def patterns(draw: st.DrawFn, value: str) -> str:
    """A pattern: often one that comes from a value by putting stars and question marks into it."""
    if draw(st.booleans()):
        text = draw(TEXTS)
    else:
        text = "".join(
            draw(st.sampled_from([sign, sign, "?", "*", "", "**", sign + "*"]))
            for sign in value.replace(",", "?")
        )
    text = text or draw(st.sampled_from(["*", "?", "a"]))
    return ("!" if draw(st.integers(0, 3)) == 0 else "") + text if text != "!" else "!!"


@st.composite
def questions(draw: st.DrawFn) -> tuple[Parameters, EventFields]:
    values = st.one_of(TEXTS, TEXTS, st.none(), st.integers(), st.booleans(), st.lists(TEXTS, max_size=1))
    event = {field: draw(values) for field in FIELDS if draw(st.booleans())}
    parameters: Parameters = {}
    for field in draw(st.lists(st.sampled_from(FIELDS), max_size=3, unique=True)):
        value = event.get(field)
        drawn = patterns(value if isinstance(value, str) else "")
        parameters[field] = draw(st.lists(st.lists(drawn, min_size=1, max_size=3).map(",".join), max_size=3))
    return parameters, event


@DRAWN
@given(questions())
def test_a_filter_passes_what_a_matcher_written_another_way_passes(
    question: tuple[Parameters, EventFields],
) -> None:
    parameters, event = question
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as re's on what looks like a nested set
        matches = parse(parameters).matches(keys(event))
    assert matches == expected_match(parameters, event)


@DRAWN
@given(TEXTS.filter(lambda text: "," not in text and text.strip("!")), TEXTS)
def test_a_pattern_and_its_exclusion_part_the_values_between_them(pattern: str, value: str) -> None:
    pattern = pattern.lstrip("!")
    event = keys({"name": value})
    assert parse({"name": [pattern]}).matches(event) != parse({"name": ["!" + pattern]}).matches(event)


@pytest.mark.parametrize("case", TABLE["cases"], ids=[case["rule"] for case in TABLE["cases"]])
def test_the_conformance_table_holds(case: dict[str, Any]) -> None:
    parameters = parse_qs(case["query"], keep_blank_values=True)
    filter = parse(parameters)
    for event in case["matches"]:
        assert expected_match(parameters, event), f"the table's own reference: {event}"
        assert filter.matches(keys(event)), event
    for event in case["misses"]:
        assert not expected_match(parameters, event), f"the table's own reference: {event}"
        assert not filter.matches(keys(event)), event


@pytest.mark.parametrize("case", TABLE["refused"], ids=[case["query"] for case in TABLE["refused"]])
def test_an_empty_value_is_refused_with_the_name_of_its_parameter(case: dict[str, str]) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(parse_qs(case["query"], keep_blank_values=True))
    assert (refused.value.code, refused.value.parameter) == (case["code"], case["parameter"])
    assert str(refused.value)


def test_the_fields_are_those_of_the_contract_and_keys_follow_them() -> None:
    assert FILTER_FIELDS == FIELDS
    assert keys({field: field.upper() for field in FIELDS}) == tuple(field.upper() for field in FIELDS)
    assert keys({"name": None, "type": 5, "uuid": ["u"]}) == (None,) * len(FIELDS)


def test_every_field_is_looked_at_under_its_own_name() -> None:
    for asked in FIELDS:
        filter = parse({asked: ["x"]})
        assert [field for field in FIELDS if filter.matches(keys({field: "x"}))] == [asked]


@pytest.mark.parametrize("field", FIELDS)
def test_as_many_patterns_as_allowed_pass_and_one_more_is_refused(field: str) -> None:
    texts = [f"v{number}" for number in range(MAX_PATTERNS)]
    assert parse({field: texts}).matches(keys({field: "v999"}))
    assert parse({field: [",".join(texts)]}).matches(keys({field: "v999"}))
    for values in ([*texts, "one-more"], [",".join([*texts, "one-more"])], [*texts[1:], "a,b"]):
        with pytest.raises(BadRequest) as refused:
            parse({field: values})
        assert (refused.value.code, refused.value.parameter) == ("too-many-values", field)


def test_patterns_are_counted_over_all_fields_together() -> None:
    half = [f"v{number}" for number in range(MAX_PATTERNS // 2)]
    parse({"type": half, "name": half})
    with pytest.raises(BadRequest) as refused:
        parse({"type": half, "name": half, "queue": ["one-more"]})
    assert (refused.value.code, refused.value.parameter) == ("too-many-values", "queue")


def test_a_pattern_as_long_as_allowed_passes_and_a_longer_one_is_refused() -> None:
    longest = "a" * MAX_PATTERN_CHARS
    assert parse({"name": [longest]}).matches(keys({"name": longest}))
    for text in (longest + "a", f"a,{longest}a", "!" + longest + "a", "*" + longest):
        with pytest.raises(BadRequest) as refused:
            parse({"name": [text]})
        assert (refused.value.code, refused.value.parameter) == ("value-too-long", "name")


def test_parameters_without_values_ask_for_nothing() -> None:
    assert parse({}) == parse({field: [] for field in FIELDS}) == Filter()
    assert parse({}).matches(keys({"type": "anything"}))


@DRAWN
@given(questions(), st.randoms(use_true_random=False))
def test_filters_that_ask_for_the_same_are_equal_and_have_one_hash(
    question: tuple[Parameters, EventFields], random: Random
) -> None:
    parameters, event = question
    said_otherwise: Parameters = {}
    for field in random.sample(list(parameters), len(parameters)):
        texts = [text for value in parameters[field] for text in value.split(",")]
        texts += random.choices(texts, k=random.randrange(3)) if texts else []
        random.shuffle(texts)
        cut = random.randrange(len(texts) + 1)
        said_otherwise[field] = [",".join(part) for part in (texts[:cut], texts[cut:]) if part]
    one, other = parse(parameters), parse(said_otherwise)
    assert one == other
    assert hash(one) == hash(other)
    assert {one: "found"}[other] == "found"
    assert one.matches(keys(event)) == other.matches(keys(event))


def test_filters_that_ask_for_something_else_are_not_equal() -> None:
    asked: list[Parameters] = [
        {},
        {"name": ["a"]},
        {"name": ["A"]},
        {"name": ["!a"]},
        {"name": ["a", "!a"]},
        {"name": ["a*"]},
        {"name": ["a", "b"]},
        {"uuid": ["a"]},
        {"name": ["a"], "uuid": ["a"]},
    ]
    assert len({parse(parameters) for parameters in asked}) == len(asked)


@settings(DRAWN, max_examples=150)
@given(st.lists(questions(), max_size=3))
def test_any_of_some_filters_passes_what_one_of_them_passes(
    asked: list[tuple[Parameters, EventFields]],
) -> None:
    any_of = AnyOf(frozenset(parse(parameters) for parameters, _ in asked))
    assert any_of == AnyOf(frozenset(parse(parameters) for parameters, _ in reversed(asked)))
    assert hash(any_of) == hash(AnyOf(any_of.filters))
    for _, event in asked:
        expected = any(expected_match(parameters, event) for parameters, _ in asked)
        assert any_of.matches(keys(event)) == expected


@settings(DRAWN, max_examples=150)
@given(st.lists(questions(), min_size=1, max_size=3))
def test_what_a_filter_says_of_itself_for_the_index_is_true(
    asked: list[tuple[Parameters, EventFields]],
) -> None:
    filters = [parse(parameters) for parameters, _ in asked]
    every: list[Filter | AnyOf] = [*filters, AnyOf(frozenset(filters))]
    for filter in every:
        for _, event in asked:
            seen = keys(event)
            others_gone = tuple(value if at in filter.fields else None for at, value in enumerate(seen))
            assert filter.matches(others_gone) == filter.matches(seen), "it depends on its fields alone"
            if filter.lookups is not None and filter.matches(seen):
                assert any(seen[at] == value for at, value in filter.lookups)


def test_a_filter_that_is_built_takes_each_pattern_whole() -> None:
    filter = build({"name": ["a,b", "!x,*"]})
    assert [name for name in ("a,b", "a", "b", "x,y") if filter.matches(keys({"name": name}))] == ["a,b"]
    for patterns in ([""], ["!"], ["a", ""]):
        with pytest.raises(BadRequest):
            build({"name": patterns})


def test_a_filter_cannot_be_changed() -> None:
    filter = parse({"name": ["a"]})
    with pytest.raises(AttributeError):
        filter.clauses = ()  # type: ignore[misc]


def cpu_seconds(work: Callable[[], object]) -> float:
    """The shorter of two runs, since the machine is shared."""

    def once() -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    return min(once(), once())


HOSTILE_PATTERNS = {
    "stars and letters": "*a" * 30,
    "stars and letters, and no match at the end": "*a" * 30 + "b",
    "as many stars as fit": "*a" * 499 + "b",
    "stars and question marks": "*?" * 499 + "b",
    "a long tail": "*" + "a" * 998 + "b",
    "a long tail of question marks": "*" + "?" * 998 + "b",
    "a long middle": "*" + "a" * 498 + "b*" + "a" * 499,
    "stars only": "*" * 999 + "b",
}


@pytest.mark.parametrize("pattern", HOSTILE_PATTERNS.values(), ids=HOSTILE_PATTERNS.keys())
def test_no_pattern_is_slow_to_match(pattern: str) -> None:
    filter = parse({"name": [pattern]})

    def match_seconds(length: int) -> float:
        event = keys({"name": "a" * length})
        return cpu_seconds(lambda: filter.matches(event))

    assert match_seconds(5_000) < 0.2
    # Linear: four times the text, four times the work (and some room for a shared machine).
    assert match_seconds(40_000) < max(0.02, 10 * match_seconds(10_000))


def test_a_filter_with_all_the_globs_it_may_have_is_made_and_asked_in_reasonable_time() -> None:
    globs = [f"*a*b{number}*{'?' * 20}" for number in range(MAX_GLOBS)]
    assert cpu_seconds(lambda: parse({"name": globs})) < 2
    filter = parse({"name": globs})
    event = keys({"name": "ab" * 50})
    assert cpu_seconds(lambda: filter.matches(event)) < 0.2
