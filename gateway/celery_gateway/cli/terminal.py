"""Text that cannot control a terminal: control and format characters become escapes."""

import json
import unicodedata

MAX_CHARS = 1000
_MAX_ESCAPES = 4096
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: controls, formats (such as U+202E, which reverses the text after it), surrogates, and
separators of lines and of paragraphs."""
_JOINERS = frozenset("\u200c\u200d")
"""Formats that only join or separate the letters beside them: in emoji and in several scripts."""
_WHITESPACE = {9: " ", 10: " ", 13: " "}
"""Whitespace between the parts of a JSON value. (Inside a string these characters are escapes already.)"""


class _Escapes(dict[int, str]):
    """For ``str.translate``: unprintable characters become escapes, as in Python's literals."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character) in _UNPRINTABLE and character not in _JOINERS:
            character = ascii(character)[1:-1]
        if len(self) < _MAX_ESCAPES:
            self[code] = character
        return character


_escapes = _Escapes()


def text_of(value: object) -> str:
    """Return a JSON value as Python writes it.

    >>> text_of(None), text_of(["a"])
    ('None', "['a']")
    """
    try:
        return str(value)
    except (ValueError, RecursionError):  # an integer of more than 4300 digits; a deep list
        return "(too large to show)"


def printable(value: object) -> str:
    r"""Return a value as text that cannot control a terminal; at most ``MAX_CHARS`` characters of it.

    >>> print(printable("red: \x1b[31m"))
    red: \x1b[31m
    """
    return text_of(value)[:MAX_CHARS].translate(_escapes)


def printable_json(text: str) -> str:
    r"""Return the text of a JSON value as JSON of the same content that cannot control a terminal.

    >>> print(printable_json('{"name": "a\u202eb"}'))
    {"name": "a\u202eb"}
    """
    if text.isprintable():
        return text
    return "".join(
        json.dumps(each)[1:-1] if unicodedata.category(each) in _UNPRINTABLE else each
        for each in text.translate(_WHITESPACE)
    )
