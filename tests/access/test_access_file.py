"""The access file: its values, and one clear error for each mistake."""

from pathlib import Path

import pytest

from celery_gateway.access import access_file
from celery_gateway.access.scope import Scope
from celery_gateway.errors import GatewayError
from tests.support.token_issuer import PUBLIC_KEY_ALGORITHMS, SECRET, private_pem, public_pem

pytestmark = pytest.mark.unit

HASH = "sha256:" + "0a" * 32
TOKEN = f'[tokens.a]\nhash = "{HASH}"\nscope = {{}}\n'
ISSUER = '[issuers.shop]\nissuer = "https://shop.example"\n'
HMAC = ISSUER + 'algorithm = "HS256"\nsecret_file = "shop.secret"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for algorithm in PUBLIC_KEY_ALGORITHMS:
        (tmp_path / f"{algorithm}.pem").write_bytes(public_pem(algorithm))
        (tmp_path / f"{algorithm}.private").write_bytes(private_pem(algorithm))
    (tmp_path / "shop.secret").write_text(SECRET + "\n")
    (tmp_path / "shop.secret").chmod(0o600)
    (tmp_path / "short.secret").write_text("too short but very secret")
    return tmp_path


def read(folder: Path, text: str) -> access_file.AccessFile:
    path = folder / "auth.toml"
    path.write_text(text)
    path.chmod(0o644)
    return access_file.read(path)


def test_all_tables(folder: Path) -> None:
    file = read(
        folder,
        f"""
        [quota]
        streams = 7
        [tokens.grafana]
        hash = "{HASH}"
        scope = {{ may = ["metrics"] }}
        expires = 2027-01-01T02:00:00+02:00
        quota = {{ streams = 1000 }}
        [tokens.day]
        hash = "sha256:{"1" * 64}"
        scope = {{}}
        expires = 2027-01-01
        [issuers.shop]
        issuer = "https://shop.example"
        algorithm = "HS256"
        secret_file = "shop.secret"
        [issuers.cloud]
        issuer = "https://cloud.example"
        audience = "events"
        algorithm = "RS256"
        jwks_url = "https://cloud.example/jwks.json"
        leeway_seconds = 0
        scope = {{ may = ["state"] }}
        quota = {{ streams = 3 }}
        [proxy]
        user_header = "X-Forwarded-User"
        [proxy.users."alice@shop.example"]
        scope = {{ may = ["events"] }}
        """,
    )
    grafana, day = file.tokens
    assert (grafana.name, grafana.digest, grafana.quota) == ("grafana", "0a" * 32, (("streams", 1000),))
    assert grafana.scope == Scope.parse({"may": ["metrics"]})
    assert grafana.expires_at == day.expires_at == 1_798_761_600
    shop, cloud = file.issuers
    assert (shop.audience, shop.leeway_seconds, shop.scope) == ("celery-gateway", 30, None)
    assert shop.key is not None and shop.key.algorithm_name == "HS256"
    assert (cloud.audience, cloud.leeway_seconds, cloud.key) == ("events", 0, None)
    assert (cloud.scope, cloud.quota) == (Scope.parse({"may": ["state"]}), (("streams", 3),))
    assert file.proxy is not None and file.proxy.others is None
    assert file.proxy.users["alice@shop.example"].scope == Scope.parse({"may": ["events"]})
    assert file.quota == {"streams": 7}
    assert set(file.watched) == {folder / "auth.toml", folder / "shop.secret"}
    assert file.warnings == ()
    assert SECRET not in repr(file) and "0a" * 32 not in repr(file)


@pytest.mark.parametrize("algorithm", PUBLIC_KEY_ALGORITHMS)
def test_a_public_key_is_bound_to_its_algorithm(folder: Path, algorithm: str) -> None:
    (issuer,) = read(folder, f'{ISSUER}algorithm = "{algorithm}"\nkey_file = "{algorithm}.pem"\n').issuers
    assert issuer.key is not None and issuer.key.algorithm_name == algorithm


def test_fingerprints_change_with_values_and_keys(folder: Path) -> None:
    def fingerprint(text: str) -> str:
        (issuer,) = read(folder, text).issuers
        return issuer.fingerprint

    first = fingerprint(HMAC)
    assert fingerprint(HMAC) == first
    assert fingerprint(HMAC + "leeway_seconds = 1\n") != first
    (folder / "shop.secret").write_text("another secret that is long enough, too")
    assert fingerprint(HMAC) != first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[tokens.a", "invalid TOML"),
        ("tokens = 1", "invalid tokens: it must be a table"),
        ("[token.a]", "unknown key 'token'; allowed are quota, tokens, issuers, proxy"),
        ("[tokens.a]\nscope = {}", "invalid tokens.a.hash: it is required"),
        (f'[tokens.a]\nhash = "{HASH}"', "invalid tokens.a.scope: it is required; write scope = {}"),
        ("[tokens.a]\nhash = 7\nscope = {}", "invalid tokens.a.hash: it must be text"),
        ('[tokens.a]\nhash = "cgw_abc"\nscope = {}', "invalid tokens.a.hash: it must be 'sha256:'"),
        (TOKEN + 'expire = "x"', "invalid tokens.a: unknown key 'expire'"),
        (TOKEN + "expires = 2027-01-01T00:00:00", "write 2027-01-01T00:00:00Z for UTC"),
        (TOKEN + 'expires = "2027-01-01"', "without quotes"),
        (TOKEN + "quota = { stream = 1 }", "invalid tokens.a.quota: unknown quota 'stream'"),
        (TOKEN + "quota = { streams = -1 }", "invalid tokens.a.quota: invalid quota streams"),
        (TOKEN.replace("{}", '{ may = ["x"] }'), "invalid tokens.a.scope: invalid scope: may contains 'x'"),
        (TOKEN + TOKEN.replace(".a]", ".b]"), "invalid tokens.b.hash: tokens.a has the same hash"),
        ("[quota]\nnothing = 1", "invalid quota: unknown quota 'nothing'"),
        (HMAC.replace('issuer = "https://shop.example"', ""), "invalid issuers.shop.issuer: it is required"),
        (HMAC.replace("HS256", "none"), "'none' is not allowed; allowed are HS256, RS256, ES256, EdDSA"),
        (HMAC.replace("HS256", "HS512"), "'HS512' is not allowed"),
        (HMAC.replace("HS256", "RS256"), "RS256 needs key_file or jwks_url"),
        (ISSUER + 'algorithm = "HS256"', "HS256 needs secret_file"),
        (ISSUER + 'algorithm = "HS256"\njwks_url = "https://x.example"', "HS256 needs secret_file"),
        (HMAC + 'key_file = "RS256.pem"', "only one of"),
        (HMAC.replace("shop.secret", "none.secret"), "none.secret: No such file"),
        (HMAC.replace("shop.secret", "short.secret"), "at least 32 are required"),
        (HMAC.replace("shop.secret", "RS256.pem"), "it has a public or private key"),
        (HMAC + "leeway_seconds = 3600", "invalid issuers.shop.leeway_seconds: 3600 is not allowed"),
        (HMAC + "leeway_seconds = true", "True is not allowed"),
        (HMAC + "leeway_seconds = nan", "nan is not allowed"),
        (ISSUER + 'algorithm = "ES256"\nkey_file = "RS256.pem"', "no public key in PEM for ES256"),
        (ISSUER + 'algorithm = "RS256"\nkey_file = "shop.secret"', "no public key in PEM for RS256"),
        (ISSUER + 'algorithm = "RS256"\nkey_file = "RS256.private"', "it has a private key"),
        (ISSUER + 'algorithm = "RS256"\njwks_url = "http://x.example/"', "use https://"),
        (ISSUER + 'algorithm = "RS256"\njwks_url = "file:///etc/passwd"', "use https://"),
        (ISSUER + 'algorithm = "RS256"\njwks_url = "http://127.0.0.1.x.example/"', "use https://"),
        (ISSUER + 'algorithm = "RS256"\njwks_url = "https://u:hunter2@x.example/"', "user name or password"),
        ("[proxy]\nscope = {}", "invalid proxy.user_header: it is required"),
        ('[proxy]\nuser_header = "X:Y"\nscope = {}', "it must be the name of a header"),
        ('[proxy]\nuser_header = "X-User"', "all users would be refused"),
        ('[proxy]\nuser_header = "X-User"\n[proxy.users.a]', "invalid proxy.users.a.scope: it is required"),
    ],
)
def test_errors_name_the_file_and_the_key(folder: Path, text: str, expected: str) -> None:
    with pytest.raises(GatewayError) as error:
        read(folder, text)
    assert expected in str(error.value)
    assert str(error.value).startswith(str(folder / "auth.toml"))
    assert "\n" not in str(error.value)
    for secret in (SECRET, "too short but very secret", "cgw_abc", "hunter2", "BEGIN"):
        assert secret not in str(error.value)


def test_missing_and_binary_files(folder: Path) -> None:
    with pytest.raises(GatewayError, match="No such file.*celery-gateway token create"):
        access_file.read(folder / "missing.toml")
    with pytest.raises(GatewayError, match="Is a directory"):
        access_file.read(folder)
    (folder / "auth.toml").write_bytes(b"\xff")
    with pytest.raises(GatewayError, match="byte 0 is no UTF-8"):
        access_file.read(folder / "auth.toml")


def test_a_file_without_any_access_is_no_error(folder: Path) -> None:
    """A running gateway would otherwise keep the last token, which was removed."""
    file = read(folder, "")
    assert file.tokens == ()
    assert "all requests are refused" in file.warnings[0]


def test_permissions_of_others_are_warned_of(folder: Path) -> None:
    (folder / "shop.secret").chmod(0o644)
    (warning,) = read(folder, HMAC).warnings
    assert warning.endswith(f"run chmod o-r {folder / 'shop.secret'}") and SECRET not in warning
    (folder / "shop.secret").chmod(0o640)
    (folder / "auth.toml").chmod(0o666)
    (warning,) = access_file.read(folder / "auth.toml").warnings
    assert "chmod o-w" in warning


def test_only_static_tokens_are_read_without_other_files(folder: Path) -> None:
    (folder / "auth.toml").write_text(TOKEN + HMAC.replace("shop.secret", "none.secret"))
    (token,) = access_file.read_static_tokens(folder / "auth.toml")
    assert token.name == "a"
