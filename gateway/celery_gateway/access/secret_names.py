"""Names of secrets, such as ``db_password``: which names count, and how to find them. Pure."""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

ANYWHERE: Final = (
    *("password", "passwords", "passwd", "passphrase", "passphrases", "passcode", "pwd"),
    *(
        "password_hash",
        "secret",
        "secrets",
        "authorization",
        "credential",
        "credentials",
        "cookie",
        "cookies",
    ),
    # Not every plural of token: max_tokens and total_tokens are numbers.
    *("token", "access_tokens", "api_tokens", "auth_tokens", "refresh_tokens"),
    *("api_key", "api_keys", "access_key", "access_keys", "account_key", "auth_key", "encryption_key"),
    *("master_key", "private_key", "private_keys", "secret_key", "secret_keys", "shared_key", "signing_key"),
    *("ssh_key", "session_id", "session_key", "amz_signature", "goog_signature"),
)
"""Names that count also at the end of a longer word, such as ``dbpassword``."""
AS_WORDS: Final = ("auth", "bearer", "cred", "creds", "jwt", "oauth", "otp", "sig")
"""Names that count only as a whole word: ``basic_auth`` and ``basicAuth``, but not ``xauth``."""
AS_LAST_WORD: Final = "pass"
"""Counts only after another word: ``db_pass``."""
DIGITS: Final = r"\d{0,3}"
"""Behind a name: ``password1`` and ``password2`` are the fields of a form in Django."""
_MAX_NAME_CHARS: Final = 100
"""Of a longer name only the end is read."""
_BETWEEN_WORDS: Final = "[ _.-]?"
_SEPARATORS: Final = re.compile(r"[_.-]+")
_Tree = dict[str, "_Tree"]
"""What follows a beginning of names; the empty text means that a name ends."""
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class SecretNames:
    """The names whose values are secrets.

    Args:
        further: names beside those that always count. They count as whole words.

    Attributes:
        words: regular expressions of the names in lower case, between bars. Each begins with a character, so
            that a search is fast.
        has: returns whether a name is that of a secret: ``has("X-Api-Key")``.
        may_be_in: returns False if a text has no such name, no credentials of HTTP, and no URL with a
            password; it takes less than a microsecond for a short text.
    """

    def __init__(self, further: Iterable[str] = ()) -> None:
        self._anywhere = re.compile(_alternatives(ANYWHERE))
        self.words = _alternatives((*ANYWHERE, *AS_WORDS, AS_LAST_WORD))
        self._end = self._compile_end()
        # A name that counts already is left out: it would hide the shorter name at its end.
        added = [name for name in further if not self._has(name)]
        if added:
            self.words = _alternatives((*ANYWHERE, *AS_WORDS, AS_LAST_WORD, *added))
            self._end = self._compile_end()
        self.has: Callable[[str], bool] = lru_cache(maxsize=4_096)(self._has)
        self.may_be_in = _may_be_in
        if added:
            search = re.compile(_alternatives(added)).search
            self.may_be_in = lambda text: _may_be_in(text) or search(lowered(text)) is not None

    def _compile_end(self) -> re.Pattern[str]:
        return re.compile(rf"(?P<word>{self.words}){DIGITS}\Z")

    def _has(self, name: str) -> bool:
        name = name.strip()[-_MAX_NAME_CHARS:]
        found = self._end.search(lowered(name))
        while found and not self.counts(name, found):
            found = self._end.search(lowered(name), found.start() + 1)
        return found is not None

    def counts(self, text: str, found: re.Match[str]) -> bool:
        """Return whether a match in the lowered text is the end of a name, as the rules of its word require.

        Args:
            text: the text itself.
            found: with the group ``word``.
        """
        word, start = found["word"], found.start("word")
        if self._anywhere.fullmatch(word):
            return True
        before = text[start - 1] if start else ""
        if before.isalpha() and not (before.islower() and text[start].isupper()):
            return False
        return word != AS_LAST_WORD or (before != "" and (before.isalnum() or before in "_-"))


def lowered(text: str) -> str:
    """Return a text in lower case, of the same length.

    >>> lowered("API-Key"), len(lowered("İ"))
    ('api-key', 1)
    """
    return (text if text.isascii() else text.replace("İ", "i")).lower()


def _alternatives(names: Iterable[str]) -> str:
    """Return a regular expression of names, without a group around it: the longest that matches counts.

    Names that begin alike are tried together, which takes a third of the time.

    >>> _alternatives(["apiKey", "jwt", "api-keys"])
    'api[ _.-]?key(?:s)?|jwt'
    """
    tree: _Tree = {}
    for name in names:
        node = tree
        for part in _parts(name):
            node = node.setdefault(part, {})
        node[""] = {}
    return _joined(tree)


def _joined(tree: _Tree) -> str:
    return "|".join(part + _below(node) for part, node in tree.items() if part)


def _below(tree: _Tree) -> str:
    below = _joined(tree)
    if "" in tree:
        return f"(?:{below})?" if below else ""
    return below if len(tree) == 1 else f"(?:{below})"


def _parts(name: str) -> list[str]:
    """Return regular expressions of the characters of a name in lower case, in all its spellings."""
    words = [word for word in _SEPARATORS.split(lowered(_CAMEL.sub("_", name))) if word]
    return [part for word in words for part in (_BETWEEN_WORDS, *map(re.escape, word))][1:]


def _may_be_in(text: str) -> bool:
    text = text.lower()
    return (  # faster than a regular expression, and than a loop
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
