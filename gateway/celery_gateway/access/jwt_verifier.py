"""Verify JSON Web Tokens (RFC 7519; rules of RFC 8725): from a token to the claims of a known issuer.

Rules:

- A token chooses nothing but a key. Its claim ``iss``, not verified yet, selects tables of the access file;
  its header ``kid`` selects among the keys of these. Keys and addresses inside of it (``jwk``, ``jku``,
  ``x5c``, ``x5u``) are ignored.
- Each key is bound to the algorithm of its table. ``alg`` must be the same: a public key is never a secret.
- ``exp``, ``aud`` and ``iss`` are required; ``nbf`` and ``iat`` are checked if they are there.
- Tokens with ``crit`` are refused: no extension is supported.
- Whatever is wrong with a token is an ``InvalidToken``. Its text has no part of the token, and only ASCII.

From a token to a principal takes 95 µs with HS256, 125 µs with RS256 (2048 bits), 155 µs with ES256, and
190 µs with EdDSA, on one core (PyJWT 2.15, cryptography 50). This is short enough for the event loop, and is
done once for each token: see ``authenticator``.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import jwt

from celery_gateway.access.access_file import Issuer
from celery_gateway.access.principal import Principal
from celery_gateway.access.scope import Scope
from celery_gateway.errors import Forbidden, InvalidToken
from celery_gateway.tokens import MAX_SUBJECT_CHARS, MAX_TOKEN_BYTES, SCOPE_CLAIM

MAX_KEYS_TRIED: Final = 8
"""Maximum number of verifications for a token. With ``kid``, one is usual."""
MAX_REASON_CHARS: Final = 200
MAX_TIME: Final = 1 << 53
"""Larger times are not exact in JSON numbers."""
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_DECODING_ERRORS: Final = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
"""What PyJWT and json raise for malformed tokens: some odd values are not foreseen by PyJWT."""
_REASONS: Final[Sequence[tuple[type[jwt.PyJWTError], str]]] = (
    (jwt.ExpiredSignatureError, "the token has expired (exp)"),
    (jwt.ImmatureSignatureError, "the token is not valid yet (nbf or iat is in the future)"),
    (jwt.InvalidAlgorithmError, "the algorithm of the token is not the one of its issuer"),
    (jwt.InvalidSignatureError, "the signature of the token is not valid"),
    (jwt.InvalidAudienceError, "the token is not for this gateway: its claim aud has another audience"),
)
_SIGNATURE_ERRORS: Final = (jwt.InvalidSignatureError, jwt.InvalidKeyError)
KeysOf = Callable[[Issuer], Sequence[jwt.PyJWK]]


class Unverified(NamedTuple):
    """What a token says about itself, before anything is verified."""

    issuer: str
    key_id: str | None


def looks_like_jwt(token: str) -> bool:
    """Return whether a text has the three parts of a signed token in compact form."""
    return _COMPACT.fullmatch(token) is not None


def unverified(token: str) -> Unverified:
    """Return which issuer and which key a token says that it has.

    Raises:
        InvalidToken: it is too long or malformed, or has extensions that must be understood.
    """
    if len(token) > MAX_TOKEN_BYTES:  # the form below has only ASCII
        raise InvalidToken(f"the token is too long: at most {MAX_TOKEN_BYTES} bytes are allowed")
    if not looks_like_jwt(token):
        raise InvalidToken("the token is malformed: it is no signed JSON Web Token")
    try:
        decoded = jwt.decode_complete(token, options={"verify_signature": False})
    except _DECODING_ERRORS:
        raise InvalidToken("the token is malformed: it is no signed JSON Web Token") from None
    header, issuer = decoded["header"], decoded["payload"].get("iss")
    if "crit" in header:
        raise InvalidToken("the header crit of the token is not supported")
    if not isinstance(issuer, str):
        raise InvalidToken("the token has no issuer (iss)")
    key_id = header.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        raise InvalidToken("the header kid of the token is no text")
    return Unverified(issuer, key_id)


def candidates(keys: Iterable[jwt.PyJWK], key_id: str | None) -> list[jwt.PyJWK]:
    """Return the keys that may have signed a token: those with its ``kid``, and those without any."""
    return [key for key in keys if key_id is None or key.key_id is None or key.key_id == key_id]


def verify(
    token: str, claimed: Unverified, issuers: Iterable[Issuer], keys: KeysOf
) -> tuple[Principal, Issuer]:
    """Return the principal of a token, without its credential, and the table that it is by.

    Args:
        token: a token that ``unverified`` has read.
        claimed: the result of that.
        issuers: the tables of the access file with this ``iss``: several, while keys are replaced.
        keys: returns the keys of a table.

    Raises:
        InvalidToken: no key of them has signed it, or a claim is not valid.
        Forbidden: it has no scope.
    """
    problems: list[jwt.PyJWTError] = []
    left = MAX_KEYS_TRIED
    for issuer in issuers:
        for key in candidates(keys(issuer), claimed.key_id)[:left]:
            left -= 1
            try:
                claims = _verified_claims(token, issuer, key)
            except jwt.PyJWTError as error:
                problems.append(error)
            except _DECODING_ERRORS:
                raise InvalidToken("the token is malformed: a header or claim has a wrong type") from None
            else:
                return _principal(claims, issuer), issuer
    raise InvalidToken(_reason(max(problems, key=_rank, default=None)))


def _verified_claims(token: str, issuer: Issuer, key: jwt.PyJWK) -> dict[str, Any]:
    """Return the claims. Raises PyJWTError, or another of ``_DECODING_ERRORS``."""
    return jwt.decode(
        token,
        key,
        algorithms=[issuer.algorithm],
        audience=issuer.audience,
        issuer=issuer.issuer,
        leeway=issuer.leeway_seconds,
        options={"require": ["exp", "iss", "aud"]},
    )


def _rank(problem: jwt.PyJWTError) -> int:
    """Order problems: a key that has signed the token, and then found a bad claim, has the best reason."""
    return (
        0 if isinstance(problem, jwt.InvalidAlgorithmError) else 1 + (type(problem) not in _SIGNATURE_ERRORS)
    )


def _reason(problem: jwt.PyJWTError | None) -> str:
    if problem is None:
        return "no key of the issuer has signed the token (kid is unknown)"
    if isinstance(problem, jwt.MissingRequiredClaimError):
        return f"the token has no claim {problem.claim}"
    for kind, reason in _REASONS:
        if isinstance(problem, kind):
            return reason
    return "the token is malformed, or a claim has a value of a wrong type"


def _principal(claims: dict[str, Any], issuer: Issuer) -> Principal:
    for claim in ("exp", "nbf", "iat"):
        value = claims.get(claim, 0)
        if type(value) not in (int, float) or not abs(value) < MAX_TIME:  # PyJWT accepts "1" and true
            raise InvalidToken(f"the claim {claim} of the token is no time in seconds")
    subject = claims.get("sub")
    if subject is not None and not (
        isinstance(subject, str) and 0 < len(subject) <= MAX_SUBJECT_CHARS and subject.isprintable()
    ):
        raise InvalidToken(
            f"the claim sub of the token must have 1 to {MAX_SUBJECT_CHARS} characters that can be printed"
        )
    return Principal(
        name=_name(issuer.issuer, subject, claims),
        scope=_scope(claims, issuer),
        expires_at=int(claims["exp"]) + issuer.leeway_seconds,  # as PyJWT compares it
        quota=issuer.quota,
    )


def _name(issuer: str, subject: str | None, claims: dict[str, Any]) -> str:
    """Return the name of a principal, for its quotas.

    A token without ``sub`` is named after its scope: all tokens for the same tasks share their quotas, not
    all users of the issuer.
    """
    if subject is not None:
        return f"{issuer}:{subject}"
    scope = json.dumps(claims.get(SCOPE_CLAIM), sort_keys=True).encode()
    return f"{issuer}#{hashlib.blake2b(scope, digest_size=6).hexdigest()}"


def _scope(claims: dict[str, Any], issuer: Issuer) -> Scope:
    if SCOPE_CLAIM not in claims:
        if issuer.scope is None:
            raise Forbidden(
                f"the token has no claim {SCOPE_CLAIM} with a scope, and its issuer has no default"
            )
        return issuer.scope
    try:
        # Lone surrogates are wildcards inside of patterns, and JSON can have them as escapes.
        json.dumps(claims[SCOPE_CLAIM], ensure_ascii=False).encode()
        return Scope.parse(claims[SCOPE_CLAIM])
    except (ValueError, TypeError, RecursionError) as error:
        reason = str(error).removeprefix("invalid scope: ")[:MAX_REASON_CHARS]
        # It may quote the claim, which can have any characters.
        reason = reason.encode("ascii", "replace").decode()
        raise InvalidToken(f"the claim {SCOPE_CLAIM} of the token is no valid scope: {reason}") from None
