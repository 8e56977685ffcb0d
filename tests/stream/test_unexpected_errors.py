"""Unexpected errors: each kind is logged at most once a minute."""

import logging

import pytest

from celery_gateway.stream import unexpected_errors
from celery_gateway.stream.unexpected_errors import LOG_SECONDS, report

pytestmark = pytest.mark.unit


def caught(kind: type[Exception]) -> Exception:
    try:
        raise kind("boom")
    except Exception as error:
        return error


def test_each_kind_is_logged_once_a_minute_with_how_many_came_since(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unexpected_errors, "_logged", {})
    now = 1_000.0
    monkeypatch.setattr(unexpected_errors.time, "monotonic", lambda: now)
    caplog.set_level(logging.ERROR)
    for _ in range(50):
        report("it failed", caught(KeyError))
        report("it failed", caught(ValueError))
    assert len(caplog.records) == 2
    now += LOG_SECONDS
    report("it failed", caught(KeyError))
    assert len(caplog.records) == 3
    assert "(49 more of this kind since the last entry)" in caplog.records[2].getMessage()
    assert "KeyError: 'boom'" in caplog.text, "with its traceback"


def test_the_number_of_remembered_kinds_is_bounded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unexpected_errors, "_logged", {})
    for number in range(2 * unexpected_errors.MAX_KINDS):
        report("it failed", caught(type(f"Error{number}", (Exception,), {})))
    assert len(unexpected_errors._logged) <= unexpected_errors.MAX_KINDS
