"""Static tokens: random texts, of which the access file has only the hashes. Pure.

A token has 256 random bits, so a fast hash is enough: nobody can try that many. For the same reason the hash
may be looked up in a dictionary: the time of a lookup depends on the hash, which an attacker cannot choose.
"""

import hashlib
import re
import secrets
from typing import Final

PREFIX: Final = "cgw_"
"""Lets scanners of repositories and logs recognize a token."""
_HASH: Final = re.compile(r"sha256:([0-9a-f]{64})")
_RANDOM_BYTES: Final = 32


def new_token() -> str:
    """Return a new token: the prefix, and 43 random characters of base64url."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def digest(token: str) -> str:
    """Return the SHA-256 of a whole token, as 64 hexadecimal digits.

    Raises:
        UnicodeEncodeError: it is no text that could have been sent (a ValueError).
    """
    return hashlib.sha256(token.encode()).hexdigest()


def hash_text(token: str) -> str:
    """Return the hash of a token as the access file has it.

    >>> hash_text("cgw_x")[:15]
    'sha256:147a396b'
    """
    return f"sha256:{digest(token)}"


def parse_hash(text: str) -> str:
    """Return the digest in a hash of the access file.

    Raises:
        ValueError: it is malformed. The message does not repeat it: it could be a token.
    """
    if found := _HASH.fullmatch(text):
        return found[1]
    raise ValueError(
        "it must be 'sha256:' and 64 hexadecimal digits in lower case, not the token itself; "
        "'celery-gateway token create' prints a token and writes its hash"
    )
