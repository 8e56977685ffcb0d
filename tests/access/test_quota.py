"""Quotas of principals: places, rates, and what is kept for how many principals."""

import gc
import re
from collections import Counter
from collections.abc import Iterator
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.access.principal import ANYONE, Principal
from celery_gateway.access.quota import (
    BURST_SECONDS,
    COUNTED,
    MAX_RECENT,
    QUOTA_DEFAULTS,
    UNLIMITED,
    Place,
    Quotas,
    check_quota,
)
from celery_gateway.errors import OverLimit, QuotaExceeded
from celery_gateway.stream.limits import Limits

pytestmark = pytest.mark.unit

ALICE, BOB = Principal("alice"), Principal("bob")
RATES = ("new_streams_per_second", "operations_per_second")


@pytest.fixture(scope="module")
def small_heap() -> Iterator[None]:
    """Collections look at new objects only: those of other tests in this process can take a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def quotas(**general: float) -> tuple[Quotas, Clock]:
    clock = Clock()
    return Quotas(general, clock), clock


# ---------------------------------------------------------------------------------------- the table


def test_a_table_may_have_each_quota() -> None:
    assert check_quota(dict(QUOTA_DEFAULTS)) == QUOTA_DEFAULTS
    assert check_quota({}) == {}


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "10", None, float("inf"), [1]])
def test_a_value_must_be_a_whole_number(value: object) -> None:
    with pytest.raises(ValueError, match=r"streams = .*a whole number from 1 up"):
        check_quota({"streams": value})


def test_a_value_in_megabytes_by_mistake_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"memory_bytes = 32: .* 1,048,576"):
        check_quota({"memory_bytes": 32})


def test_an_unknown_quota_is_an_error_with_the_allowed_names() -> None:
    with pytest.raises(ValueError, match="unknown quota 'stream'; allowed are streams, ") as error:
        check_quota({"stream": 5})
    assert all(name in str(error.value) for name in QUOTA_DEFAULTS)


def test_the_documented_defaults_are_those_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+)", page, re.MULTILINE)
    assert {name: int(value.replace(",", "")) for name, value in rows} == QUOTA_DEFAULTS


# ------------------------------------------------------------------------------------------- limits


def test_an_own_limit_replaces_the_general_one_which_replaces_the_default() -> None:
    of_all, _ = quotas(streams=7)
    assert of_all.of(ALICE).limit("streams") == 7
    assert of_all.of(ALICE).limit("lookups") == QUOTA_DEFAULTS["lookups"]
    assert of_all.of(Principal("bob", quota=(("streams", 9),))).limit("streams") == 9


def test_new_limits_hold_at_once() -> None:
    of_all, _ = quotas(streams=1)
    quota = of_all.of(ALICE)
    place = quota.reserve("streams")
    of_all.set_general({"streams": 2})
    quota.reserve("streams").release()
    assert of_all.of(Principal("alice", quota=(("streams", 3),))) is quota
    assert quota.limit("streams") == 3
    place.release()


# ------------------------------------------------------------------------------------------- places


@pytest.mark.parametrize("name", COUNTED)
def test_places_are_limited_by_principal(name: str) -> None:
    of_all, _ = quotas(**{name: 3})
    quota = of_all.of(ALICE)
    places = [quota.reserve(name) for _ in range(3)]
    with pytest.raises(QuotaExceeded, match=f"quota {name} exceeded: 3 .*; 3 are allowed") as error:
        quota.reserve(name)
    assert (error.value.reason, error.value.limit, error.value.principal) == (name, 3, "alice")
    assert error.value.retry_seconds > 0
    of_all.of(BOB).reserve(name).release()
    places[0].release()
    places[0].release()  # counts once
    places.append(quota.reserve(name))
    with pytest.raises(QuotaExceeded):
        quota.reserve(name)
    assert of_all.statistics().in_use[name] == 3
    for place in places:
        place.release()
    assert of_all.statistics().in_use[name] == 0


def test_a_place_is_released_at_the_end_of_a_block_and_on_errors() -> None:
    of_all, _ = quotas(lookups=1)
    quota = of_all.of(ALICE)
    with pytest.raises(ZeroDivisionError), quota.reserve("lookups"):
        raise ZeroDivisionError
    with quota.reserve("lookups"):
        pass
    assert of_all.statistics().in_use["lookups"] == 0


def test_a_replaced_place_counts_once() -> None:
    of_all, _ = quotas(streams=1)
    quota = of_all.of(ALICE)
    place = quota.reserve("streams")
    with place.replaced():
        another = quota.reserve("streams")
    place.release()
    assert of_all.statistics().in_use["streams"] == 1
    another.release()
    assert of_all.statistics().in_use["streams"] == 0


def test_a_place_that_could_not_be_replaced_is_kept() -> None:
    of_all, _ = quotas(streams=1)
    quota = of_all.of(ALICE)
    place = quota.reserve("streams")
    with pytest.raises(ZeroDivisionError), place.replaced():
        raise ZeroDivisionError
    with pytest.raises(QuotaExceeded):
        quota.reserve("streams")
    place.release()
    assert of_all.statistics().in_use["streams"] == 0


# -------------------------------------------------------------------------------------------- rates


@pytest.mark.parametrize("name", RATES)
def test_a_rate_allows_a_burst_and_then_its_rate(name: str) -> None:
    of_all, clock = quotas(**{name: 10})
    quota = of_all.of(ALICE)
    for _ in range(50):
        quota.take(name)
    with pytest.raises(QuotaExceeded, match="at most 10 a second, and 50 at once") as error:
        quota.take(name)
    assert error.value.retry_seconds == pytest.approx(0.1, abs=1e-5)
    of_all.of(BOB).take(name)
    clock.now += error.value.retry_seconds
    quota.take(name)
    with pytest.raises(QuotaExceeded):
        quota.take(name)
    clock.now += 2
    for _ in range(20):
        quota.take(name)
    with pytest.raises(QuotaExceeded):
        quota.take(name)


def test_a_refused_request_does_not_count() -> None:
    of_all, clock = quotas(operations_per_second=1)
    quota = of_all.of(ALICE)
    for _ in range(int(BURST_SECONDS)):
        quota.take("operations_per_second")
    for _ in range(1_000):
        with pytest.raises(QuotaExceeded):
            quota.take("operations_per_second")
    clock.now += 1
    quota.take("operations_per_second")


def test_rates_of_a_principal_do_not_begin_again_with_each_request() -> None:
    of_all, _ = quotas(new_streams_per_second=1)
    for _ in range(int(BURST_SECONDS)):
        of_all.of(ALICE).take("new_streams_per_second")
    with pytest.raises(QuotaExceeded):
        of_all.of(ALICE).take("new_streams_per_second")


@given(
    rate=st.integers(1, 1_000),
    pauses=st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=300),
)
@settings(deadline=None)
def test_no_interval_has_more_than_the_rate_and_the_burst(rate: int, pauses: list[float]) -> None:
    of_all, clock = quotas(operations_per_second=rate)
    quota = of_all.of(ALICE)
    taken: list[float] = []
    for pause in pauses:
        clock.now += pause
        for _ in range(20):
            try:
                quota.take("operations_per_second")
            except QuotaExceeded as error:
                wait_seconds = error.retry_seconds
                clock.now += wait_seconds
                quota.take("operations_per_second")  # the time to wait is right
            taken.append(clock.now)
    for first in range(0, len(taken), 50):
        seconds = taken[-1] - taken[first]
        assert len(taken) - first <= rate * (seconds + BURST_SECONDS) + 1


# --------------------------------------------------------------------------- what is kept, for whom


def test_without_authentication_there_is_no_quota() -> None:
    of_all, _ = quotas(streams=1, operations_per_second=1)
    assert of_all.of(ANYONE) is UNLIMITED
    assert of_all.find("192.0.2.7") is UNLIMITED
    for _ in range(1_000):
        UNLIMITED.take("operations_per_second")
        UNLIMITED.reserve("streams")
    assert of_all.statistics() == (0, {}, {})


def test_principals_that_use_nothing_leave_nothing_behind() -> None:
    of_all, _ = quotas()
    for number in range(100_000):
        of_all.of(Principal(f"user-{number}")).reserve("streams").release()
    assert of_all.statistics().principals == 0


def test_rates_are_remembered_for_a_bounded_number_of_principals_and_time() -> None:
    of_all, clock = quotas()
    for number in range(3 * MAX_RECENT):
        of_all.of(Principal(f"user-{number}")).take("new_streams_per_second")
    assert of_all.statistics().principals == MAX_RECENT
    clock.now += BURST_SECONDS + 0.1
    assert of_all.statistics().principals == 0


def test_a_principal_is_remembered_while_it_uses_something() -> None:
    of_all, clock = quotas()
    place = of_all.of(ALICE).reserve("streams")
    clock.now += 1_000
    assert of_all.statistics().principals == 1
    assert of_all.find("alice") is of_all.of(ALICE)
    place.release()
    gc.collect()
    assert of_all.statistics().principals == 0


@pytest.mark.usefixtures("small_heap")
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["reserve", "release", "replace", "fail", "take", "wait", "reload"]),
            st.sampled_from(["", "alice", "bob", "carol"]),
            st.sampled_from(COUNTED),
            st.integers(0, 20),
        ),
        max_size=150,
    )
)
@settings(deadline=None)
def test_places_are_conserved(steps: list[tuple[str, str, str, int]]) -> None:
    of_all, clock = quotas(**dict.fromkeys(COUNTED, 3))
    held: list[tuple[str, str, Place]] = []
    limit = 3
    for action, who, name, number in steps:
        quota = of_all.of(Principal(who))
        if action == "reserve":
            used = sum((owner, kind) == (who, name) for owner, kind, _ in held)
            try:
                held.append((who, name, quota.reserve(name)))
                assert not who or used < limit
            except QuotaExceeded:
                assert who and used >= limit
        elif action == "release" and held:
            _, _, place = held.pop(number % len(held))
            for _ in range(1 + number % 3):
                place.release()
        elif action == "replace" and held:
            owner, kind, place = held[number % len(held)]
            before = sum(who == owner and each == kind for who, each, _ in held)
            if before <= limit:
                with place.replaced():
                    held[number % len(held)] = owner, kind, of_all.of(Principal(owner)).reserve(kind)
        elif action == "fail" and held:
            with pytest.raises(KeyError), held[number % len(held)][2].replaced():
                raise KeyError
        elif action == "take":
            quota.take("operations_per_second")
        elif action == "wait":
            clock.now += number
        elif action == "reload":
            limit = 1 + number % 5
            of_all.set_general(dict.fromkeys(COUNTED, limit))
        del quota
        expected = Counter(kind for owner, kind, _ in held if owner)
        assert +Counter(of_all.statistics().in_use) == expected
    clock.now += 100
    held.clear()  # without a release: what refers to nothing else is forgotten with its principal
    gc.collect()
    assert of_all.statistics().principals == 0


# --------------------------------------------------------------------- the budgets that clients share


def test_memory_and_filters_of_a_principal_are_limited() -> None:
    limits = Limits(memory_bytes=1 << 30)
    limits.quotas.set_general({"memory_bytes": 1_000, "filter_cost": 10})
    quota = limits.quotas.of(ALICE)
    for budget, name, limit in ((limits.memory, "memory_bytes", 1_000), (limits.filters, "filter_cost", 10)):
        first, second = budget.reserve("alice"), budget.reserve("alice")
        first.grow(limit - 1)
        second.grow(1)
        assert not second.resize(2)
        with pytest.raises(QuotaExceeded, match=f"quota {name} exceeded: {limit:,} ") as error:
            second.grow(1)
        assert error.value.reason == name and error.value.limit == limit
        others = budget.reserve("bob")
        others.grow(limit * 2)  # not served as a principal now: no quota
        first.release()
        second.grow(limit - 1)
        for each in (first, second, others):
            each.release()
        assert budget.used == 0
    assert quota.name == "alice"


def test_a_reservation_keeps_the_quota_of_its_principal() -> None:
    limits = Limits()
    limits.quotas.set_general({"memory_bytes": 1_000})
    limits.quotas.of(ALICE)
    quota = limits.quotas.of(ALICE)
    reserved = limits.memory.reserve("alice")
    del quota
    gc.collect()
    with pytest.raises(QuotaExceeded):
        reserved.grow(1_001)
    assert limits.statistics().quotas.principals == 1


def test_the_shared_budget_holds_below_the_quota() -> None:
    limits = Limits(memory_bytes=1_000)
    quota = limits.quotas.of(ALICE)
    with pytest.raises(OverLimit) as error:
        limits.memory.reserve(quota.name).grow(501)
    assert not isinstance(error.value, QuotaExceeded)


def test_exceeded_quotas_are_counted_apart_and_logged_with_the_principal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = Limits()
    limits.quotas.set_general({"streams": 1})
    quota = limits.quotas.of(ALICE)
    places = [quota.reserve("streams")]
    for _ in range(3):
        with pytest.raises(QuotaExceeded) as error:
            places.append(quota.reserve("streams"))
        limits.count_error(error.value)
    limits.count_error(OverLimit("memory", "no memory"))
    statistics = limits.statistics()
    assert statistics.refused == {"memory": 1}
    assert statistics.quotas.exceeded == {"streams": 3}
    logged = [record.getMessage() for record in caplog.records if "quota streams" in record.getMessage()]
    assert len(logged) == 1 and "'alice'" in logged[0]


def test_times_to_wait_are_positive_whole_seconds_for_clients() -> None:
    of_all, _ = quotas(operations_per_second=1_000)
    quota = of_all.of(ALICE)
    with pytest.raises(QuotaExceeded) as error:
        while True:
            quota.take("operations_per_second")
    assert 0 < error.value.retry_seconds <= 0.001 + 1e-6
    assert ceil(error.value.retry_seconds) == 1
