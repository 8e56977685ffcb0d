"""Misspelled types and states are refused with the value that was meant; all others pass."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.errors import BadRequest
from celery_gateway.events.filter_parser import MAX_SPELLINGS_CHECKED, build, build_any, parse
from celery_gateway.events.spelling import STATES, TYPES, correction
from tests.support.thorough import tries

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("field", "value", "meant"),
    [
        ("type", "task_failed", "task-failed"),
        ("type", "task-success", "task-succeeded"),
        ("type", "task-failure", "task-failed"),
        ("type", "TASK-FAILED", "task-failed"),
        ("type", "task__Failed", "task-failed"),
        ("type", "task", "task-*"),
        ("type", "tasks", "task-*"),
        ("type", "task-", "task-*"),
        ("type", "worker-", "worker-*"),
        ("type", "task-suceeded", "task-succeeded"),
        ("type", "task-recieved", "task-received"),
        ("type", "task-retry", "task-retried"),
        ("type", "worker-onlin", "worker-online"),
        ("type", "worker_heartbeat", "worker-heartbeat"),
        ("type", "task_*", "task-*"),
        ("type", "Task-F*", "task-f*"),
        ("state", "failure", "FAILURE"),
        ("state", "failed", "FAILURE"),
        ("state", "task-succeeded", "SUCCESS"),
        ("state", "Succeeded", "SUCCESS"),
        ("state", "SUCESS", "SUCCESS"),
        ("state", "pending", "PENDING"),
        ("state", "progress", "PROGRESS"),
        ("state", "FAILURES", "FAILURE"),
        ("state", "lost", "LOST"),
        ("state", "retried", "RETRY"),
        ("state", "fail*", "FAIL*"),
    ],
)
def test_it_is_refused_with_what_was_meant(field: str, value: str, meant: str) -> None:
    for make in (parse, build):
        for pattern in (value, f"!{value}"):
            with pytest.raises(BadRequest) as refused:
                make({field: ["task-sent" if field == "type" else "SUCCESS", pattern]})
            assert (refused.value.code, refused.value.parameter) == ("bad-value", field)
            assert repr(meant) in str(refused.value)
            assert set(refused.value.allowed) == set(TYPES if field == "type" else STATES)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "task-failed,task-started"),
        ("type", "task-failed;task-started"),
        ("type", "task-failed|task-started"),
        ("type", "task failed"),
        ("state", "FAILURE, RETRY"),
    ],
)
def test_several_values_in_one_are_refused(field: str, value: str) -> None:
    with pytest.raises(BadRequest, match="it is one value; separate several"):
        build({field: [value]})


@pytest.mark.parametrize("type", ["gateway-gap", "gateway-", "gateway-anything"])
def test_a_control_message_cannot_be_selected(type: str) -> None:
    with pytest.raises(BadRequest, match="every stream has all control messages"):
        parse({"type": [type]})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("type", type) for type in TYPES),
        *(("state", state) for state in STATES),
        ("type", "order-shipped"),
        ("type", "task-restarted"),
        *(
            ("type", f"task-{word}")
            for word in ("cost", "post", "host", "set", "start", "running", "started2")
        ),
        *(("type", word) for word in ("progress", "started", "success", "failed", "tasks-started", "COST")),
        *(("state", word) for word in ("RUNNING", "COST", "LIST", "START", "SENDING", "success2")),
        ("type", r"a\,b"),
        ("type", "task-progressing"),
        ("type", "task-*"),
        ("type", "task-succes*"),
        ("type", "*_failed"),
        ("type", "order_*"),
        ("type", r"order\*"),
        ("state", "COMPILING"),
        ("state", "compiling"),
        ("state", "S*"),
        ("name", "task_failed"),
        ("name", "failure"),
        ("hostname", "task-success"),
        ("queue", "Failed"),
        ("uuid", "failed"),
    ],
)
def test_known_values_and_an_applications_own_pass(field: str, value: str) -> None:
    assert parse({field: [value]}) == build({field: [value]})


def test_of_many_types_of_an_application_the_first_are_checked() -> None:
    known = [*TYPES] * 5
    own = [f"order-{number}" for number in range(MAX_SPELLINGS_CHECKED)]
    with pytest.raises(BadRequest, match="write 'task-failed'"):
        build({"type": [*known, *own[1:], "task_failed"]})
    with pytest.raises(BadRequest, match="write 'task-failed'"):
        build_any([{"type": [value]} for value in (*own[1:], "task_failed")], "any")
    assert build({"type": [*own, "task_failed"]})
    with pytest.raises(BadRequest, match="every stream has all control messages"):
        build({"type": [*own, "gateway-gap"]})


@settings(deadline=None, max_examples=tries(300), derandomize=True)
@given(st.sampled_from(TYPES), st.data())
def test_one_wrong_character_is_always_found(type: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(type.index("-") + 3, len(type) - 1))
    way = data.draw(st.sampled_from(["left out", "added", "replaced", "swapped"]))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz"))
    wrong = {
        "left out": type[:at] + type[at + 1 :],
        "added": type[:at] + letter + type[at:],
        "replaced": type[:at] + letter + type[at + 1 :],
        "swapped": type[: at - 1] + type[at] + type[at - 1] + type[at + 1 :],
    }[way]
    meant = correction("type", wrong, is_glob=False)
    is_short = len(type.partition("-")[2]) < 6  # such as task-sent: too many words of applications are near
    assert meant is not None or wrong in TYPES or is_short
    assert meant is None or meant in (*TYPES, "task-*", "worker-*")
