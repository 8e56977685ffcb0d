"""Static tokens: their form, and hashes that are never mistaken for tokens."""

import hashlib
import re

import pytest

from celery_gateway.access.static_tokens import digest, hash_text, new_token, parse_hash

pytestmark = pytest.mark.unit


def test_tokens_are_random_and_recognizable() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"cgw_[A-Za-z0-9_-]{43}", token) for token in made)


def test_a_hash_is_that_of_the_whole_token() -> None:
    token = new_token()
    assert digest(token) == hashlib.sha256(token.encode()).hexdigest()
    assert parse_hash(hash_text(token)) == digest(token)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "0" * 63,
        "sha256:" + "g" * 64,
        "SHA256:" + "0" * 64,
        "0" * 64,
        "sha256:" + "0" * 65,
    ],
)
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        parse_hash(text)


def test_a_token_in_place_of_its_hash_is_not_repeated() -> None:
    token = new_token()
    with pytest.raises(ValueError) as error:
        parse_hash(token)
    assert token not in str(error.value)
