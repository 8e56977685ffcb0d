"""`celery_gateway.tokens.sign`: tokens that the gateway accepts, with exactly the given scope."""

import subprocess
import sys
import time
from typing import Any

import jwt
import pytest

from celery_gateway import tokens
from celery_gateway.access import jwt_keys, jwt_verifier
from celery_gateway.access.access_file import Issuer
from celery_gateway.access.principal import Principal
from celery_gateway.access.scope import DEFAULT_MAY, Scope
from celery_gateway.events.event import FILTER_FIELDS
from celery_gateway.events.fields import NEVER_HIDDEN
from celery_gateway.events.pattern import escape
from celery_gateway.tokens import ALGORITHMS, DEFAULT_AUDIENCE, MAX_TOKEN_BYTES, hmac_secret, sign
from tests.support.token_issuer import ISSUER, PUBLIC_KEY_ALGORITHMS, SECRET, private_pem, public_pem


def principal(token: str, algorithm: str = "HS256", secret: bytes = SECRET.encode()) -> Principal:
    """Verify a token as the gateway does."""
    key = (
        jwt_keys.secret_key(secret)
        if algorithm == "HS256"
        else jwt_keys.public_key(public_pem(algorithm), algorithm)
    )
    issuer = Issuer("shop", ISSUER, DEFAULT_AUDIENCE, algorithm, key, "", 0, None, (), "")
    return jwt_verifier.verify(token, jwt_verifier.unverified(token), [issuer], lambda _: [key])[0]


@pytest.mark.unit
def test_the_gateway_accepts_what_is_signed() -> None:
    now = time.time()
    made = principal(sign(SECRET, issuer=ISSUER, subject="alice", uuid="7f3c"))
    assert made.name == f"{ISSUER}:alice"
    assert made.scope == Scope.parse({"any": [{"uuid": ["7f3c"]}]})
    assert made.scope.may == DEFAULT_MAY
    assert made.expires_at is not None and now + 900 <= made.expires_at <= now + 903


@pytest.mark.unit
@pytest.mark.parametrize("algorithm", PUBLIC_KEY_ALGORITHMS)
def test_private_keys(algorithm: str) -> None:
    pem = private_pem(algorithm)
    for key in (pem, pem.decode()):
        token = sign(key, issuer=ISSUER, root_id="r", algorithm=algorithm, key_id="k1")
        assert principal(token, algorithm).name.startswith(f"{ISSUER}#")
        assert jwt.get_unverified_header(token) == {"alg": algorithm, "kid": "k1", "typ": "JWT"}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("arguments", "filters"),
    [
        ({"uuid": "a"}, [{"uuid": ["a"]}]),
        ({"uuid": ["a", "b"], "queue": ("q",)}, [{"uuid": ["a", "b"], "queue": ["q"]}]),
        ({"name": "shop.*", "root_id": None}, [{"name": ["shop.*"]}]),
        ({"any": [{"name": "a"}, {"queue": ["b"]}]}, [{"name": ["a"]}, {"queue": ["b"]}]),
        ({"any": [{}]}, [{}]),
        ({"any": ({"name": ["*"]},)}, [{"name": ["*"]}]),
    ],
)
def test_filters(arguments: dict[str, Any], filters: list[dict[str, list[str]]]) -> None:
    assert principal(sign(SECRET, issuer=ISSUER, **arguments)).scope == Scope.parse({"any": filters})


@pytest.mark.unit
@pytest.mark.parametrize("field", ["uuid", "root_id"])
@pytest.mark.parametrize("text", ["*", "?", "!x", "a,b", "a\\*", "[x]"])
def test_ids_are_no_patterns(field: str, text: str) -> None:
    """An ID often comes from a request of the user, who must not see all tasks with `*`."""
    for value in (text, [text]):
        made = principal(sign(SECRET, issuer=ISSUER, **{field: value}))  # type: ignore[arg-type]
        assert made.scope == Scope.parse({"any": [{field: [escape(text)]}]})
        assert made.scope.is_restricted


@pytest.mark.unit
def test_hide_and_may() -> None:
    scope = principal(sign(SECRET, issuer=ISSUER, any=[{}], hide=["args"], may=["state", "workers"])).scope
    assert (scope.hide, scope.may) == ({"args"}, {"state", "workers"})


@pytest.mark.unit
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "no filter: give uuid, root_id, name, queue or any"),
        ({"uuid": None}, "no filter"),
        ({"uuid": ""}, "uuid"),
        ({"uuid": []}, "no task would be visible"),
        ({"uuid": [None]}, "invalid uuid: None"),
        ({"uuid": 7}, "invalid uuid=7"),
        ({"uuid": b"x"}, "uuid"),
        ({"any": []}, "invalid any"),
        ({"any": {"name": ["x"]}}, "invalid any"),
        ({"any": "x"}, "invalid any"),
        ({"any": [None]}, "is not a filter"),
        ({"any": [{"name": None}]}, "invalid name=None"),
        ({"any": [{"name": []}]}, "no task would be visible"),
        ({"any": [{}], "name": "x"}, "any cannot be combined with name"),
        ({"uuid": "x", "may": "events"}, "invalid may='events': it must be a list"),
        ({"uuid": "x", "hide": "args"}, "invalid hide='args'"),
        ({"uuid": "x", "hide": [""]}, "invalid hide"),
        ({"uuid": "x", "minutes": 0}, "invalid minutes=0"),
        ({"uuid": "x", "minutes": -1}, "invalid minutes=-1"),
        ({"uuid": "x", "minutes": float("inf")}, "invalid minutes=inf"),
        ({"uuid": "x", "minutes": float("nan")}, "invalid minutes=nan"),
        ({"uuid": "x", "minutes": "5"}, "invalid minutes='5'"),
        ({"uuid": "x", "subject": ""}, "invalid subject"),
        ({"uuid": "x", "subject": 7}, "invalid subject: 7"),
        ({"uuid": "x", "issuer": ""}, "invalid issuer"),
        ({"uuid": "x", "audience": None}, "invalid audience"),
        ({"uuid": "x", "algorithm": "none"}, "allowed are HS256, RS256, ES256, EdDSA"),
        ({"uuid": "x", "key": "short secret"}, "has 12 bytes, and at least 32 are required"),
        ({"uuid": "x", "key": " " * 40}, "has 0 bytes"),
        ({"uuid": "x", "key": None}, "of the type NoneType"),
        ({"uuid": "x", "key": public_pem("RS256")}, "it must be a secret, not a public or private key"),
        ({"uuid": "x", "key": SECRET, "algorithm": "RS256"}, "it must be a private key in PEM"),
        ({"uuid": "x", "key": public_pem("RS256"), "algorithm": "RS256"}, "it must be a private key in PEM"),
        ({"uuid": "x", "key": private_pem("EdDSA"), "algorithm": "RS256"}, "it must be a private key in PEM"),
        ({"uuid": "x", "key": private_pem("RS256"), "algorithm": "ES256"}, "it must be a private key in PEM"),
        ({"uuid": "x", "key": private_pem("RS256"), "algorithm": "EdDSA"}, "it must be a private key in PEM"),
        ({"uuid": [str(number) * 30 for number in range(400)]}, f"at most {MAX_TOKEN_BYTES} are allowed"),
    ],
)
def test_errors_are_clear_and_have_no_secret(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError) as error:
        sign(**({"key": SECRET, "issuer": ISSUER} | arguments))
    assert expected in str(error.value)
    for secret in (SECRET, "short secret", "BEGIN"):
        assert secret not in str(error.value)


@pytest.mark.unit
@pytest.mark.parametrize("key", [SECRET, SECRET + "\n", f" {SECRET}\r\n", SECRET.encode() + b"\n"])
def test_line_breaks_around_a_secret_do_not_count(key: str | bytes) -> None:
    """A back end reads the file with `read_text()`, and the gateway the same file."""
    assert principal(sign(key, issuer=ISSUER, uuid="x"), secret=f"{SECRET}\n".encode())


@pytest.mark.unit
def test_binary_secrets_are_taken_as_they_are() -> None:
    binary = b"\n" + bytes(range(200, 250)) + b"\n"
    assert hmac_secret(binary) == binary
    assert principal(sign(binary, issuer=ISSUER, uuid="x"), secret=binary)


@pytest.mark.unit
def test_each_algorithm_of_the_gateway_can_be_signed() -> None:
    assert set(ALGORITHMS) == {"HS256", *PUBLIC_KEY_ALGORITHMS}


def test_the_server_is_not_imported() -> None:
    """A back end imports this module: the server and celery stay out, and cryptography is optional."""
    code = f"""
import sys
sys.modules["cryptography"] = None  # as if it were not installed
from celery_gateway.tokens import sign
token = sign({SECRET!r}, issuer="i", uuid="u")
names = sorted(name for name in sys.modules if name.split(".")[0] == "celery_gateway")
assert names == ["celery_gateway", "celery_gateway.tokens"], names
for name in ("celery", "kombu", "msgspec", "httpx", "starlette", "uvicorn", "click", "asyncio"):
    assert name not in sys.modules, name
try:
    sign("x", issuer="i", uuid="u", algorithm="RS256")
except ImportError as error:
    assert "pip install 'celery-gateway[jwt]'" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_what_a_scope_may_have_is_the_same_for_both_sides() -> None:
    assert set(FILTER_FIELDS) == tokens.FILTER_FIELDS
    assert tokens.NEVER_HIDDEN == NEVER_HIDDEN


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"name": "a", "may": ["foo"]}, "invalid may: 'foo'; allowed are dashboard, events"),
        ({"name": "a", "hide": ["name"]}, "invalid hide: 'name'; allowed are fields other than"),
        ({"any": [{"nam": ["x"]}]}, "invalid any: 'nam'; allowed are cluster, hostname"),
        ({"any": [{"name": ["x"]}] * 21}, "it has 21 filters; at most 20 are allowed"),
        ({"name": "a", "subject": "x" * 256}, "at most 255 characters"),
        ({"uuid": ""}, "a string that is not empty, or a list"),
    ],
)
def test_a_scope_that_the_gateway_refuses_is_not_signed(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError) as error:
        tokens.sign("x" * 32, issuer="https://shop.example", **arguments)
    assert problem in str(error.value)
