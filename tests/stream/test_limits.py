"""Budgets that clients share, and counts of refused clients."""

import random
from collections import Counter

import pytest

from celery_gateway.errors import OverLimit
from celery_gateway.stream.limits import REASONS, Budget, Limits

pytestmark = pytest.mark.unit


def budget(limit: int) -> Budget:
    return Budget(limit, "memory", "memory")


def test_a_client_may_use_at_most_as_much_as_it_leaves_free() -> None:
    shared = budget(100)
    first, second, third = (shared.reserve(name) for name in ("a", "b", "c"))
    assert first.resize(50) and not first.resize(51)
    assert second.resize(25) and not second.resize(26)
    assert third.resize(12) and not third.resize(13)
    assert shared.used == 87
    first.release()
    assert second.resize(44) and not second.resize(45)


def test_with_a_larger_share_a_client_may_use_more() -> None:
    shared = Budget(100, "connections", "connections", share=9)
    first, second = shared.reserve("a"), shared.reserve("b")
    assert first.resize(90) and not first.resize(91)
    assert second.resize(9) and not second.resize(10)


def test_all_reservations_of_a_client_count() -> None:
    shared = budget(100)
    parts = [shared.reserve("a") for _ in range(10)]
    assert sum(part.resize(10) for part in parts) == 5
    assert shared.used == 50
    assert shared.reserve("b").resize(25)


def test_a_shared_reservation_has_to_fit_into_the_whole_budget() -> None:
    shared = budget(100)
    part = shared.reserve()
    assert part.resize(100) and not part.resize(101)
    assert not shared.reserve("a").resize(1)


def test_a_smaller_amount_is_always_allowed() -> None:
    shared = budget(100)
    part, other = shared.reserve("a"), shared.reserve()
    assert part.resize(50) and other.resize(50)
    assert part.resize(40), "though it leaves less free than it uses"
    with pytest.raises(OverLimit) as error:
        part.grow(1)
    assert error.value.reason == "memory" and part.amount == 40
    part.release()
    part.release()
    other.release()
    assert shared.used == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_sums_are_correct_after_random_changes(seed: int) -> None:
    dice = random.Random(seed)
    shared = budget(1_000)
    clients = ["a", "b", "c", None]
    reservations = [(client, shared.reserve(client)) for client in clients for _ in range(5)]
    for _ in range(2_000):
        client, part = dice.choice(reservations)
        before, amount = part.amount, dice.choice((0, dice.randrange(400)))
        is_allowed = part.resize(amount)
        sums: Counter[str | None] = Counter()
        for name, each in reservations:
            sums[name] += each.amount
        assert shared.used == sums.total() <= shared.limit
        assert part.amount == (amount if is_allowed else before)
        if client is not None and is_allowed and amount > before:
            assert sums[client] <= shared.limit - sums.total()
    for _, part in reservations:
        part.release()
    assert shared.used == 0 and not shared._by_client, "nothing is left of removed clients"


def test_refusals_are_counted_and_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    limits = Limits()
    for reason in ("memory", "memory", "head"):
        limits.count(reason, "details")
    assert limits.statistics().refused == {"memory": 2, "head": 1}
    assert len(caplog.messages) == 2
    assert list(REASONS) == sorted(set(REASONS))
