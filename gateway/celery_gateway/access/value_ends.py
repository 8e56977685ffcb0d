"""Where the values in a text end: strings, brackets, objects and words of Python, JSON and messages. Pure.

Rules:

- In doubt, a value is longer rather than shorter: one without an end ends with the text.
- ``saferepr`` escapes neither backslashes nor the quotes in bytes, so the end of a string is ambiguous: a
  quote with more backslashes than the first one never ends a string, and bytes end only before a bracket, a
  comma and a space, or the like.
- Strings may be in strings, each with more backslashes: JSON in JSON.
"""

import re
from typing import Final, NamedTuple

QUOTE: Final = r"""\\{0,15}["']"""
"""A quote, with the backslashes of a string that is in other strings."""
MAX_MARKS: Final = 20_000
"""Maximum number of quotes and brackets that are read in a text, which takes some milliseconds. A value with
more of them ends with the text."""

_STRING: Final = re.compile(rf"([bBfFrRuU]{{0,2}})({QUOTE})")
_QUOTES: Final = {'"': re.compile(r'\\++"?|"'), "'": re.compile(r"\\++'?|'")}
_AFTER_BYTES: Final = re.compile(r""",\s|[)\]}>;:\r\n"'\\]|\Z""")
_NEXT_LINE: Final = re.compile(r"[ \t]*+\r?\n\s*+")
_MARK: Final = re.compile(r"""\\++["']?|["'\[\](){}]""")
_CLOSING: Final = {"(": ")", "[": "]", "{": "}"}
_ANGLE: Final = re.compile(r"[<>]")
_WORD: Final = re.compile(r"""(?:[^\s&,;)\]}>"'<(\[{\\]++|[,)\]}>"'](?=\w)|\\(?!\\{0,15}["'])|<(?!/|br))*+""")
_WORDS: Final = re.compile(r"""(?:[^\n,)\]}>"'<(\[{\\]++|[,)\]}>"'](?=\w)|\\(?!\\{0,15}["'])|<(?!/|br))*+""")
_SECOND_WORD: Final = re.compile(r"[ \t]{1,4}")
_SCHEMES: Final = frozenset({"apikey", "basic", "bearer", "digest", "key", "negotiate", "token"})
"""A value that is one of these has a second word."""
_PAIR_CHARS: Final = 256
"""How far the end of the second value of a pair is searched: a text may have many of them."""
_PAIR_ENDS: Final = (")", "]", ",)", ", ...")


class String(NamedTuple):
    """The positions of a string: its content, and the end behind the last quote."""

    content_start: int
    content_end: int
    end: int


class ValueEnds:
    """Finds the ends of values in one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._marks_left = MAX_MARKS

    def string(self, start: int) -> String | None:
        """Return the string that begins at ``start``; ``None`` if there is none."""
        text = self._text
        opening = _STRING.match(text, start)
        if opening is None:
            return None
        prefix, quote = opening.groups()
        content_start = opening.end()
        if text.startswith(quote * 2, content_start):
            end = text.find(quote * 3, content_start + 2 * len(quote))
            content_start += 2 * len(quote)
            return String(content_start, *((end, end + 3 * len(quote)) if end >= 0 else (len(text),) * 2))
        while True:
            content_end, end = self._string_end(opening.end(), quote, "b" in prefix.lower(), len(text))
            # pprint continues a long string in the next line.
            line = _NEXT_LINE.match(text, end)
            following = _STRING.match(text, line.end()) if line else None
            if following is None or following[2] != quote:
                return String(content_start, content_end, end)
            opening = following

    def is_last_string(self, start: int) -> bool:
        """Return whether a string begins at ``start`` that is the last value in its brackets."""
        opening = _STRING.match(self._text, start)
        if opening is None:
            return False
        limit = min(opening.end() + _PAIR_CHARS, len(self._text))
        end = self._string_end(opening.end(), opening[2], "b" in opening[1].lower(), limit)[1]
        return end == limit or self._text.startswith(_PAIR_ENDS, end)

    def bare(self, start: int, is_in_object: bool) -> int:
        """Return the end of a value without quotes, which may have brackets, such as ``Decimal('1')``.

        Args:
            is_in_object: a comma and a space, or a bracket, end it; otherwise a space does.
        """
        text = self._text
        if text.startswith("<", start) and text[start + 1 : start + 2].isalpha():
            return self._angle_end(start)
        end, pattern, has_second = start, _WORDS if is_in_object else _WORD, False
        while True:
            word_end = end_of(pattern, text, end)
            if text.startswith(("(", "[", "{"), word_end):
                end = self._group_end(word_end, is_call=word_end > start and not is_in_object)
                if end == len(text) or text.startswith("\n", end):
                    return end
                continue
            if has_second or text[start:word_end].lower() not in _SCHEMES:
                return word_end
            second = _SECOND_WORD.match(text, word_end)
            if second is None:
                return word_end
            has_second, end = True, second.end()

    def _string_end(self, start: int, quote: str, is_bytes: bool, limit: int) -> tuple[int, int]:
        """Return where the content of a string ends, and where the string ends.

        Args:
            start: the position behind the first quote.
            quote: the first quote, with its backslashes.
            limit: where it ends at the latest.
        """
        text = self._text
        for mark in _QUOTES[quote[-1]].finditer(text, start, limit):
            self._marks_left -= 1
            if self._marks_left < 0:
                break
            if mark[0][-1] == "\\" or len(mark[0]) > len(quote):
                continue
            if is_bytes and len(quote) == 1 and not _AFTER_BYTES.match(text, mark.end()):
                continue
            if len(mark[0]) < len(quote):  # the string around this one ends
                return mark.start(), mark.start()
            return mark.start(), mark.end()
        return limit, limit

    def _group_end(self, start: int, is_call: bool) -> int:
        """Return the end of a value in brackets.

        Args:
            is_call: it ends with the line at the latest: the lines of source in a traceback are parts of
                statements.
        """
        text = self._text
        limit = len(text)
        if is_call and (newline := text.find("\n", start)) >= 0:
            limit = newline
        stack: list[str] = []
        position = start
        while mark := _MARK.search(text, position, limit):
            self._marks_left -= 1
            if self._marks_left < 0:
                return len(text)
            character = mark[0][-1]
            position = mark.end()
            if character in _CLOSING:
                stack.append(_CLOSING[character])
            elif character in "\"'":
                is_bytes = text[mark.start() - 1] in "bB"
                position = self._string_end(position, mark[0], is_bytes, limit)[1]
            elif stack and character == stack[-1]:
                stack.pop()
                if not stack:
                    return position
        return limit

    def _angle_end(self, start: int) -> int:
        """Return the end of a value such as ``<Login of <User 7>>``."""
        depth = 0
        for mark in _ANGLE.finditer(self._text, start):
            self._marks_left -= 1
            if self._marks_left < 0:
                break
            depth += 1 if mark[0] == "<" else -1
            if depth == 0:
                return mark.end()
        return len(self._text)


def end_of(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Return the end of a pattern that matches at ``start``."""
    found = pattern.match(text, start)
    return found.end() if found else start
