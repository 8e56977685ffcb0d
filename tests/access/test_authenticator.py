"""From a token to a principal: carried by a real file, which changes, and by a real server of keys."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from celery_gateway.access import authenticator as module
from celery_gateway.access import jwt_verifier
from celery_gateway.access.authenticator import COST_BYTES, PRINCIPAL_BYTES, Authenticator
from celery_gateway.access.principal import Principal
from celery_gateway.access.scope import Scope
from celery_gateway.access.static_tokens import hash_text, new_token
from celery_gateway.errors import Forbidden, GatewayError, InvalidToken
from celery_gateway.tokens import MAX_TOKEN_BYTES, sign
from tests.support.thorough import tries
from tests.support.token_issuer import ISSUER, SECRET, JwksServer, jwk, jwks_server, private_key, token

pytestmark = pytest.mark.unit

GRAFANA = new_token()
CI = new_token()


class AccessFolder:
    """A folder with an access file, whose tables can be set one by one."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "auth.toml"
        self.secret = folder / "shop.secret"
        self.secret.write_text(SECRET)
        self.secret.chmod(0o600)
        self.tables = {
            "grafana": f'[tokens.grafana]\nhash = "{hash_text(GRAFANA)}"\nscope = {{ may = ["metrics"] }}\n'
            "quota = { streams = 9 }\n",
            "ci": f'[tokens.ci]\nhash = "{hash_text(CI)}"\nscope = {{}}\n',
            "shop": f'[issuers.shop]\nissuer = "{ISSUER}"\nalgorithm = "HS256"\nsecret_file = "shop.secret"\n'
            "leeway_seconds = 0\n",
            "quota": "[quota]\nstreams = 7\n",
        }
        self.write()

    def write(self, **tables: str | None) -> None:
        self.tables |= {name: table or "" for name, table in tables.items()}
        self.replace("\n".join(self.tables.values()))

    def replace(self, text: str) -> None:
        """Replace the file as editors and Kubernetes do."""
        temporary = self.path.with_suffix(".new")
        temporary.write_text(text)
        os.replace(temporary, self.path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AccessFolder:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    return AccessFolder(tmp_path)


@pytest.fixture
def server() -> Iterator[JwksServer]:
    with jwks_server() as server:
        server.keys = [jwk("ES256", 0)]
        yield server


@asynccontextmanager
async def running(folder: AccessFolder) -> AsyncIterator[Authenticator]:
    authenticator = Authenticator(str(folder.path))
    task = asyncio.create_task(authenticator.run())
    try:
        yield authenticator
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def wait_until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def changed(authenticator: Authenticator, change: Callable[[], None]) -> None:
    """Change the file, and wait until the authenticator has read it."""
    changes: list[int] = []
    authenticator.on_change = lambda: changes.append(1)
    change()
    await wait_until(lambda: changes)


async def refused(authenticator: Authenticator, text: str, reason: str = "") -> None:
    with pytest.raises(InvalidToken) as error:
        await authenticator.authenticate(text)
    assert reason in str(error.value) and (len(text) < 8 or text not in str(error.value))


async def test_static_tokens(folder: AccessFolder) -> None:
    authenticator = Authenticator(str(folder.path))
    principal = await authenticator.authenticate(GRAFANA)
    assert (principal.name, principal.expires_at) == ("token:grafana", None)
    assert principal.scope == Scope.parse({"may": ["metrics"]})
    assert principal.quota == (("streams", 9),)
    assert principal.credential and GRAFANA not in principal.credential
    assert authenticator.quota == {"streams": 7}
    for text in (
        new_token(),
        GRAFANA[:-1],
        GRAFANA + "x",
        GRAFANA.lower(),
        hash_text(GRAFANA),
        "cgw_",
        "é",
        "\ud800",
    ):
        await refused(authenticator, text)
    await refused(authenticator, "x" * (MAX_TOKEN_BYTES + 1), "too long")
    with pytest.raises(InvalidToken) as error:
        await authenticator.authenticate("")
    assert error.value.is_missing


async def test_a_static_token_expires(folder: AccessFolder) -> None:
    end = time.time() + 2
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(end)) + f".{int(end % 1 * 1000):03d}Z"
    folder.write(ci=folder.tables["ci"] + f"expires = {stamp}\n")
    authenticator = Authenticator(str(folder.path))
    principal = await authenticator.authenticate(CI)
    assert principal.expires_at == pytest.approx(end, abs=0.002)
    await wait_until(lambda: time.time() > end)
    await refused(authenticator, CI, "expired")


async def test_json_web_tokens(folder: AccessFolder) -> None:
    authenticator = Authenticator(str(folder.path))
    text = sign(SECRET, issuer=ISSUER, subject="alice", root_id="r", may=["events"], minutes=1)
    principal = await authenticator.authenticate(text)
    assert principal.name == f"{ISSUER}:alice"
    assert principal.scope == Scope.parse({"any": [{"root_id": ["r"]}], "may": ["events"]})
    assert principal.expires_at == pytest.approx(time.time() + 60, abs=2)
    assert principal.credential and text not in principal.credential
    other = await authenticator.authenticate(sign(SECRET, issuer=ISSUER, subject="alice", root_id="s"))
    assert other.credential != principal.credential
    await refused(authenticator, token(iss="https://eve.example"), "iss")
    await refused(authenticator, token("another secret that is long enough"), "signature")
    await refused(authenticator, token(exp=1), "expired")
    with pytest.raises(Forbidden):
        await authenticator.authenticate(token(celery_gateway=None))


@pytest.mark.slow
async def test_a_token_is_verified_once_until_it_ends(
    folder: AccessFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator = Authenticator(str(folder.path))
    verified: list[str] = []
    verify = jwt_verifier.verify

    def counted(text: str, *arguments: Any) -> Any:
        verified.append(text)
        return verify(text, *arguments)

    monkeypatch.setattr(jwt_verifier, "verify", counted)
    text = token(exp=int(time.time()) + 4)
    first = await authenticator.authenticate(text)
    assert await authenticator.authenticate(text) is first and len(verified) == 1
    await wait_until(lambda: first.expires_at is not None and time.time() > first.expires_at)
    await refused(authenticator, text, "expired")
    await refused(authenticator, text, "expired")
    monkeypatch.setattr(module, "MAX_CACHED_BYTES", 3 * (PRINCIPAL_BYTES + COST_BYTES))
    verified.clear()
    texts = [token(sub=str(number)) for number in range(4)]
    for each in (*texts, *texts[1:], texts[0]):
        await authenticator.authenticate(each)
    assert verified == [*texts, texts[0]]  # the oldest made room
    assert SECRET not in repr(vars(authenticator)) and texts[0] not in repr(vars(authenticator))


async def test_a_removed_token_is_revoked(folder: AccessFolder) -> None:
    async with running(folder) as authenticator:
        grafana, ci = await authenticator.authenticate(GRAFANA), await authenticator.authenticate(CI)
        alice = await authenticator.authenticate(token())
        assert not any(map(authenticator.is_revoked, (grafana, ci, alice, Principal())))
        await changed(authenticator, lambda: folder.write(grafana=None))
        assert authenticator.is_revoked(grafana)
        assert not authenticator.is_revoked(ci) and not authenticator.is_revoked(alice)
        await refused(authenticator, GRAFANA, "unknown")
        wider = folder.tables["ci"].replace("{}", '{ may = ["state"] }')
        await changed(authenticator, lambda: folder.write(ci=wider))
        assert authenticator.is_revoked(ci)  # its scope is another one
        assert not authenticator.is_revoked(await authenticator.authenticate(CI))
        await changed(authenticator, lambda: folder.write(shop=None))
        assert authenticator.is_revoked(alice)
        await refused(authenticator, token())
        await changed(authenticator, lambda: folder.replace(""))
        await refused(authenticator, CI)


async def test_a_changed_secret_is_used(folder: AccessFolder) -> None:
    other = "another secret that is long enough: 123456"
    async with running(folder) as authenticator:
        text = token()
        alice = await authenticator.authenticate(text)
        await changed(authenticator, lambda: folder.secret.write_text(other) and None)
        assert authenticator.is_revoked(alice)
        await refused(authenticator, text, "signature")
        assert await authenticator.authenticate(token(other))


async def test_a_malformed_version_leaves_the_one_before(
    folder: AccessFolder, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(folder) as authenticator:
        ci = await authenticator.authenticate(CI)
        good = folder.path.read_text()
        for bad, reason in (("[tokens.ci", "invalid TOML"), (f'[tokens.ci]\nhash = "{CI}"', "hash")):
            caplog.clear()
            folder.replace(bad)
            await wait_until(lambda: caplog.records)
            await asyncio.sleep(0.1)  # some more rounds
            (record,) = caplog.records
            assert record.levelno == logging.ERROR and reason in record.getMessage()
            assert CI not in record.getMessage()
            assert await authenticator.authenticate(CI) == ci and not authenticator.is_revoked(ci)
        await changed(authenticator, lambda: folder.replace(good))
        for _ in range(2):  # the same error is logged again if the file was there in between
            caplog.clear()
            away = folder.path.rename(folder.path.with_suffix(".away"))
            await wait_until(lambda: "No such file" in caplog.text)
            assert await authenticator.authenticate(CI)
            away.rename(folder.path)
            await wait_until(lambda: not authenticator._error)
        folder.path.unlink()
        await changed(authenticator, lambda: folder.replace(good))
        assert await authenticator.authenticate(CI)


async def test_a_missing_secret_is_found_when_it_is_there(
    folder: AccessFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """The fix is in a file that the version in use does not refer to."""
    async with running(folder) as authenticator:
        folder.write(shop=folder.tables["shop"].replace("shop.secret", "new.secret"))
        await wait_until(lambda: "new.secret" in caplog.text)
        new = folder.path.parent / "new.secret"
        await changed(authenticator, lambda: new.write_text("a new secret that is long enough, too") and None)
        assert await authenticator.authenticate(token("a new secret that is long enough, too"))


def test_a_missing_or_malformed_file_at_the_start(folder: AccessFolder) -> None:
    folder.replace("[tokens.a")
    with pytest.raises(GatewayError, match="invalid TOML"):
        Authenticator(str(folder.path))
    with pytest.raises(GatewayError, match="No such file"):
        Authenticator(str(folder.path) + ".missing")


async def test_users_of_a_proxy(folder: AccessFolder) -> None:
    async with running(folder) as authenticator:
        assert authenticator.proxy_principal({"x-user": "alice"}) is None
        proxy = '[proxy]\nuser_header = "X-User"\n[proxy.users.alice]\nscope = {}\nquota = { streams = 1 }\n'
        await changed(authenticator, lambda: folder.write(proxy=proxy))
        for headers in ({"x-user": "alice"}, Headers({"X-User": "alice"})):
            alice = authenticator.proxy_principal(headers)
            assert alice is not None
            assert (alice.name, alice.scope, alice.quota) == (
                "proxy:alice",
                Scope.parse({}),
                (("streams", 1),),
            )
        assert authenticator.proxy_principal({}) is None
        assert authenticator.proxy_principal({"x-user": ""}) is None
        for user in ("bob", "Alice", "alice ", "alice,bob", "a\nb"):
            with pytest.raises(Forbidden) as error:
                authenticator.proxy_principal({"x-user": user})
            assert user not in str(error.value)
        others = proxy.replace("[proxy.users", 'scope = { may = ["state"] }\n[proxy.users')
        await changed(authenticator, lambda: folder.write(proxy=others))
        assert not authenticator.is_revoked(alice)
        bob = authenticator.proxy_principal({"x-user": "bob"})
        assert bob is not None and bob.scope.may == {"state"}
        with pytest.raises(Forbidden):
            authenticator.proxy_principal({"x-user": "a\nb"})
        await changed(authenticator, lambda: folder.write(proxy=None))
        assert authenticator.is_revoked(alice) and authenticator.is_revoked(bob)


def with_jwks(folder: AccessFolder, server: JwksServer) -> None:
    folder.write(
        shop=f'[issuers.shop]\nissuer = "{ISSUER}"\nalgorithm = "ES256"\njwks_url = "{server.url}"\n'
    )


def es256(number: int, **changed: Any) -> str:
    return token(private_key("ES256", number), "ES256", {"kid": str(number)}, **changed)


async def test_keys_of_a_url(
    folder: AccessFolder, server: JwksServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celery_gateway.access.jwks.MIN_INTERVAL_SECONDS", 0.0)
    with_jwks(folder, server)
    server.delay.clear()
    authenticator = Authenticator(str(folder.path))
    assert server.requests == 0  # the issuer does not delay the start
    first = es256(0)
    waiting = asyncio.create_task(authenticator.authenticate(first))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    server.delay.set()
    alice = await waiting
    assert await authenticator.authenticate(es256(0, sub="bob")) and server.requests == 1
    server.keys = [jwk("ES256", 1)]
    carol = await authenticator.authenticate(es256(1, sub="carol"))  # an unknown kid
    assert server.requests == 2
    await refused(authenticator, first, "kid")  # its principal is not kept
    assert not authenticator.is_revoked(alice) and not authenticator.is_revoked(carol)
    server.status = 500
    assert await authenticator.authenticate(es256(1, sub="dave"))
    await refused(authenticator, es256(2), "kid")


async def test_unknown_keys_cause_no_loop(folder: AccessFolder, server: JwksServer) -> None:
    with_jwks(folder, server)
    async with running(folder) as authenticator:
        for number in range(200):
            await refused(
                authenticator, token(private_key("ES256", 5), "ES256", {"kid": f"x{number}"}), "kid"
            )
        assert server.requests == 1
        await changed(authenticator, lambda: folder.write(ci=None))
        assert await authenticator.authenticate(es256(0)) and server.requests == 1  # the keys are kept


async def test_keys_are_fetched_without_any_token(folder: AccessFolder, server: JwksServer) -> None:
    with_jwks(folder, server)
    async with running(folder):
        await wait_until(lambda: server.requests)


async def test_a_slow_issuer_does_not_delay_the_file(
    folder: AccessFolder, server: JwksServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celery_gateway.access.jwks.TIMEOUT_SECONDS", 3_600.0)
    with_jwks(folder, server)
    server.delay.clear()
    async with running(folder) as authenticator:
        await wait_until(lambda: server.requests)
        await changed(authenticator, lambda: folder.write(ci=None))  # the issuer has not responded yet
        await refused(authenticator, CI)
        server.delay.set()


async def test_no_secret_is_logged(
    folder: AccessFolder, server: JwksServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = [GRAFANA, CI, token(), token(exp=1), token("x" * 40), es256(3), new_token()]
    texts: list[str] = []
    async with running(folder) as authenticator:
        for change in (lambda: folder.write(ci=None), lambda: with_jwks(folder, server)):
            for each in tokens:
                try:
                    texts.append(repr(await authenticator.authenticate(each)))
                except GatewayError as error:
                    texts.append(repr(error))
            await changed(authenticator, change)
    everything = caplog.text + "".join(texts)
    assert len(texts) == 2 * len(tokens) and "has changed" in everything
    for secret in (SECRET, *tokens, *(part for each in tokens for part in each.split(".")[1:])):
        assert secret not in everything


@pytest.mark.slow
@settings(max_examples=tries(200), deadline=None)
@given(st.text() | st.from_regex(r"(cgw_)?[A-Za-z0-9_.-]{0,60}", fullmatch=True))
def test_garbage_is_an_invalid_token(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    global _shared
    if _shared is None:
        _shared = Authenticator(str(AccessFolder(tmp_path_factory.mktemp("garbage")).path))
    with pytest.raises(InvalidToken):
        asyncio.run(_shared.authenticate(text))


_shared: Authenticator | None = None
