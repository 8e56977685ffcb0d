"""Keys of JSON Web Tokens: from secrets, PEM and JWKS to keys that are bound to one algorithm. Pure."""

import base64
from typing import Any, Final

import jwt
from jwt.algorithms import has_crypto

from celery_gateway.tokens import hmac_secret

MAX_KEYS: Final = 100
"""Maximum number of keys that are read from a JWKS document."""
_KEY_TYPES: Final = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
"""The types (``kty``) of public keys by algorithm. None for HS256: a secret in a JWKS is no secret."""
_PUBLIC_MEMBERS: Final = ("kty", "kid", "crv", "x", "y", "n", "e")
_NO_CRYPTOGRAPHY: Final = "{} requires the package cryptography: pip install 'celery-gateway[jwt]'"


def secret_key(secret: bytes) -> jwt.PyJWK:
    """Return the key of a secret, for HS256 only.

    Raises:
        ValueError: it is too short, or it is a public or private key.
    """
    checked = hmac_secret(secret)
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(checked)
    except jwt.InvalidKeyError:
        raise ValueError("it has a public or private key, which is no secret for HS256") from None
    return jwt.PyJWK({"kty": "oct", "k": base64.urlsafe_b64encode(checked).rstrip(b"=").decode()}, "HS256")


def public_key(pem: bytes, algorithm: str) -> jwt.PyJWK:
    """Return the key of a public key in PEM, for one algorithm only.

    Raises:
        ValueError: it is no public key for this algorithm, or cryptography is not installed.
    """
    require_cryptography(algorithm)
    if b"PRIVATE KEY" in pem:
        raise ValueError("it has a private key: write only the public key (openssl pkey -pubout)")
    implementation = jwt.get_algorithm_by_name(algorithm)
    try:
        member = implementation.to_jwk(implementation.prepare_key(pem), as_dict=True)
        return _checked(member, algorithm)
    except (jwt.PyJWTError, TypeError, ValueError):
        kind = {"RS256": "RSA (at least 2048 bits)", "ES256": "EC (P-256)", "EdDSA": "Ed25519"}[algorithm]
        raise ValueError(f"it is no public key in PEM for {algorithm}, which needs one of {kind}") from None


def jwks_keys(document: object, algorithm: str) -> tuple[jwt.PyJWK, ...]:
    """Return the keys of a JWKS document (RFC 7517) that verify signatures of one algorithm.

    Other keys are ignored: of other types or algorithms, for encryption, malformed or too short ones, and
    symmetric ones always.

    Raises:
        ValueError: it is no JWKS document, or has no key for this algorithm.
    """
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise ValueError('it is no JSON Web Key Set: {"keys": […]}')
    keys = [key for member in members[:MAX_KEYS] if (key := _jwks_key(member, algorithm)) is not None]
    if not keys:
        raise ValueError(f"none of its {len(members)} keys is for {algorithm}")
    return tuple(keys)


def require_cryptography(algorithm: str) -> None:
    """Raise a ValueError if an algorithm needs the package cryptography, which is not installed."""
    if algorithm in _KEY_TYPES and not has_crypto:
        raise ValueError(_NO_CRYPTOGRAPHY.format(algorithm))


def _jwks_key(member: object, algorithm: str) -> jwt.PyJWK | None:
    if not isinstance(member, dict) or member.get("kty") != _KEY_TYPES.get(algorithm, ""):
        return None
    operations = member.get("key_ops", ["verify"])
    if (
        member.get("use", "sig") != "sig"
        or member.get("alg", algorithm) not in (algorithm, "Ed25519" if algorithm == "EdDSA" else algorithm)
        or not isinstance(operations, list)
        or "verify" not in operations
        or not isinstance(member.get("kid", ""), str)
    ):
        return None
    try:
        return _checked(member, algorithm)
    except (jwt.PyJWTError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _checked(member: dict[str, Any], algorithm: str) -> jwt.PyJWK:
    """Return a key that is bound to an algorithm, without private parts.

    Raises:
        PyJWTError, TypeError, ValueError: it is malformed, too short, or for another algorithm.
    """
    key = jwt.PyJWK({name: member[name] for name in _PUBLIC_MEMBERS if name in member}, algorithm)
    if algorithm == "ES256" and member.get("crv") != "P-256":
        raise ValueError("another curve")
    if problem := key.Algorithm.check_key_length(key.key):
        raise ValueError(problem)
    return key
