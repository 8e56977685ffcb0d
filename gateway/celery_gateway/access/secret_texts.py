"""Secrets in texts: found by the names in front of them, and replaced by ``***``. Pure.

The texts are those of Celery's events: ``repr`` and ``saferepr`` of arguments and results, often cut,
tracebacks, JSON, each also within strings of the others, headers, URLs, and messages of any program.

Rules:

- In doubt, more is replaced rather than less (``value_ends``).
- The time is linear in the length of any text: the patterns do not backtrack, except over a bounded number of
  characters, and what was read of a value is not searched again.
- A text that is redacted again stays the same.
"""

import re
import string
from collections.abc import Callable
from typing import Final

from celery_gateway.access.secret_names import DIGITS, SecretNames, lowered
from celery_gateway.access.value_ends import QUOTE, ValueEnds, end_of

REDACTED: Final = "***"
MAX_NAMES: Final = 2_000
"""Maximum number of names in a text whose values are read, which takes some milliseconds. What follows them
is replaced as a whole."""
MAX_MATCHES: Final = 20_000
"""The same for everything that could be a name or a URL: about 30 ms, whatever a producer sends."""
MAX_CHARS: Final = 1_000_000
"""Of a longer text with names of secrets the rest is replaced: to search it takes up to 0.1 s for a million
characters."""
LEAST_CHARS: Final = 5
"""A shorter text has no room for a name and a value."""

_HEADER: Final = re.compile(r"""(?:[^"'\\\r\n=]++|=\ ?\\?"[^"\r\n]*+"?|=|["'](?=\w))*+""")
_HEADERS: Final = frozenset({"authorization", "cookie", "cookies"})
_ANNOTATION: Final = re.compile(r"[\w.\[\]|]{1,60} = {1,4}(?=\S)|[\w.]{1,60} \| [\w.]{1,60} = (?=\S)")
_KEPT: Final = frozenset({"", "none", "null", "true", "false", REDACTED})
_PRIVATE_KEY: Final = "-----BEGIN"
_PRIVATE_KEY_END: Final = re.compile(r"-----END[^-]*+-----")
_TAG: Final = re.compile(r"<[\w:.-]*")
_TAG_CHARS: Final = 60
_CREDENTIALS: Final = re.compile(r"[\w.~+/=-]++")
_NO_CREDENTIALS: Final = frozenset(
    ("auth", "authentication", "basic", "bearer", "of", "realm=", "token", "tokens")
)
"""Words behind "bearer" in messages."""
_BASE64: Final = re.compile(r"(?=.+[A-Z0-9+/=])[\w+/=-]{4,}")
_URL: Final = re.compile(r"""[^\s"'<>]*+""")
_AUTHORITY: Final = re.compile(r"""[^\s"'<>/?#\\]*+""")
_HOST: Final = re.compile(r"(?:\[[^]]*]|[^:]*)(?::\d{0,5})?")

_NAME: Final = string.ascii_letters + string.digits + "_.-"
_NAME_CHARS: Final = 80
"""How far the beginning of a name is searched."""
_PAIR_BEGIN: Final = re.compile(rf"[(\[]b?{QUOTE}\Z")

_Value = tuple[int, int, str]
"""A value in a text: its first position, the one behind it, and its replacement."""


class SecretTexts:
    """Replaces secrets in texts.

    Args:
        names: those of the secrets.
    """

    def __init__(self, names: SecretNames) -> None:
        self._names = names
        self._find = re.compile(
            rf"(?P<word>{names.words}|basic|://)"
            rf"(?:(?P<url>(?<=://))"
            rf"|(?P<scheme>(?:(?<=bearer)|(?<=basic))(?:\s{{1,4}}|%20))"
            rf"|{DIGITS}(?:(?P<quote>{QUOTE}|%2[27])?\]?\s{{0,20}}"
            rf"(?P<sign>[=!]=|=>|:=|=|:(?!//)|%3[ad])(?P<gap>\s{{0,40}})|(?P<tag>>)))"
        ).search
        self._find_beside = re.compile(
            rf"(?P<word>{names.words}){DIGITS}"
            rf"(?:(?P<quote>{QUOTE}),\s{{1,5}}|(?P<space>[ \t]{{1,5}})(?![\s=:-]))"
        ).search

    def redacted(self, text: str) -> str:
        """Return a text with ``***`` for each secret; the text itself if it has none.

        >>> SecretTexts(SecretNames()).redacted("{'user': 'ann', 'password': 'hunter2', 'api_key': 7}")
        "{'user': 'ann', 'password': '***', 'api_key': '***'}"
        """
        if len(text) < LEAST_CHARS or not self._names.may_be_in(text):
            return text
        if len(text) > MAX_CHARS:
            text = text[: MAX_CHARS - len(REDACTED)] + REDACTED
        text = self._replaced(text, self._find, _Values(text, self._names).after)
        if "--" in text or ("," in text and ("'" in text or '"' in text)):
            text = self._replaced(text, self._find_beside, _Values(text, self._names).beside)
        return text

    def _replaced(
        self,
        text: str,
        find: Callable[[str, int], "re.Match[str] | None"],
        value_of: Callable[["re.Match[str]"], _Value | None],
    ) -> str:
        lower = lowered(text)
        parts: list[str] = []
        done = position = count = matches = 0
        while found := find(lower, position):
            value = value_of(found)
            matches += 1
            count += value is not None or found.lastgroup == "gap"
            if count > MAX_NAMES or matches > MAX_MATCHES:
                parts += text[done : found.end()], REDACTED
                done = len(text)
                break
            position = found.end() if value is None else value[1]
            if value is not None:
                start, end, replacement = value
                parts += text[done:start], replacement
                done = end
        return "".join((*parts, text[done:])) if parts else text


class _Values:
    """Reads the values of secrets in one text."""

    def __init__(self, text: str, names: SecretNames) -> None:
        self._text = text
        self._names = names
        self._ends = ValueEnds(text)
        self._url_end = self._last_at = -1

    def after(self, found: re.Match[str]) -> _Value | None:
        """Return the value behind a name and a sign, or other credentials; ``None`` without a secret."""
        kind = found.lastgroup
        if kind == "url":
            return self._url_password(found.end())
        if kind == "scheme":
            return self._credentials(found)
        if found["word"] == "basic" or not self._names.counts(self._text, found):
            return None
        if kind == "tag":
            return self._element(found)
        quote, sign, start = found["quote"] or "", found["sign"], found.end()
        if not quote:
            if "\n" in found["gap"]:  # a title of what follows
                return None
            if sign == ":" and (annotation := _ANNOTATION.match(self._text, start)):
                start = annotation.end()
        is_header = not quote and found["word"] in _HEADERS and (sign == ":" or "cookie" in found["word"])
        return self._value(start, quote, is_header)

    def beside(self, found: re.Match[str]) -> _Value | None:
        """Return the value of a pair such as ``('password', 'x')``, or of a flag such as ``--password x``."""
        if not self._names.counts(self._text, found):
            return None
        name, start = found.start(), found.end()
        before = self._text[max(0, name - _NAME_CHARS) : name]
        outside = before.rstrip(_NAME)
        is_pair = found["quote"] is not None and _PAIR_BEGIN.search(outside) is not None
        if not (self._ends.is_last_string(start) if is_pair else "--" in before[len(outside) :]):
            return None
        found_string = self._ends.string(start)
        if found_string is None:
            return None if found["quote"] else self._value(start, "", False)
        content_start, content_end, _ = found_string
        return None if content_start == content_end else (content_start, content_end, REDACTED)

    def _value(self, start: int, quote: str, is_header: bool) -> _Value | None:
        text = self._text
        if found := self._ends.string(start):
            content_start, content_end, _ = found
            return None if content_start == content_end else (content_start, content_end, REDACTED)
        if text.startswith(_PRIVATE_KEY, start):
            last = _PRIVATE_KEY_END.search(text, start)
            end = last.end() if last else len(text)
        elif is_header and not text.startswith(("(", "[", "{"), start):
            end = end_of(_HEADER, text, start)
        else:
            end = self._ends.bare(start, bool(quote))
        if end == start or text[start:end].strip().lower() in _KEPT or text[start:end] in ("[]", "{}", "()"):
            return None
        if quote:
            while text[end - 1].isspace():
                end -= 1
        return start, end, f"{quote}{REDACTED}{quote}"

    def _element(self, found: re.Match[str]) -> _Value | None:
        """Return the content of an element of XML."""
        start, name = found.end(), found.start("word")
        opening = self._text.rfind("<", max(0, name - _TAG_CHARS), name)
        if opening < 0 or not _TAG.fullmatch(self._text, opening, name):
            return None
        end = self._text.find("<", start)
        end = len(self._text) if end < 0 else end
        return (start, end, REDACTED) if self._text[start:end].strip() else None

    def _credentials(self, found: re.Match[str]) -> _Value | None:
        """Return what follows "Bearer" or "Basic"."""
        begin = found.start("word")
        credentials = _CREDENTIALS.match(self._text, found.end())
        if credentials is None or (begin and self._text[begin - 1].isalnum()):
            return None
        if found["word"] == "basic" and not _BASE64.fullmatch(credentials[0]):
            return None  # as in "basic authentication"
        if credentials[0].lower() in _NO_CREDENTIALS:
            return None
        return credentials.start(), credentials.end(), REDACTED

    def _url_password(self, start: int) -> _Value | None:
        """Return the password of a URL whose authority begins here."""
        text = self._text
        if start > self._url_end:  # else it is in the same word as the one before
            self._url_end = end_of(_URL, text, start)
            self._last_at = text.rfind("@", start, self._url_end)
        if self._last_at < start:
            return None
        end = end_of(_AUTHORITY, text, start)
        at = text.rfind("@", start, end)
        if at < 0 and not _HOST.fullmatch(text, start, end):
            at = self._last_at  # the password has a slash or the like
        if at < 0:
            return None
        colon = text.find(":", start, at)
        if colon >= 0:
            return (colon + 1, at, REDACTED) if colon + 1 < at else None
        # A user without a password may be a token, but not that of a broker or of ssh.
        is_http = text[max(0, start - 8) : start].lower().endswith(("http://", "https://"))
        return (start, at, REDACTED) if is_http and at > start else None
