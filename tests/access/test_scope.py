"""Scopes: their syntax, and what a request sees within one, against an oracle that is written another way."""

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.access.scope import EVERYTHING, MAX_PAIRS, Scope
from celery_gateway.errors import BadRequest, Forbidden
from celery_gateway.events.event import FILTER_FIELDS, ORIGIN_FIELDS, Keys
from celery_gateway.events.fields import Fields
from celery_gateway.events.filter_parser import build, build_any
from celery_gateway.tokens import MAX_ALTERNATIVES

pytestmark = pytest.mark.unit

VALUES = st.sampled_from([None, "a", "b", "ab", "c"])
PATTERNS = st.lists(st.sampled_from(["a", "b", "a*", "!a", "!b*", "?b"]), min_size=1, max_size=2)
FILTERS = st.dictionaries(
    st.sampled_from(["name", "root_id", "uuid", "queue", "hostname"]), PATTERNS, max_size=3
)


def keys(own: dict[str, str | None], origin: dict[str, str | None]) -> Keys:
    """The keys of an event with these values of its own, whose task has those of its origin."""
    return (*map(own.get, FILTER_FIELDS), *map(origin.get, ORIGIN_FIELDS))


def passes(patterns: list[str], value: str | None, *, is_scope: bool) -> bool:
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    if value is None:
        return not wanted and not is_scope
    return (not wanted or any(fnmatchcase(value, each) for each in wanted)) and not any(
        fnmatchcase(value, each) for each in unwanted
    )


@settings(deadline=None)
@given(
    scope=st.lists(FILTERS, max_size=3),
    wanted=st.lists(FILTERS, min_size=1, max_size=3),
    own=st.fixed_dictionaries({field: VALUES for field in ("name", "root_id", "uuid", "queue", "hostname")}),
    origin=st.fixed_dictionaries({field: VALUES for field in ("name", "root_id", "queue")}),
)
def test_what_is_visible_passes_the_request_by_its_own_values_and_the_scope_by_its_origin(
    scope: list[dict[str, list[str]]],
    wanted: list[dict[str, list[str]]],
    own: dict[str, str | None],
    origin: dict[str, str | None],
) -> None:
    joined = own | origin
    allowed = any(
        all(passes(patterns, joined[field], is_scope=True) for field, patterns in each.items())
        for each in scope
    )
    asked = any(
        all(passes(patterns, own[field], is_scope=False) for field, patterns in each.items())
        for each in wanted
    )
    filter = Scope.parse({"any": scope}).restrict(build_any(wanted, "any"))
    assert filter.matches(keys(own, origin)) == (allowed and asked)


def test_an_event_cannot_bring_itself_into_a_scope() -> None:
    filter = Scope.parse({"any": [{"root_id": "mine"}]}).restrict(build({}))
    assert filter.matches(keys({}, {"root_id": "mine"}))
    assert not filter.matches(keys({"root_id": "mine"}, {"root_id": "theirs"}))
    assert not filter.matches(keys({"root_id": "mine"}, {}))


def test_an_exclusion_does_not_pass_what_has_no_value() -> None:
    filter = Scope.parse({"any": [{"name": "!secret.*"}]}).restrict(build({}))
    assert filter.matches(keys({}, {"name": "shop.add"}))
    assert not filter.matches(keys({}, {"name": "secret.pay"}))
    assert not filter.matches(keys({}, {"name": None}))


def test_an_empty_list_of_filters_allows_nothing_and_no_list_allows_everything() -> None:
    nothing = Scope.parse({"any": []})
    assert nothing.is_restricted
    assert not nothing.restrict(build({})).matches(keys({"type": "worker-online"}, {}))
    for everything in (Scope.parse({}), Scope.parse({"any": [{}, {"name": "a"}]}), EVERYTHING):
        assert not everything.is_restricted
        assert everything.restrict(build({"uuid": ["u"]})) == build({"uuid": ["u"]})


def test_defaults_are_events_and_state() -> None:
    assert Scope.parse({}).may == {"events", "state"}
    assert Scope.parse({"may": []}).may == frozenset()


def test_hidden_fields_are_removed_and_cannot_be_filtered() -> None:
    scope = Scope.parse({"hide": ["queue", "args"]})
    assert scope.fields(None) == Fields(None, frozenset({"queue", "args"}))
    assert "args" not in scope.fields(frozenset({"args", "name"}))
    with pytest.raises(Forbidden, match="hidden") as error:
        scope.restrict(build({"queue": ["!high"]}))
    assert error.value.parameter == "queue"


def test_a_request_with_too_many_alternatives_for_the_scope_is_refused() -> None:
    scope = Scope.parse({"any": [{"name": f"n{number}"} for number in range(MAX_ALTERNATIVES)]})
    most = MAX_PAIRS // MAX_ALTERNATIVES
    wanted = [{"uuid": [f"u{number}"]} for number in range(most + 1)]
    scope.restrict(build_any(wanted[:most], "any"))
    with pytest.raises(BadRequest, match=f"at most {most} are allowed"):
        scope.restrict(build_any(wanted, "any"))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], "must be an object"),
        ({"all": []}, "unknown key 'all'"),
        ({"any": {"name": "a"}}, "list of at most"),
        ({"any": ["a"]}, "contains 'a'"),
        ({"any": [{"nmae": "a"}]}, "unknown field 'nmae'"),
        ({"any": [{"name": []}]}, "not empty"),
        ({"any": [{"name": [1]}]}, "list of strings"),
        ({"any": [{"name": None}]}, "list of strings"),
        ({"any": [{"name": ""}]}, "empty value"),
        ({"any": [{"type": "task_failed"}]}, "write 'task-failed'"),
        ({"any": [{}] * (MAX_ALTERNATIVES + 1)}, "list of at most"),
        ({"may": ["everything"]}, "may contains 'everything'"),
        ({"may": "events"}, "list of names"),
        ({"hide": ["uuid"]}, "'uuid' cannot be hidden"),
        ({"hide": [""]}, "list of names"),
    ],
)
def test_a_malformed_scope_is_refused_with_what_is_allowed(value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match="invalid scope") as error:
        Scope.parse(value)
    assert problem in str(error.value)


def test_to_hide_one_name_of_a_node_hides_all() -> None:
    scope = Scope.parse({"hide": ["worker"]})
    assert scope.hide == {"hostname", "worker", "client"}
    with pytest.raises(Forbidden):
        scope.restrict(build({"hostname": ["celery@*"]}))


@pytest.mark.parametrize(
    ("scope", "whole", "some"),
    [
        ([{"root_id": "r"}], True, True),
        ([{"root_id": "r*"}], True, True),
        ([{"root_id": "x"}], False, False),
        ([{"root_id": "x"}, {"root_id": "r"}], True, True),
        ([{"root_id": "r", "name": "a"}], False, True),
        ([{"name": "a"}], False, True),
        ([], False, False),
    ],
)
def test_whether_a_workflow_is_visible(scope: list[dict[str, str]], whole: bool, some: bool) -> None:
    parsed = Scope.parse({"any": scope})
    assert (parsed.has_whole_workflow("r"), parsed.may_see_workflow("r")) == (whole, some)
