"""Names of secrets, such as ``db_password``: which names count, and where texts may have them. Pure."""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

SEPARATOR: Final = r"[_.-]?"
"""Between the words of a name: ``api_key``, ``api-key``, ``api.key``, ``apikey``."""
_ANYWHERE: Final = (
    *("password", "passwords", "passwd", "passphrase", "passphrases", "passcode", "pwd"),
    *("password_hash", "password_digest"),
    *("secret", "secrets", "authorization", "credential", "credentials", "cookie", "cookies"),
    # Not tokens: max_tokens and total_tokens are numbers.
    *("token", "access_tokens", "api_tokens", "auth_tokens", "refresh_tokens"),
    *("api_key", "api_keys", "access_key", "access_keys", "account_key", "auth_key", "encryption_key"),
    *("master_key", "private_key", "private_keys", "secret_key", "secret_keys", "shared_key", "signing_key"),
    *("ssh_key", "session_id", "session_key", "amz_signature", "goog_signature"),
)
"""Names that count also at the end of a longer word, such as ``dbpassword``."""
_AS_WORDS: Final = ("auth", "cred", "creds", "jwt", "oauth", "otp", "sig")
"""Names that count only as a whole word: ``basic_auth`` and ``basicAuth``, but not ``xauth``."""
_AS_LAST_WORD: Final = "pass"
"""Counts only after another word: ``db_pass``."""
_DIGITS: Final = r"\d{0,3}"
"""``password1`` and ``password2`` are the fields of a form in Django."""
_MAX_NAME_CHARS: Final = 100
"""What is compared of a longer name is its end."""
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class SecretNames:
    """The names whose values are secrets.

    Args:
        names: further names; they count as whole words.

    Attributes:
        pattern: a regular expression of the names in lower case, with digits behind; the group ``word`` has
            the name. Its alternatives begin with letters, so that a search is fast.
        has: whether a name is one of a secret: ``has("X-Api-Key")``.
        may_be_in: whether a text may have such a name, credentials of HTTP, or a URL with a password. It may
            return True for other texts, too; it takes less than a microsecond for short texts.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        builtin = self._with(())
        # One that counts already is left out: it would hide the shorter name at its end.
        further = tuple(name for name in names if not _find(builtin, name))
        self.pattern = self._with(further)
        self._end = re.compile(self.pattern + r"\Z")
        self.has: Callable[[str], bool] = lru_cache(maxsize=4_096)(self._has)
        self.may_be_in: Callable[[str], bool] = _may_be_in
        if further:
            words = re.compile("|".join(map(_words, further)))
            self.may_be_in = lambda text: _may_be_in(text) or words.search(lowered(text)) is not None

    def _with(self, further: Iterable[str]) -> str:
        words = sorted({*_ANYWHERE, *_AS_WORDS, _AS_LAST_WORD, *further}, key=len, reverse=True)
        self._anywhere = re.compile("|".join(map(_words, _ANYWHERE)))
        return rf"(?P<word>{'|'.join(map(_words, words))}){_DIGITS}"

    def _has(self, name: str) -> bool:
        name = name.strip()[-_MAX_NAME_CHARS:]
        return any(self.counts(name, found) for found in _ends(self._end, lowered(name)))

    def counts(self, text: str, found: re.Match[str]) -> bool:
        """Return whether a name that was found in the lowered text is a name or a word of its own there."""
        word, start = found["word"], found.start("word")
        if self._anywhere.fullmatch(word):
            return True
        before = text[start - 1] if start else ""
        is_word = not before.isalnum() or (text[start].isupper() and not before.isupper())
        if word == _AS_LAST_WORD:
            return is_word and before != "" and (before.isalnum() or before in "_-.")
        return is_word


def lowered(text: str) -> str:
    """Return a text in lower case, of the same length.

    >>> lowered("API-Key"), len(lowered("İ"))
    ('api-key', 1)
    """
    return (text if text.isascii() else text.replace("İ", "i")).lower()


def _find(pattern: str, name: str) -> bool:
    return re.search(pattern + r"\Z", lowered(name)) is not None


def _ends(pattern: re.Pattern[str], name: str) -> Iterable[re.Match[str]]:
    """Yield each match at the end of a name, the longest first."""
    found = pattern.search(name)
    while found:
        yield found
        found = pattern.search(name, found.start() + 1)


def _words(name: str) -> str:
    """Return a regular expression of a name in lower case, in any of its spellings.

    >>> _words("apiKey") == _words("api-key") == "api" + SEPARATOR + "key"
    True
    """
    words = re.split(r"[_.-]+", lowered(_CAMEL.sub("_", name)))
    return SEPARATOR.join(re.escape(word) for word in words if word)


def _may_be_in(text: str) -> bool:
    text = text.lower()
    # Faster than a regular expression, and than a loop.
    return (
        "pass" in text
        or "secret" in text
        or "token" in text
        or "key" in text
        or "auth" in text
        or "pwd" in text
        or "cred" in text
        or "cookie" in text
        or "session" in text
        or "sig" in text
        or "otp" in text
        or "jwt" in text
        or "bearer" in text
        or "basic" in text
        or "@" in text
    )
