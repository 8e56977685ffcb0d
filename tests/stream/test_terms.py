"""Terms against a model that has the term of each position in a list."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.stream.terms import Terms
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

DRAWN = settings(deadline=None, max_examples=tries(200), derandomize=True)


def model(terms: list[tuple[str, int]], up_to: int) -> dict[int, str]:
    """Return the term of each position from the one before the oldest term's first entry on."""
    oldest = terms[0][1]
    found = {oldest - 1: terms[0][0]}
    for term, first in terms:
        found |= {position: term for position in range(first, up_to + 1)}
    return found


@DRAWN
@given(st.integers(1, 30), st.lists(st.integers(0, 8), max_size=8), st.data())
def test_an_id_is_valid_if_the_entry_at_its_position_is_of_its_term(
    oldest: int, sizes: list[int], data: st.DataObject
) -> None:
    terms = Terms([("t0", oldest)])
    position, names, known = oldest - 1, ["t0"], [("t0", oldest)]
    for number, size in enumerate(sizes, 1):
        position += size
        terms.begin(f"t{number}", position + 1)
        names.append(f"t{number}")
        if known[-1][1] == position + 1:
            known.pop()  # it has no entry
        known.append((f"t{number}", position + 1))
    expected = model(known, position + 20)
    for at in range(oldest + position + 20):
        assert terms.term_of(at) == expected.get(at) or at > position + 20
        for name in names:
            found = terms.position_of(f"{name}-{at}")
            assert found == (at if terms.term_of(at) == name else None)
        if at in expected:
            assert terms.id_of(at) == f"{expected[at]}-{at}".encode()
            assert terms.position_of(terms.id_of(at).decode()) == at
        elif at < oldest - 1:
            assert terms.position_of(terms.id_of(at).decode()) is None
    # Another gateway that reads the terms later has the same ids.
    later = Terms([(names[-1], position + 1)])
    later.set(known)
    at = data.draw(st.integers(oldest - 1, position + 5))
    assert later.id_of(at) == terms.id_of(at)


def test_the_position_before_a_term_has_the_term_before_if_there_is_one() -> None:
    terms = Terms([("a", 1), ("b", 10)])
    assert [terms.id_of(position) for position in (0, 1, 9, 10, 99)] == [
        b"a-0",
        b"a-1",
        b"a-9",
        b"b-10",
        b"b-99",
    ]
    assert [terms.position_of(id) for id in ("a-0", "a-9", "a-10", "b-9", "b-10", "b-99")] == [
        *(0, 9, None),
        *(None, 10, 99),
    ]
    assert Terms([("b", 10)]).position_of("b-9") == 9
    assert Terms([("b", 10)]).position_of("b-8") is None
