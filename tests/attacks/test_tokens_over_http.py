"""Tokens at all endpoints: those that are not valid open nothing, and streams end when theirs end."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from celery_gateway.access import authenticator as authenticator_module
from celery_gateway.access.authenticator import Authenticator
from celery_gateway.access.scope import MAY
from celery_gateway.access.static_tokens import hash_text, new_token
from celery_gateway.http import app as app_module
from celery_gateway.http import sessions as sessions_module
from celery_gateway.http.access_control import kind_of
from celery_gateway.http.app import create_app
from celery_gateway.http.carriers import COOKIE
from celery_gateway.http.id_path import id_path
from tests.support.asgi_exchange import Exchange
from tests.support.live_streams import KINDS, Headers, Stream, exchange, served
from tests.support.served_gateway import until
from tests.support.state_gateway import StateGateway, known, step
from tests.support.token_issuer import (
    LIFETIME_SECONDS,
    SECRET,
    claims,
    issuer_file,
    public_pem,
    segment,
    token,
)

pytestmark = pytest.mark.unit

FULL: dict[str, Any] = {"may": list(MAY)}
STATIC, EXPIRED, REMOVED = new_token(), new_token(), new_token()


def access_file(folder: Path, *, removed: bool = False) -> str:
    """An issuer for each of two algorithms, and static tokens."""
    pem = folder / "rsa.pem"
    pem.write_bytes(public_pem("RS256"))
    may = json.dumps(list(MAY))
    more = (
        f'[issuers.rsa]\nissuer = "https://rsa.example"\nalgorithm = "RS256"\nkey_file = "{pem.name}"\n'
        f'[tokens.static]\nhash = "{hash_text(STATIC)}"\nscope = {{ may = {may} }}\n'
        f'[tokens.expired]\nhash = "{hash_text(EXPIRED)}"\nscope = {{}}\nexpires = 2020-01-01T00:00:00Z\n'
    )
    if not removed:
        more += f'[tokens.removed]\nhash = "{hash_text(REMOVED)}"\nscope = {{ may = {may} }}\n'
    return issuer_file(folder, more)


@pytest.fixture
async def state(tmp_path: Path) -> StateGateway:
    made = StateGateway(authenticator=Authenticator(access_file(tmp_path)))
    made.put(known("bank-1", name="bank.pay"), step("succeeded", "bank-1", result="'bank result'"))
    return made


def routes() -> list[Route | WebSocketRoute]:
    """All routes of the application."""
    found: list[Any] = []
    original = app_module.check_routes
    app_module.check_routes = found.extend  # type: ignore[assignment]
    try:
        create_app(StateGateway().pipeline)
    finally:
        app_module.check_routes = original
    return found


def protected() -> list[tuple[str, str, str]]:
    """The protected routes: a path, a method (or `WEBSOCKET`), and the kind of endpoint."""
    found = []
    for route in routes():
        if kind_of(route) == "public":
            continue
        path = route.path.replace("{id}", "x-1").replace(id_path("uuid"), "bank-1")
        path = path.replace(id_path("root_id"), "bank-1").replace(id_path("hostname"), "w-1")
        methods = sorted(route.methods or ()) if isinstance(route, Route) else ["WEBSOCKET"]
        found += [(path, method, kind_of(route)) for method in methods]
    return found


# ---------------------------------------------------------------------------------- tokens × endpoints


def bearer(text: str) -> Headers:
    return [("authorization", f"Bearer {text}")]


def signed(header: dict[str, Any], body: dict[str, Any], key: bytes) -> str:
    """A token that no library would make, with the HMAC of any key."""
    head = f"{segment(header)}.{segment(body)}"
    return f"{head}.{segment(hmac.digest(key, head.encode(), hashlib.sha256))}"


def invalid_tokens() -> dict[str, str]:
    now = int(time.time())
    scope = {"celery_gateway": FULL}
    valid = token(**scope)
    head, body, signature = valid.split(".")
    rsa = claims(iss="https://rsa.example", **scope)
    public = public_pem("RS256")
    found = {
        "empty": "",
        "space": " ",
        "text": "not-a-token",
        "unknown-static": new_token(),
        "static-prefix": STATIC[:-1],
        "static-longer": f"{STATIC}A",
        "hash": hash_text(STATIC),
        "digest": hash_text(STATIC).removeprefix("sha256:"),
        "expired-static": EXPIRED,
        "expired": token(exp=now - 1, **scope),
        "expired-long-ago": token(exp=1, **scope),
        "not-yet": token(nbf=now + LIFETIME_SECONDS // 2, **scope),
        "issued-in-the-future": token(iat=now + LIFETIME_SECONDS // 2, **scope),
        "no-exp": token(exp=None, **scope),
        "exp-text": signed({"alg": "HS256"}, claims(**scope) | {"exp": "9999999999"}, SECRET.encode()),
        "exp-infinite": signed({"alg": "HS256"}, claims(**scope) | {"exp": 1e300}, SECRET.encode()),
        "other-audience": token(aud="another-gateway", **scope),
        "no-audience": token(aud=None, **scope),
        "other-issuer": token(iss="https://evil.example", **scope),
        "no-issuer": token(iss=None, **scope),
        "issuer-of-another-key": token(iss="https://rsa.example", **scope),
        "no-signature": f"{head}.{body}.",
        "two-parts": f"{head}.{body}",
        "other-signature": f"{head}.{body}.{signature[::-1]}",
        "other-body": f"{head}.{segment(claims(sub='admin', **scope))}.{signature}",
        "none-with-signature": f"{segment({'alg': 'none'})}.{body}.{signature}",
        "public-key-as-secret": signed({"alg": "HS256", "typ": "JWT"}, rsa, public),
        "public-key-as-secret-stripped": signed({"alg": "HS256"}, rsa, public.strip()),
        "own-key": signed(
            {"alg": "HS256", "jwk": {"kty": "oct", "k": segment(b"x" * 32)}}, claims(**scope), b"x" * 32
        ),
        "jku": signed({"alg": "HS256", "jku": "https://evil.example/jwks"}, claims(**scope), b"x" * 32),
        "crit": signed({"alg": "HS256", "crit": ["exp"]}, claims(**scope), SECRET.encode()),
        "long": "x" * 9_000,
        "bad-scope": token(celery_gateway={"any": "everything"}),
        "bad-scope-field": token(celery_gateway={"any": [{"args": ["*"]}]}),
        "bytes": "\xff\xfe\x80",
        "padded": f"{valid}=",
        "twice": f"{valid} {valid}",
        "comma": f"{valid},{valid}",
    }
    for alg in ("none", "None", "NONE", "nOnE", "", "HS384", "HS512", "RS256", "ES256", "hs256"):
        found[f"alg-{alg}"] = signed({"alg": alg}, claims(**scope), SECRET.encode())
        found[f"alg-{alg}-unsigned"] = f"{segment({'alg': alg})}.{body}."
    for kid in ("../../../../dev/null", "/dev/null", "issuer.secret", "' OR 1=1 --", "x\x00y", "rsa.pem"):
        for name, key in {"empty": b"", "null": b"\0" * 32}.items():
            found[f"kid-{kid}-{name}"] = signed({"alg": "HS256", "kid": kid}, claims(**scope), key)
    return found


INVALID = invalid_tokens()


def assert_unauthorized(response: Exchange, given: Iterable[str]) -> None:
    assert response.status == 401, response.body
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith('Bearer realm="celery-gateway"')
    body = response.body.decode()
    if body:  # HEAD has none
        problem = json.loads(body)
        assert problem["status"] == 401 and problem["error"]["code"] in ("unauthorized", "invalid-token")
    for text in given:
        assert len(text) < 6 or (text not in body and text not in challenge), "a token is repeated"
    assert "bank" not in body.replace("/bank-1", ""), "nothing is revealed"


@pytest.mark.parametrize("name", INVALID)
async def test_an_invalid_token_opens_no_endpoint(state: StateGateway, name: str) -> None:
    text = INVALID[name]
    for path, method, _ in protected():
        response = await exchange(state.app, path, method, bearer(text)).done()
        assert_unauthorized(response, [text])


def foreign_carriers() -> dict[str, tuple[Headers, str, tuple[str, ...] | None]]:
    """A valid token where it does not count: headers, a query, and subprotocols."""
    valid = token(celery_gateway=FULL)
    basic = base64.b64encode(f"token:{valid}".encode()).decode()
    return {
        "none": ([], "", None),
        "basic": ([("authorization", f"Basic {basic}")], "", None),
        "no-scheme": ([("authorization", valid)], "", None),
        "joined-scheme": ([("authorization", f"Bearer:{valid}")], "", None),
        "token-scheme": ([("authorization", f"Token {valid}")], "", None),
        "twice": ([*bearer(valid), *bearer(valid)], "", None),
        "then-invalid": ([*bearer(valid), *bearer("x")], "", None),
        "joined": ([("authorization", f"Bearer {valid}, Bearer {valid}")], "", None),
        "other-headers": (
            [(name, f"Bearer {valid}") for name in ("proxy-authorization", "x-authorization", "x-api-key")]
            + [("x-forwarded-user", "admin"), ("x-forwarded-authorization", f"Bearer {valid}")],
            "",
            None,
        ),
        "invalid-header-before-query": (bearer("x"), f"access_token={valid}", None),
        "invalid-header-before-cookie": ([*bearer("x"), ("cookie", f"{COOKIE}=s.{valid}")], "", None),
        "empty-header-before-query": ([("authorization", "")], f"access_token={valid}", None),
        "invalid-query-before-cookie": ([("cookie", f"{COOKIE}=s.{valid}")], "access_token=x", None),
        "query-twice": ([], f"access_token={valid}&access_token={valid}", None),
        "query-other-names": ([], f"token={valid}&Access_Token={valid}&bearer={valid}", None),
        "cookie-other-name": ([("cookie", f"celery_gateway=s.{valid}; token={valid}")], "", None),
        "cookie-without-session-dot": ([("cookie", f"{COOKIE}={valid}")], "", None),
        "cookies-twice": ([("cookie", f"{COOKIE}=a.{valid}; {COOKIE}=b.{valid}")], "", None),
        "cookie-of-a-foreign-page": (
            [("cookie", f"{COOKIE}=s.{valid}"), ("sec-fetch-site", "cross-site")],
            "",
            None,
        ),
        "cookie-of-a-sibling": (
            [("cookie", f"{COOKIE}=s.{valid}"), ("sec-fetch-site", "same-site")],
            "",
            None,
        ),
        "invalid-header-before-subprotocol": (bearer("x"), "", (f"celery-gateway.bearer.{valid}",)),
        "subprotocols-twice": ([], "", (f"celery-gateway.bearer.{valid}", f"celery-gateway.bearer.{valid}")),
        "subprotocol-other-name": ([], "", (f"bearer.{valid}", valid)),
    }


@pytest.mark.parametrize("name", foreign_carriers())
async def test_a_valid_token_counts_only_where_it_belongs(state: StateGateway, name: str) -> None:
    headers, query, subprotocols = foreign_carriers()[name]
    valid = token(celery_gateway=FULL)
    for path, method, _ in protected():
        if subprotocols is not None and method != "WEBSOCKET":
            continue
        options: dict[str, Any] = {} if subprotocols is None else {"subprotocols": subprotocols}
        target = f"{path}?{query}" if query else path
        assert_unauthorized(await exchange(state.app, target, method, headers, **options).done(), [valid])


async def test_each_carrier_is_accepted_and_the_first_one_decides(state: StateGateway) -> None:
    valid, other = token(celery_gateway=FULL), token(celery_gateway={"may": []})
    cookie = [("cookie", f"{COOKIE}=session.{valid}")]
    for headers in (bearer(valid), [("authorization", f"bearer {valid}")], [*bearer(valid), *cookie], cookie):
        assert (await Exchange(state.app, "/tasks", headers=headers).done()).status == 200
    assert (await Exchange(state.app, f"/tasks?access_token={valid}").done()).status == 200
    encoded = "".join(f"%{ord(character):02x}" for character in valid)
    assert (await Exchange(state.app, f"/tasks?access%5Ftoken={encoded}").done()).status == 200
    opened = await Exchange(
        state.app, "/ws", subprotocols=("celery-gateway", f"celery-gateway.bearer.{valid}")
    ).begun()
    assert (opened.status, opened.subprotocol) == (101, "celery-gateway")
    opened.disconnect()
    for headers, target in (
        (bearer(other), f"/tasks?access_token={valid}"),
        ([*bearer(other), *cookie], "/tasks"),
        (cookie, f"/tasks?access_token={other}"),
    ):
        assert (await Exchange(state.app, target, headers=headers).done()).status == 403, target


async def test_the_token_is_checked_before_parameters_bodies_and_paths(state: StateGateway) -> None:
    for path, method, _ in protected():
        for query in ("unknown=1", "name=" + "*a" * 600, "&".join(["name=x"] * 2_000), "last_event_id=x"):
            assert_unauthorized(
                await exchange(state.app, f"{path}?{query}", method, bearer("x" * 9)).done(), []
            )
    # The body is not read: it never comes.
    waiting = await Exchange(state.app, "/events", method="POST", body=None).done(2)
    assert_unauthorized(waiting, [])


async def test_a_token_without_a_scope_is_forbidden(state: StateGateway) -> None:
    for path, method, _ in protected():
        response = await exchange(state.app, path, method, bearer(token(celery_gateway=None))).done()
        assert response.status == 403
        assert 'error="insufficient_scope"' in response.headers["www-authenticate"]


# ------------------------------------------------------------------------------------------- routes


def test_each_route_declares_its_kind() -> None:
    listed = {(route.path, kind_of(route)) for route in routes()}
    assert listed == {
        ("/", "public"),  # the login page; it checks the right itself
        ("/healthz", "public"),
        ("/readyz", "public"),
        ("/session", "public"),
        ("/metrics", "metrics"),
        ("/events", "events"),
        ("/events/{id}", "events"),
        ("/ws", "events"),
        ("/ws", "public"),  # 426 without an upgrade
        ("/tasks", "state"),
        ("/tasks/counts", "state"),
        ("/tasks/" + id_path("uuid"), "state"),
        (f"/tasks/{id_path('uuid')}/revoke", "revoke"),
        ("/workflows", "state"),
        ("/workflows/" + id_path("root_id"), "state"),
        (f"/workflows/{id_path('root_id')}/revoke", "revoke"),
        ("/workers", "workers"),
        ("/workers/" + id_path("hostname"), "workers"),
        ("/statistics", "state"),
        ("/failures", "state"),
        ("/queues", "workers"),
        ("/assets/{hash}/{name}", "public"),
    }, "a new route: add tests of its scope to test_scopes.py"


def test_a_route_without_a_kind_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forgotten(request: Request) -> Response:
        return Response("everything")

    made = app_module.StateEndpoints

    class Forgetful(made):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.routes.append(Route("/forgotten", forgotten))

    monkeypatch.setattr(app_module, "StateEndpoints", Forgetful)
    with pytest.raises(RuntimeError, match="/forgotten.* declares no kind"):
        create_app(StateGateway().pipeline)


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/session", "/ws", "/unknown", "/favicon.ico"])
async def test_public_routes_reveal_nothing(state: StateGateway, path: str) -> None:
    for method, headers in product(("GET", "HEAD", "POST", "DELETE", "OPTIONS"), ([], bearer("x" * 9))):
        response = await Exchange(state.app, path, method=method, headers=headers).done()
        assert "bank" not in response.body.decode()
        if path in ("/healthz", "/readyz") and response.status == 200 and response.body:
            assert set(json.loads(response.body)) == {"status"}


# ------------------------------------------------------------------------------------ ends of streams


async def until_done(streams: Iterable[Stream], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        await asyncio.gather(*(stream.task for stream in streams))


def fresh(**changed: Any) -> Headers:
    return bearer(token(celery_gateway=FULL, **changed))


@pytest.mark.slow
@pytest.mark.parametrize("path", ["portable", "direct"])
async def test_streams_end_with_their_token_and_resume_without_a_gap(tmp_path: Path, path: str) -> None:
    gateway = StateGateway(authenticator=Authenticator(access_file(tmp_path)))
    async with served(gateway, path) as port:
        ends_at = int(time.time()) + 5  # a busy machine takes a second to open the streams
        streams = [await Stream(kind, fresh(exp=ends_at)).open(gateway.app, port) for kind in KINDS]
        lasting = await Stream("ndjson", fresh()).open(gateway.app, port)
        sent = 0
        while not all(stream.task.done() for stream in streams):
            sent += 1
            gateway.put(known(f"task-{sent}"))
            await asyncio.sleep(0.02)
            assert time.time() < ends_at + 30, "the streams do not end"
        for stream in streams:
            stream.assert_ended("expired", 4001)
            assert ends_at - 0.1 <= stream.ended_at <= ends_at + 10
        again = [
            await Stream(stream.kind, fresh(), stream.last_id).open(gateway.app, port) for stream in streams
        ]
        gateway.put(known("last"))
        await until(lambda: all("last" in stream.uuids for stream in (*again, lasting)))
        expected = [*(f"task-{number}" for number in range(1, sent + 1)), "last"]
        for before, after in zip(streams, again, strict=True):
            assert after.messages[0]["resume"] == "resumed"
            assert before.uuids + after.uuids == expected, before.kind
        assert lasting.uuids == expected
        assert_unauthorized(await Exchange(gateway.app, "/tasks", headers=fresh(exp=ends_at)).done(), [])
        gateway.pipeline.hub.close()
        await until_done([*again, lasting])


@asynccontextmanager
async def checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[StateGateway, Callable[[], None]]]:
    """A gateway that reads its access file again, and a function that removes a static token from that."""
    monkeypatch.setattr(authenticator_module, "POLL_SECONDS", 0.02)
    authenticator = Authenticator(access_file(folder))
    running = asyncio.create_task(authenticator.run())
    try:
        yield StateGateway(authenticator=authenticator), lambda: _remove(folder)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _remove(folder: Path) -> None:
    access_file(folder, removed=True)


@pytest.mark.parametrize("path", ["portable", "direct"])
async def test_streams_end_when_their_static_token_is_removed(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with checked(tmp_path, monkeypatch) as (gateway, remove), served(gateway, path) as port:
        ending = [await Stream(kind, bearer(REMOVED)).open(gateway.app, port) for kind in KINDS]
        staying = [await Stream(kind, bearer(STATIC)).open(gateway.app, port) for kind in KINDS]
        remove()
        await until_done(ending)
        for stream in ending:
            stream.assert_ended("expired", 4001)
        assert_unauthorized(await Exchange(gateway.app, "/tasks", headers=bearer(REMOVED)).done(), [REMOVED])
        gateway.put(known("later"))
        await until(lambda: all(stream.uuids == ["later"] for stream in staying))
        assert not any(stream.uuids for stream in ending)
        gateway.pipeline.hub.close()
        await until_done(staying)


async def test_a_token_that_is_removed_while_a_body_arrives_gets_no_lasting_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with checked(tmp_path, monkeypatch) as (gateway, remove):
        slow = Exchange(
            gateway.app, "/events?format=ndjson", method="POST", headers=bearer(REMOVED), body=None
        )
        slow.send_body(b'{"any"', is_last=False)
        await asyncio.sleep(0)
        remove()
        probe = bearer(REMOVED)
        async with asyncio.timeout(30):
            while (await Exchange(gateway.app, "/tasks", headers=probe).done()).status != 401:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        slow.send_body(b': [{"name": "*"}]}')
        await slow.done(5)
        gateway.put(known("later"))
        assert slow.status == 401 or slow.messages[-1]["reason"] == "expired"
        assert b"later" not in slow.body


async def test_a_session_that_ends_while_a_body_arrives_gets_no_lasting_stream(state: StateGateway) -> None:
    cookie = await started_session(state)
    slow = Exchange(
        state.app, "/events?format=ndjson", method="POST", headers=[("cookie", cookie)], body=None
    )
    slow.send_body(b"{", is_last=False)
    await asyncio.sleep(0.01)
    await Exchange(state.app, "/session", method="DELETE", headers=[("cookie", cookie)]).done()
    slow.send_body(b"}")
    await slow.done(5)
    assert slow.messages[-1]["reason"] == "expired"


async def started_session(state: StateGateway, text: str = "") -> str:
    """The cookie of a new session, as browsers send it."""
    headers = bearer(text or token(celery_gateway=FULL))
    response = await Exchange(state.app, "/session", method="POST", headers=headers).done()
    assert response.status == 204
    return response.headers["set-cookie"].partition(";")[0]


@pytest.mark.parametrize("path", ["portable", "direct"])
async def test_the_streams_of_a_session_end_with_it(state: StateGateway, path: str) -> None:
    async with served(state, path) as port:
        cookies = [await started_session(state) for _ in range(2)]
        ending = [await Stream(kind, [("cookie", cookies[0])]).open(state.app, port) for kind in KINDS]
        staying = await Stream("sse", [("cookie", cookies[1])]).open(state.app, port)
        headers = [("cookie", cookies[0])]
        ended = await Exchange(state.app, "/session", method="DELETE", headers=headers).done()
        assert ended.status == 204 and "Max-Age=0" in ended.headers["set-cookie"]
        await until_done(ending)
        for stream in ending:
            stream.assert_ended("expired", 4001)
        for target, method, _ in protected():
            assert_unauthorized(await exchange(state.app, target, method, headers).done(), [cookies[0]])
        assert not staying.task.done()
        state.pipeline.hub.close()
        await until_done([staying])


async def test_clients_without_a_token_cannot_revive_a_session(
    state: StateGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway remembers a limited number of ended sessions: nobody else may fill this memory."""
    monkeypatch.setattr(sessions_module, "MAX_ENDED", 10)
    cookie = await started_session(state)
    await Exchange(state.app, "/session", method="DELETE", headers=[("cookie", cookie)]).done()
    for number in range(50):
        for text in ("x", "", INVALID["expired"], new_token()):
            forged = [("cookie", f"{COOKIE}={number:016}.{text}")]
            await Exchange(state.app, "/session", method="DELETE", headers=forged).done()
    assert_unauthorized(await Exchange(state.app, "/tasks", headers=[("cookie", cookie)]).done(), [cookie])


@pytest.mark.parametrize("name", ["expired", "unknown-static", "alg-none-unsigned", "text", "bad-scope"])
async def test_an_invalid_token_starts_no_session(state: StateGateway, name: str) -> None:
    attempts: list[tuple[Headers, str]] = [(bearer(INVALID[name]), "")]
    valid = token(celery_gateway=FULL)
    # Only the header starts one: a page can send none of the others, or only those that it must not.
    attempts += [([("cookie", f"{COOKIE}=s.{valid}")], ""), ([], f"access_token={valid}")]
    attempts += [([("cookie", f"{COOKIE}=s.{valid}")], f"access_token={valid}"), ([], "")]
    for headers, query in attempts:
        response = await Exchange(state.app, f"/session?{query}", method="POST", headers=headers).done()
        assert response.status in (400, 401)
        assert "set-cookie" not in response.headers


@pytest.mark.slow
@pytest.mark.parametrize("path", ["portable", "direct"])
async def test_any_stream_ends_at_the_maximum_age_and_can_resume(tmp_path: Path, path: str) -> None:
    gateway = StateGateway(authenticator=Authenticator(access_file(tmp_path)), max_connection_age_seconds=1.0)
    async with served(gateway, path) as port:
        began_at = time.time()
        streams = [await Stream(kind, fresh()).open(gateway.app, port) for kind in KINDS]
        gateway.put(known("a"))
        await until_done(streams)
        gateway.put(known("b"))
        for stream in streams:
            stream.assert_ended("drain", 1012)
            assert 0.8 <= stream.ended_at - began_at <= 10  # the age, its jitter, and a busy machine
            resumed = await Stream(stream.kind, fresh(), stream.last_id).open(gateway.app, port)
            await until(lambda resumed=resumed: resumed.uuids)  # type: ignore[misc]
            assert stream.uuids + resumed.uuids == ["a", "b"]
            resumed.task.cancel()


@pytest.mark.slow
async def test_operations_of_a_websocket_do_not_outlive_the_maximum_age(tmp_path: Path) -> None:
    gateway = StateGateway(authenticator=Authenticator(access_file(tmp_path)), max_connection_age_seconds=1.0)
    began_at = time.time()
    opened = await Exchange(gateway.app, "/ws", headers=fresh(), subprotocols=()).begun()
    while not opened.is_done:
        opened.send_json({"op": "open"})
        await asyncio.sleep(0.1)
        assert time.time() < began_at + 30, "another stream is not another connection"
    assert opened.close_code == 1012


@pytest.mark.slow
async def test_operations_of_a_websocket_do_not_outlive_its_token(tmp_path: Path) -> None:
    gateway = StateGateway(authenticator=Authenticator(access_file(tmp_path)))
    ends_at = int(time.time()) + 3
    opened = await Exchange(gateway.app, "/ws", headers=fresh(exp=ends_at), subprotocols=()).begun()
    while not opened.is_done:
        opened.send_json({"op": "open", "since": "earliest"})
        opened.send_json({"op": "filter", "any": [{}]})
        await asyncio.sleep(0.05)
        assert time.time() < ends_at + 30, "another stream is not another token"
    assert opened.close_code == 4001
