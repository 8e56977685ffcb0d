"""Where a request carries its token: which carrier decides, and malformed ones."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.errors import InvalidToken
from celery_gateway.http.carriers import (
    ACCESS_TOKEN_KEY,
    COOKIE,
    TRUSTS_COOKIES_KEY,
    Carried,
    carried_token,
    cookie_header,
    session_of,
    single_headers,
)
from celery_gateway.http.query_secrets import hide_secrets

pytestmark = pytest.mark.unit


def request(
    *headers: tuple[str, str], query: str = "", subprotocols: list[str] | None = None
) -> dict[str, Any]:
    """The scope of a request of the gateway's own origin."""
    scope: dict[str, Any] = {
        "headers": [(name.encode(), value.encode()) for name, value in headers],
        "query_string": query.encode(),
        TRUSTS_COOKIES_KEY: True,
    }
    if subprotocols is not None:
        scope["subprotocols"] = subprotocols
    hide_secrets(scope)
    return scope


HEADER = ("authorization", "Bearer from-header")
SUBPROTOCOLS = ["celery-gateway", "celery-gateway.bearer.from.subprotocol"]
QUERY = "name=a&access_token=from%2Dquery"
SESSION = ("cookie", f"theme=dark; {COOKIE}=session-id.from.cookie; other=1")


def test_the_header_decides_before_subprotocol_query_and_cookie() -> None:
    everything = request(HEADER, SESSION, query=QUERY, subprotocols=SUBPROTOCOLS)
    assert carried_token(everything) == Carried("from-header")
    assert carried_token(request(SESSION, query=QUERY, subprotocols=SUBPROTOCOLS)) == Carried(
        "from.subprotocol"
    )
    assert carried_token(request(SESSION, query=QUERY)) == Carried("from-query")
    assert carried_token(request(SESSION)) == Carried("from.cookie", "session-id")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_case_insensitive(scheme: str) -> None:
    assert carried_token(request(("authorization", f"{scheme}  token "))) == Carried("token")


@pytest.mark.parametrize(
    "scope",
    [
        request(HEADER, HEADER),
        request(("authorization", "Basic dXNlcjpwYXNz"), SESSION),
        request(("authorization", "Bearer "), SESSION),
        request(("authorization", ""), SESSION),
        request(query="access_token=a&access_token=b"),
        request(subprotocols=["celery-gateway.bearer.a", "celery-gateway.bearer.b"]),
    ],
)
def test_a_malformed_or_repeated_carrier_is_an_error_and_no_other_one_counts(scope: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken) as error:
        carried_token(scope)
    assert not error.value.is_missing


def test_without_a_carrier_the_token_is_missing() -> None:
    for scope in (
        request(),
        request(("cookie", "theme=dark")),
        request(query="name=a", subprotocols=["graphql"]),
    ):
        with pytest.raises(InvalidToken) as error:
            carried_token(scope)
        assert error.value.is_missing


def test_a_cookie_counts_only_if_the_request_is_trusted_to_be_no_other_pages() -> None:
    scope = request(SESSION) | {TRUSTS_COOKIES_KEY: False}
    with pytest.raises(InvalidToken):
        carried_token(scope)
    assert session_of(scope) == Carried("")
    assert session_of(request(SESSION)) == Carried("from.cookie", "session-id")


def test_of_several_session_cookies_none_counts() -> None:
    twice = ("cookie", f"{COOKIE}=a.one; {COOKIE}=b.two")
    with pytest.raises(InvalidToken):
        carried_token(request(twice))
    with pytest.raises(InvalidToken):
        carried_token(request(("cookie", f"{COOKIE}=a.one"), ("cookie", f"{COOKIE}=b.two")))


@pytest.mark.parametrize("query", [QUERY, "access%5Ftoken=from-query", "access_token=from-query&uuid=x"])
def test_a_token_of_the_query_is_hidden_from_what_reads_the_query(query: str) -> None:
    scope = request(query=query)
    assert scope[ACCESS_TOKEN_KEY] == ["from-query"]
    assert b"from" not in scope["query_string"]


def test_the_cookie_is_protected_from_scripts_and_plain_connections() -> None:
    attributes = set(cookie_header("id.token", 60).split("; "))
    assert attributes == {
        f"{COOKIE}=id.token",
        "HttpOnly",
        "Secure",
        "SameSite=Lax",
        "Path=/",
        "Max-Age=60",
    }
    assert "Max-Age" not in cookie_header("id.token", None)


def test_a_repeated_header_is_not_among_the_single_ones() -> None:
    scope = request(("X-Forwarded-User", "alice"), ("x-forwarded-user", "bob"), ("X-Other", "1"))
    assert single_headers(scope) == {"x-other": "1"}


def test_headers_are_utf_8_and_malformed_ones_cannot_be_printed() -> None:
    scope = {"headers": [(b"x-user", "jörg".encode()), (b"x-other", b"j\xf6rg")]}
    found = single_headers(scope)
    assert found["x-user"] == "jörg" and not found["x-other"].isprintable()


def test_an_empty_token_of_the_query_decides_too() -> None:
    assert carried_token(request(SESSION, query="access_token=")) == Carried("")


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["authorization", "cookie"]), st.text(max_size=40)), max_size=4))
def test_any_headers_have_a_token_or_none_that_is_valid(headers: list[tuple[str, str]]) -> None:
    encodable = [(name, value) for name, value in headers if value.isprintable() and value.isascii()]
    with suppress(InvalidToken):
        assert carried_token(request(*encodable)).token
