"""The metrics of several processes as one."""

import pytest

from celery_gateway.http.metrics_sum import Across, Series, counters, total

pytestmark = pytest.mark.unit


def series(
    name: str, value: float, *labels: tuple[str, str], is_max: bool = False, is_counter: bool = True
) -> Series:
    return Series(name, labels, is_counter, Across.MAX if is_max else Across.SUM, value)


def test_values_are_added_up_or_the_highest_counts() -> None:
    first = [series("a", 1), series("b", 7, is_max=True), series("c", 1, ("reason", "x"))]
    second = [series("a", 2), series("b", 5, is_max=True), series("c", 2, ("reason", "x"))]
    assert total([first, second]) == [
        series("a", 3),
        series("b", 7, is_max=True),
        series("c", 3, ("reason", "x")),
    ]


def test_the_series_of_a_metric_follow_each_other() -> None:
    first = [series("a", 1, ("reason", "x")), series("b", 1)]
    second = [series("c", 1), series("b", 1), series("a", 1, ("reason", "y"))]
    assert [each.name for each in total([first, second])] == ["a", "a", "b", "c"]


def test_the_counters_of_a_process_that_has_ended_remain() -> None:
    ended = [series("a", 5), series("b", 9, is_max=True), series("open", 3, is_counter=False)]
    replacement = [series("a", 1), series("b", 2, is_max=True), series("open", 1, is_counter=False)]
    assert total([replacement, counters(ended)]) == [
        series("a", 6),
        series("b", 9, is_max=True),
        series("open", 1, is_counter=False),
    ]
