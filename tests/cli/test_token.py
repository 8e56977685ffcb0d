"""`celery-gateway token`: files that keep their comments, tokens that the gateway accepts, exit codes."""

import asyncio
import os
import stat
import time
import tomllib
from pathlib import Path

import jwt
import pytest

from celery_gateway.access.authenticator import Authenticator
from celery_gateway.access.principal import Principal
from celery_gateway.access.scope import Scope
from celery_gateway.access.static_tokens import hash_text, new_token
from celery_gateway.errors import InvalidToken
from tests.support.command import call
from tests.support.token_issuer import ISSUER, SECRET, private_pem

pytestmark = pytest.mark.unit

BY_HAND = f"""# Tokens of the shop.
[quota]
streams = 7   # few

# Dashboards
[tokens.grafana]
hash = "{hash_text(new_token())}"   # in the vault
scope = {{ may = ["metrics"] }}
# grafana ends here

# Bob and his team,
# until the audit
[ tokens . "bob" ]
hash = "{hash_text(new_token())}"
[tokens.bob.scope]
any = [
    {{ name = ["[tokens.grafana]"] }},
]

# Back end
[issuers.shop]
issuer = "{ISSUER}"
algorithm = "HS256"
secret_file = "shop.secret"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "shop.secret").write_text(SECRET + "\n")
    return tmp_path / "auth.toml"


def authenticated(file: Path, token: str) -> Principal:
    """Authenticate a token as a gateway does."""
    return asyncio.run(Authenticator(str(file)).authenticate(token))


def test_create_makes_a_file_and_prints_the_token_once(file: Path) -> None:
    result = call("token", "create", "grafana", "--auth", str(file), "--may", "metrics")
    assert result.returncode == 0
    token = result.stdout.removesuffix("\n")
    assert token.startswith("cgw_") and "\n" not in token
    assert token not in result.stderr and "cannot be printed again" in result.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token not in file.read_text()
    principal = authenticated(file, token)
    assert (principal.name, principal.scope.may) == ("token:grafana", {"metrics"})
    assert set(os.listdir(file.parent)) == {"auth.toml", "shop.secret"}  # no temporary file


def test_create_appends_and_keeps_the_rest(file: Path) -> None:
    file.write_text(BY_HAND.rstrip("\n"))
    file.chmod(0o640)
    filters = (
        "--name",
        "shop.*",
        "--name",
        "!shop.x",
        "--queue",
        "q",
        "--hide",
        "args,kwargs",
        "--may",
        "events",
    )
    token = call("token", "create", "a b.c", "--auth", str(file), *filters).stdout.strip()
    text = file.read_text()
    assert text.startswith(BY_HAND) and stat.S_IMODE(file.stat().st_mode) == 0o640
    principal = authenticated(file, token)
    assert principal.name == "token:a b.c" and principal.expires_at is None
    assert principal.scope == Scope.parse(
        {
            "any": [{"name": ["shop.*", "!shop.x"], "queue": ["q"]}],
            "hide": ["args", "kwargs"],
            "may": ["events"],
        }
    )


def test_create_with_several_filters(file: Path) -> None:
    any_filters = '[{"name": ["shop.*"]}, {"queue": "m\\u00e9\\"l"}]'
    token = call("token", "create", "x", "--auth", str(file), "--any", any_filters).stdout.strip()
    principal = authenticated(file, token)
    assert principal.scope == Scope.parse({"any": [{"name": ["shop.*"]}, {"queue": 'm\u00e9"l'}]})


@pytest.mark.parametrize(
    ("expires", "seconds"),
    [("90m", 5_400), ("12h", 43_200), ("30d", 2_592_000), ("4w", 2_419_200)],
)
def test_expires_in_some_time(file: Path, expires: str, seconds: int) -> None:
    token = call("token", "create", "x", "--auth", str(file), "--expires", expires).stdout.strip()
    principal = authenticated(file, token)
    assert principal.expires_at == pytest.approx(time.time() + seconds, abs=5)


@pytest.mark.parametrize(
    ("expires", "seconds"),
    [
        ("2100-01-01", 4_102_444_800),
        ("2100-01-01T00:00:00Z", 4_102_444_800),
        ("2100-01-01T02:00:00+02:00", 4_102_444_800),
    ],
)
def test_expires_at_a_time(file: Path, expires: str, seconds: int) -> None:
    token = call("token", "create", "x", "--auth", str(file), "--expires", expires).stdout.strip()
    assert authenticated(file, token).expires_at == seconds


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--expires", "soon"), "invalid --expires 'soon': allowed are 90m"),
        (("--expires", "2100-01-01T00:00:00"), "it has no time zone"),
        (("--expires", "2020-01-01"), "this time has passed"),
        (("--expires", "999999w"), "too far in the future"),
        (("--may", "everything"), "may contains 'everything'"),
        (("--hide", "uuid"), "'uuid' cannot be hidden"),
        (("--any", "{"), "invalid --any: it is no JSON"),
        (("--any", '{"name": "x"}'), "must be a list"),
        (("--any", '[{"nam": "x"}]'), "unknown field 'nam'"),
        (("--any", "[{}]", "--name", "x"), "--any cannot be combined"),
        (("--name", ""), "empty"),
    ],
)
def test_wrong_options(file: Path, arguments: tuple[str, ...], expected: str) -> None:
    result = call("token", "create", "x", "--auth", str(file), *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert expected in " ".join(result.stderr.split())
    assert not file.exists()


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 101])
def test_wrong_names(file: Path, name: str) -> None:
    result = call("token", "create", name, "--auth", str(file))
    assert result.returncode == 2 and "invalid name" in result.stderr and not file.exists()


def test_errors_change_nothing(file: Path) -> None:
    file.write_text(BY_HAND)
    for arguments, expected in (
        (("create", "grafana"), "there is already a token 'grafana'"),
        (("create", "bob"), "celery-gateway token remove bob"),
        (("remove", "eve"), "there is no token 'eve'; the tokens are: bob, grafana"),
    ):
        result = call("token", *arguments, "--auth", str(file))
        assert (result.returncode, result.stdout) == (1, "") and expected in result.stderr
    assert file.read_text() == BY_HAND
    for text, expected in (("[tokens", "invalid TOML"), ("tokens = 1", "it must have tables")):
        file.write_text(text)
        for command in ("create", "remove"):
            result = call("token", command, "x", "--auth", str(file))
            assert result.returncode == 1 and expected in result.stderr and file.read_text() == text
    missing = str(file) + ".missing"
    for arguments in (("remove", "x"), ("list",)):
        result = call("token", *arguments, "--auth", missing)
        assert result.returncode == 1 and "No such file" in result.stderr
    result = call("token", "create", "x", "--auth", str(file.parent / "no" / "auth.toml"))
    assert (result.returncode, result.stdout) == (1, "") and "cannot write" in result.stderr


def test_remove_keeps_the_comments_of_other_tables(file: Path) -> None:
    file.write_text(BY_HAND)
    assert call("token", "remove", "grafana", "--auth", str(file)).returncode == 0
    without = BY_HAND[: BY_HAND.index("[tokens.grafana]\nhash")] + BY_HAND[BY_HAND.index("# Bob and his") :]
    assert file.read_text() == without
    assert call("token", "remove", "bob", "--auth", str(file)).returncode == 0
    assert file.read_text() == without[: without.index("[ tokens")] + without[without.index("# Back end") :]
    assert set(tomllib.loads(file.read_text())) == {"quota", "issuers"}


def test_remove_keeps_windows_line_ends_and_links(file: Path) -> None:
    real = file.parent / "real.toml"
    real.write_bytes(BY_HAND.replace("\n", "\r\n").encode())
    file.symlink_to(real)
    call("token", "remove", "bob", "--auth", str(file))
    assert file.is_symlink() and b"bob" not in real.read_bytes()
    assert real.read_bytes().count(b"\n") == real.read_bytes().count(b"\r\n") > 10


@pytest.mark.parametrize(
    "text",
    [
        'tokens.a = { hash = "x", scope = {} }\n',
        '[tokens]\na = { hash = "x", scope = {} }\nb = { hash = "y", scope = {} }\n',
        '[tokens]\na.hash = "x"\n',
        'x = """\n[tokens.a]\n"""\n[tokens]\na.hash = "x"\n',
    ],
)
def test_other_forms_are_left_to_the_user(file: Path, text: str) -> None:
    file.write_text(text)
    result = call("token", "remove", "a", "--auth", str(file))
    assert result.returncode == 1 and "Remove it by hand" in " ".join(result.stderr.split())
    assert file.read_text() == text


def test_a_table_that_cannot_be_appended(file: Path) -> None:
    text = f'tokens = {{ a = {{ hash = "{hash_text(new_token())}", scope = {{}} }} }}\n'
    file.write_text(text)
    result = call("token", "create", "b", "--auth", str(file))
    assert (result.returncode, result.stdout) == (1, "") and "Add it by hand" in result.stderr
    assert file.read_text() == text


def test_the_last_token_can_be_removed(file: Path) -> None:
    token = call("token", "create", "x", "--auth", str(file)).stdout.strip()
    call("token", "remove", "x", "--auth", str(file))
    with pytest.raises(InvalidToken):
        authenticated(file, token)


def test_list(file: Path) -> None:
    file.write_text(BY_HAND.replace("# grafana ends here", "expires = 2020-01-01"))
    (file.parent / "shop.secret").unlink()  # only the gateway needs it
    result = call("token", "list", GATEWAY_AUTH=str(file))
    assert result.returncode == 0 and "sha256" not in result.stdout
    grafana, bob = result.stdout.splitlines()
    assert grafana.split(maxsplit=3) == [
        "grafana",
        "2020-01-01T00:00:00Z",
        "(expired)",
        '{"may": ["metrics"]}',
    ]
    assert bob == 'bob      never ends            {"any": [{"name": ["[tokens.grafana]"]}]}'
    file.write_text("")
    result = call("token", "list", "--auth", str(file))
    assert (result.returncode, result.stdout) == (0, "") and "no static tokens" in result.stderr


def test_sign(file: Path) -> None:
    file.write_text(BY_HAND)
    signed = call(
        *("token", "sign", "--secret-file", str(file.parent / "shop.secret"), "--issuer", ISSUER),
        *("--subject", "alice", "--root-id", "a*", "--minutes", "2", "--hide", "args", "--may", "events"),
    )
    assert signed.returncode == 0, signed.stderr
    principal = authenticated(file, signed.stdout.strip())
    assert principal.name == f"{ISSUER}:alice"
    assert principal.scope == Scope.parse(
        {"any": [{"root_id": ["a\\*"]}], "hide": ["args"], "may": ["events"]}
    )
    assert principal.expires_at == pytest.approx(time.time() + 120 + 30, abs=3)


def test_sign_with_a_private_key(file: Path) -> None:
    (file.parent / "shop.pem").write_bytes(private_pem("ES256"))
    options = ("--secret-file", str(file.parent / "shop.pem"), "--issuer", ISSUER, "--algorithm", "ES256")
    signed = call("token", "sign", *options, "--key-id", "k", "--any", "[{}]")
    assert jwt.get_unverified_header(signed.stdout.strip()) == {"alg": "ES256", "kid": "k", "typ": "JWT"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "no filter: give uuid"),
        (("--root-id", "x", "--any", "[{}]"), "any cannot be combined"),
        (("--root-id", "x", "--algorithm", "RS256"), "it must be a private key in PEM"),
        (("--root-id", "x", "--minutes", "0"), "--minutes"),
        (("--any", "nothing"), "it is no JSON"),
    ],
)
def test_sign_errors(file: Path, arguments: tuple[str, ...], expected: str) -> None:
    secret = str(file.parent / "shop.secret")
    result = call("token", "sign", "--secret-file", secret, "--issuer", ISSUER, *arguments)
    assert (result.returncode, result.stdout) == (2, "") and expected in " ".join(result.stderr.split())
    assert SECRET not in result.stderr


@pytest.mark.parametrize("command", [(), ("create",), ("list",), ("remove",), ("sign",)])
def test_help_has_examples(command: tuple[str, ...]) -> None:
    result = call("token", *command, "--help")
    assert result.returncode == 0 and "Examples:" in result.stdout
