"""JSON Web Tokens: attacks on the algorithm, the key, the claims and the parser."""

import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.access import jwt_keys, jwt_verifier
from celery_gateway.access.access_file import Issuer
from celery_gateway.access.principal import Principal
from celery_gateway.access.scope import Scope
from celery_gateway.errors import Forbidden, GatewayError, InvalidToken
from celery_gateway.tokens import MAX_TOKEN_BYTES
from tests.support import token_issuer
from tests.support.cpu_time import scaled
from tests.support.thorough import tries
from tests.support.token_issuer import (
    ISSUER,
    PUBLIC_KEY_ALGORITHMS,
    SECRET,
    private_key,
    public_pem,
    segment,
    token,
)

pytestmark = pytest.mark.unit

LEEWAY = 30
OTHER_SECRET = "another secret that is long enough: 0123456789"


def issuer(algorithm: str = "HS256", **changed: Any) -> Issuer:
    key = (
        jwt_keys.secret_key(SECRET.encode())
        if algorithm == "HS256"
        else jwt_keys.public_key(public_pem(algorithm), algorithm)
    )
    values: dict[str, Any] = {
        "name": "shop",
        "issuer": ISSUER,
        "audience": "celery-gateway",
        "algorithm": algorithm,
        "key": key,
        "jwks_url": "",
        "leeway_seconds": LEEWAY,
        "scope": None,
        "quota": (("streams", 7),),
        "fingerprint": "f",
    }
    return Issuer(**(values | changed))


def verify(text: str, *issuers: Issuer, keys: Sequence[jwt.PyJWK] | None = None) -> Principal:
    claimed = jwt_verifier.unverified(text)

    def keys_of(each: Issuer) -> Sequence[jwt.PyJWK]:
        return keys if keys is not None else [each.key] if each.key is not None else []

    return jwt_verifier.verify(text, claimed, issuers or [issuer()], keys_of)[0]


def refused(text: str, *issuers: Issuer, reason: str, keys: Sequence[jwt.PyJWK] | None = None) -> None:
    with pytest.raises(InvalidToken) as error:
        verify(text, *issuers, keys=keys)
    assert reason in str(error.value)
    assert str(error.value).isascii()
    for part in text.split("."):
        assert len(part) < 8 or part not in str(error.value)


def forged(header: dict[str, Any], secret: bytes, **changed: Any) -> str:
    """A token whose signature is HMAC, whatever its header says."""
    signed = f"{segment(header)}.{segment(token_issuer.claims(**changed))}"
    return f"{signed}.{segment(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def test_a_valid_token() -> None:
    expires = int(time.time()) + 100
    scope = {"any": [{"name": ["shop.*"]}], "hide": ["args"], "may": ["events"]}
    principal = verify(token(exp=expires, celery_gateway=scope))
    assert principal == Principal(
        f"{ISSUER}:alice", Scope.parse(scope), expires + LEEWAY, "", (("streams", 7),)
    )
    named = verify(token(sub=None)).name
    assert named.startswith(f"{ISSUER}#")
    assert verify(token(sub=None, jti="another")).name == named
    assert verify(token(sub=None, celery_gateway={"any": [{"name": "other"}]})).name != named


@pytest.mark.parametrize("algorithm", PUBLIC_KEY_ALGORITHMS)
def test_public_keys(algorithm: str) -> None:
    assert verify(token(private_key(algorithm), algorithm), issuer(algorithm)).name == f"{ISSUER}:alice"
    refused(token(private_key(algorithm, 1), algorithm), issuer(algorithm), reason="signature")


def test_a_changed_token_is_refused() -> None:
    header, payload, signature = token().split(".")
    changed = segment(token_issuer.claims(sub="eve"))
    refused(f"{header}.{changed}.{signature}", reason="signature")
    refused(f"{header}.{payload}.{segment(b'x' * 32)}", reason="signature")
    refused(token(OTHER_SECRET), reason="signature")


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "", None, 0, [], {}, ["HS256"], "HS512", "RS256"]
)
def test_the_algorithm_is_that_of_the_issuer(alg: Any) -> None:
    refused(forged({"alg": alg, "typ": "JWT"}, SECRET.encode()), reason="")
    refused(f"{segment({'alg': alg})}.{segment(token_issuer.claims())}.", reason="malformed")


def test_alg_none_is_refused_with_a_signature_of_any_form() -> None:
    for signature in ("AA", segment(b"")):
        with pytest.raises(InvalidToken):
            verify(f"{segment({'alg': 'none'})}.{segment(token_issuer.claims())}.{signature}")
    refused(f"{segment({'typ': 'JWT'})}.{segment(token_issuer.claims())}.AAAA", reason="algorithm")


@pytest.mark.parametrize("algorithm", PUBLIC_KEY_ALGORITHMS)
def test_a_public_key_is_never_a_secret(algorithm: str) -> None:
    """Key confusion: anyone has the public key, and could sign with it as a secret."""
    pem = public_pem(algorithm)
    jwk = json.dumps(token_issuer.jwk(algorithm)).encode()
    for secret in (pem, pem.strip(), jwk, b""):
        refused(forged({"alg": "HS256"}, secret), issuer(algorithm), reason="algorithm")
        refused(forged({"alg": algorithm}, secret), issuer(algorithm), reason="signature")


def test_a_secret_of_one_issuer_does_not_sign_for_another() -> None:
    other = issuer("RS256", issuer="https://other.example")
    refused(token(iss="https://other.example"), other, reason="algorithm")


def test_each_of_several_tables_has_its_own_algorithm() -> None:
    """Two tables of one issuer, while a secret is replaced by a key pair."""
    tables = (issuer(), issuer("ES256"))
    assert verify(token(), *tables).name == verify(token(private_key("ES256"), "ES256"), *tables).name
    refused(forged({"alg": "HS256"}, public_pem("ES256")), *tables, reason="signature")
    refused(token(exp=1), *tables, reason="expired")
    renewed = (issuer(key=jwt_keys.secret_key(OTHER_SECRET.encode())), issuer())
    assert verify(token(), *renewed).name == verify(token(OTHER_SECRET), *renewed).name


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/dev/null",
        "file:///dev/null",
        "0' OR '1'='1",
        "",
        "\u0000",
        "x" * 2_000,
        "https://e.example/k",
    ],
)
def test_kid_selects_a_key_and_nothing_else(kid: str) -> None:
    keys = jwt_keys.jwks_keys({"keys": [token_issuer.jwk("ES256", 0), token_issuer.jwk("ES256", 1)]}, "ES256")
    table = issuer("ES256", key=None)
    refused(token(private_key("ES256"), "ES256", {"kid": kid}), table, keys=keys, reason="kid is unknown")
    refused(forged({"alg": "HS256", "kid": kid}, b""), reason="signature")
    assert verify(token(private_key("ES256", 1), "ES256", {"kid": "1"}), table, keys=keys)
    refused(token(private_key("ES256", 1), "ES256", {"kid": "0"}), table, keys=keys, reason="signature")
    assert verify(token(private_key("ES256", 1), "ES256"), table, keys=keys)


@pytest.mark.parametrize("kid", [0, None, [], {}, True])
def test_kid_is_text(kid: Any) -> None:
    text = forged({"alg": "HS256", "kid": kid}, SECRET.encode())
    with pytest.raises(InvalidToken):
        verify(text)


def test_keys_inside_of_a_token_are_ignored() -> None:
    """A forger signs with its own key, and sends it along."""
    own = private_key("RS256", 1)
    public = token_issuer.jwk("RS256", 1)
    for headers in (
        {"jwk": public},
        {"jku": "https://eve.example/jwks.json"},
        {"x5u": "https://eve.example/cert.pem"},
        {"x5c": ["MIIB"]},
        {"jwk": public, "kid": "1"},
    ):
        refused(token(own, "RS256", headers), issuer("RS256"), reason="signature")
        assert verify(token(private_key("RS256"), "RS256", headers), issuer("RS256"))


@pytest.mark.parametrize("crit", [["exp"], ["b64"], [], "exp", None, [1]])
def test_critical_extensions_are_refused(crit: Any) -> None:
    refused(forged({"alg": "HS256", "crit": crit, "exp": 1}, SECRET.encode()), reason="")
    refused(forged({"alg": "HS256", "crit": crit, "b64": True}, SECRET.encode()), reason="")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"exp": None}, "no claim exp"),
        ({"aud": None}, "no claim aud"),
        ({"iss": None}, "no issuer"),
        ({"aud": "another"}, "aud"),
        ({"aud": ["another", "third"]}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": {"celery-gateway": 1}}, "aud"),
        ({"aud": "celery-gateway-2"}, "aud"),
        ({"exp": 1}, "expired"),
        ({"exp": "never"}, "malformed"),
        ({"exp": str(2**40)}, "exp"),
        ({"exp": True}, "expired"),
        ({"exp": 1e300}, "exp"),
        ({"exp": 10**400}, ""),
        ({"exp": float("nan")}, "malformed"),
        ({"exp": float("inf")}, "malformed"),
        ({"exp": [2**40]}, "malformed"),
        ({"nbf": 2**40}, "not valid yet"),
        ({"iat": 2**40}, "not valid yet"),
        ({"nbf": "0"}, "nbf"),
        ({"iat": {}}, "malformed"),
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "malformed"),
        ({"sub": "x" * 256}, "sub"),
        ({"sub": "a\nb"}, "sub"),
        ({"sub": "\udc80"}, "sub"),
        ({"celery_gateway": []}, "scope"),
        ({"celery_gateway": {"any": [{"password": ["x"]}]}}, "scope"),
        ({"celery_gateway": {"may": ["everything"]}}, "scope"),
        ({"celery_gateway": {"any": [{"name": ["\udc2a"]}]}}, "scope"),
        ({"celery_gateway": {"any": [{"name": ["x" * 2_000]}]}}, "scope"),
        ({"celery_gateway": "\u00e4"}, "scope"),
    ],
)
def test_claims(changed: dict[str, Any], reason: str) -> None:
    body = {key: value for key, value in token_issuer.claims(**changed).items()}
    signed = f"{segment({'alg': 'HS256'})}.{segment(body)}"
    refused(
        f"{signed}.{segment(hmac.digest(SECRET.encode(), signed.encode(), hashlib.sha256))}", reason=reason
    )


@pytest.mark.parametrize("iss", [7, None, [ISSUER], {"a": 1}, True])
def test_the_issuer_is_text(iss: Any) -> None:
    refused(forged({"alg": "HS256"}, SECRET.encode(), iss=iss), reason="no issuer")


def test_the_issuer_and_the_audience_are_those_of_the_table() -> None:
    refused(token(iss="https://eve.example"), reason="malformed")  # the caller selects tables by iss
    assert verify(token(aud=["x", "celery-gateway"]))
    refused(token(aud="celery-gateway"), issuer(audience="events"), reason="audience")


@pytest.mark.parametrize(
    ("changed", "is_valid"),
    [
        ({"exp": -LEEWAY + 5}, True),
        ({"exp": -LEEWAY - 1}, False),
        ({"nbf": LEEWAY - 5}, True),
        ({"nbf": LEEWAY + 5}, False),
        ({"iat": LEEWAY - 5}, True),
        ({"iat": LEEWAY + 5}, False),
    ],
)
def test_clocks_may_differ_by_the_leeway(changed: dict[str, int], is_valid: bool) -> None:
    now = int(time.time())
    text = token(**{claim: now + seconds for claim, seconds in changed.items()})
    if is_valid:
        principal = verify(text)
        assert principal.expires_at is not None and principal.expires_at > now
    else:
        refused(text, reason="expired" if "exp" in changed else "not valid yet")
    if changed != {"iat": LEEWAY - 5} and changed != {"nbf": LEEWAY - 5}:
        return
    refused(text, issuer(leeway_seconds=0), reason="not valid yet")


def test_without_a_scope() -> None:
    with pytest.raises(Forbidden, match="celery_gateway"):
        verify(token(celery_gateway=None))
    scope = Scope.parse({"may": ["metrics"]})
    assert verify(token(celery_gateway=None), issuer(scope=scope)).scope == scope
    assert verify(token(celery_gateway={"may": ["state"]}), issuer(scope=scope)).scope.may == {"state"}


def test_long_tokens_are_refused_before_they_are_parsed() -> None:
    refused(token(x="y" * MAX_TOKEN_BYTES), reason="too long")
    refused("é" * (MAX_TOKEN_BYTES + 1), reason="too long")
    huge = "." * 50_000_000
    start = time.process_time()
    with pytest.raises(InvalidToken, match="too long"):
        jwt_verifier.unverified(huge)
    assert time.process_time() - start < scaled(0.01)


@pytest.mark.parametrize("depth", [500, 4_000])
def test_nested_json_is_bounded(depth: int) -> None:
    nested = "[" * depth + "]" * depth if depth < 1_000 else "[" * depth
    for text in (f"{segment(nested)}.e30.AA", f"{segment({'alg': 'HS256'})}.{segment(nested)}.AA"):
        refused(text, reason="malformed")
    odd = f'{{"iss":"{ISSUER}","x":{nested}}}'
    signed = f"{segment({'alg': 'HS256'})}.{segment(odd)}"
    mac = segment(hmac.digest(SECRET.encode(), signed.encode(), hashlib.sha256))
    refused(f"{signed}.{mac}", reason="")


def test_only_one_number_of_keys_is_tried() -> None:
    members = [token_issuer.jwk("ES256", number) for number in range(jwt_verifier.MAX_KEYS_TRIED + 1)]
    keys = jwt_keys.jwks_keys({"keys": members}, "ES256")
    last = private_key("ES256", jwt_verifier.MAX_KEYS_TRIED)
    table = issuer("ES256", key=None)
    refused(token(last, "ES256"), table, keys=keys, reason="signature")
    assert verify(token(last, "ES256", {"kid": str(jwt_verifier.MAX_KEYS_TRIED)}), table, keys=keys)


def test_keys_of_a_jwks() -> None:
    usable = token_issuer.jwk("RS256", 0)
    weak = dict(usable, n=segment(b"\xc3" + b"\x01" * 127), kid="weak")
    others = [
        {"kty": "oct", "k": segment(SECRET), "kid": "s"},
        {"kty": "oct", "k": segment(SECRET), "alg": "RS256"},
        token_issuer.jwk("ES256"),
        dict(usable, use="enc"),
        dict(usable, alg="RS512"),
        dict(usable, key_ops=["encrypt"]),
        dict(usable, key_ops=7),
        dict(usable, kid=7),
        dict(usable, n="!!"),
        dict(usable, n=7),
        {"kty": "RSA"},
        weak,
        "text",
        None,
    ]
    (key,) = jwt_keys.jwks_keys({"keys": [*others, usable]}, "RS256")
    assert (key.key_id, key.algorithm_name) == ("0", "RS256")
    for document in ({"keys": others}, {"keys": []}, {"keys": {}}, {}, [], None, "x"):
        with pytest.raises(ValueError):
            jwt_keys.jwks_keys(document, "RS256")
    with pytest.raises(ValueError):
        jwt_keys.jwks_keys({"keys": others}, "HS256")
    private = json.loads(jwt.get_algorithm_by_name("EdDSA").to_jwk(private_key("EdDSA")))
    (key,) = jwt_keys.jwks_keys({"keys": [private]}, "EdDSA")
    assert "d" not in vars(key)["_jwk_data"]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
_odd_claims = st.fixed_dictionaries(
    {},
    optional={
        name: _json for name in ("iss", "aud", "exp", "nbf", "iat", "sub", "jti", "celery_gateway", "kid")
    },
)
_odd_headers = st.fixed_dictionaries(
    {}, optional={name: _json for name in ("alg", "kid", "typ", "crit", "b64", "jwk", "zip", "cty")}
)


@pytest.mark.slow
@settings(max_examples=tries(300), deadline=None)
@given(
    st.text()
    | st.from_regex(r"[A-Za-z0-9_-]{0,40}(\.[A-Za-z0-9_-]{0,40}){0,4}", fullmatch=True)
    | st.binary().map(lambda data: ".".join(segment(data) for _ in range(3)))
)
def test_garbage_is_an_invalid_token(text: str) -> None:
    with pytest.raises(InvalidToken):
        verify(text)


@pytest.mark.slow
@settings(max_examples=tries(300), deadline=None)
@given(_odd_headers, _odd_claims)
def test_signed_garbage_is_an_error_of_the_gateway(headers: dict[str, Any], changed: dict[str, Any]) -> None:
    """Its signature is valid, and it has odd values: only errors of the gateway are raised."""
    body = token_issuer.claims() | changed
    signed = f"{segment({'alg': 'HS256'} | headers)}.{segment(body)}"
    text = f"{signed}.{segment(hmac.digest(SECRET.encode(), signed.encode(), hashlib.sha256))}"
    try:
        principal = verify(text)
    except GatewayError as error:
        assert isinstance(error, InvalidToken) and str(error).isascii()
    else:
        assert principal.expires_at is not None and isinstance(principal.scope, Scope)
        hash(principal)
