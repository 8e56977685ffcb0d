r"""Patterns: texts with escapes and wildcards, matched without backtracking. Pure.

In a pattern, ``*`` matches any text, also an empty one, and ``?`` matches one character. A backslash before
``\``, ``,``, ``*``, ``?`` or ``!`` makes that character literal; any other backslash is a literal backslash.

A glob is a pattern with wildcards. It is split at its stars into pieces. The first and the last piece have
fixed positions. Each other piece is searched from left to right, and its leftmost position is used.
``str.find`` searches a short piece. For a long one it can take length × length steps, so long pieces are
searched with masks. Bit i of the mask of a gram (1 to 16 characters) is set if the gram is at character i of
the text. The positions of a piece are the bits that remain after one shift and one AND for each of its grams.

The worst measured cases, for a glob of 1,000 characters and a text of 4,096 characters: 0.1 ms, and 0.5 ms
with 750 wildcards.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache

ANY, STAR = "\udc3f", "\udc2a"
"""The wildcards of a glob. They are surrogates, which do not occur in events and requests."""
_BACKSLASH, _COMMA, _QUESTION, _STAR = "\udc5c", "\udc2c", "\udc3e", "\udc2b"
"""Placeholders of escaped characters."""
MAX_QUOTED_CHARS = 100
MAX_GRAM_CHARS = 16
MAX_SEARCH_STEPS = 16_384
"""Maximum number of steps that ``str.find`` may take in the worst case; 0.5 ns each."""
MAX_SEARCH_STEPS_IN_ALL = 65_536
SEARCH_STEPS_PER_PIECE = 4_096
MAX_TRIED_STEPS = 512
"""A few positions are tried one by one: the maximum number of comparisons for that."""
MAX_MASKS = 4_096
"""Maximum number of masks that are kept for a text; a mask has up to 0.5 kB."""
FEW = 40
"""Up to this number of positions, setting single bits is the faster way to make a mask."""

_SPECIAL = re.compile(r"[\\,*?!]")
_STAR_IN_RUN = re.compile(r"\*[*?]+")


def escape(text: str) -> str:
    r"""Return the pattern that matches exactly this text, in a query parameter and in JSON.

    In a query parameter, spaces beside a comma are dropped nevertheless: repeat the parameter for such texts.
    An empty text has no pattern: the result is empty, which ``filter_parser`` refuses.

    >>> print(escape("!eu,us*"))
    \!eu\,us\*
    """
    return _SPECIAL.sub(r"\\\g<0>", text)


def unescape(text: str) -> str:
    r"""Return the text of a pattern without its escapes.

    >>> unescape(r"\!eu\,us\*")
    '!eu,us*'
    """
    if "\\" not in text:
        return text
    # Without escaped backslashes, each of those that are left belongs to the character after it.
    text = text.replace("\\\\", _BACKSLASH)
    for character in ",*?!":
        text = text.replace("\\" + character, character)
    return text.replace(_BACKSLASH, "\\")


def wildcards(pattern: str) -> int:
    r"""Return the number of wildcards that are not escaped.

    >>> wildcards(r"shop.*.v?\*")
    2
    """
    count = pattern.count("*") + pattern.count("?")
    if count and "\\" in pattern:
        pattern = pattern.replace("\\\\", _BACKSLASH)
        count -= pattern.count("\\*") + pattern.count("\\?")
    return count


def quoted(text: str) -> str:
    """Return a text for an error message: in quotes, and at most ``MAX_QUOTED_CHARS`` characters of it.

    >>> len(quoted("x" * 1_000))
    103
    """
    return repr(text if len(text) <= MAX_QUOTED_CHARS else text[:MAX_QUOTED_CHARS] + "…")


def split(text: str, max_parts: int) -> list[str]:
    r"""Return the parts of a text between commas that are not escaped, with their escapes.

    Args:
        text: of a query parameter.
        max_parts: more parts than this are cut off after the first of them.

    >>> split(r"a,b\,c", 10)
    ['a', 'b\\,c']
    """
    if "\\" not in text:
        return text.split(",", max_parts + 1)[: max_parts + 1]
    text = text.replace("\\\\", _BACKSLASH).replace("\\,", _COMMA)
    parts = text.split(",", max_parts + 1)[: max_parts + 1]
    return [part.replace(_COMMA, "\\,").replace(_BACKSLASH, "\\\\") for part in parts]


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern with wildcards, made by ``parse``. ``a*?`` and ``a?*`` are equal.

    Attributes:
        text: the pattern with ``ANY`` and ``STAR`` in place of its wildcards, and without escapes.
        cost: the cost to match and hold it (see ``Filter.cost``).
        prefix: the literal text that every match begins with.
    """

    text: str
    cost: int = field(init=False, repr=False, compare=False)
    prefix: str = field(init=False, repr=False, compare=False)
    _head: str = field(init=False, repr=False, compare=False)
    _middles: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _tail: str | None = field(init=False, repr=False, compare=False)
    _min_chars: int = field(init=False, repr=False, compare=False)
    _max_search_steps: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        head, *pieces = self.text.split(STAR)
        tail = pieces.pop() if pieces else None
        stars, questions = self.text.count(STAR), self.text.count(ANY)
        middles = tuple(pieces)
        if tail == "" and not middles and not questions:
            cost = 2 + len(head) // 64
        else:
            cost = 10 + len(self.text) // 16 + (stars + questions) // 4
        search_steps = min(SEARCH_STEPS_PER_PIECE * len(middles), MAX_SEARCH_STEPS_IN_ALL)
        attributes = {
            "cost": cost,
            "prefix": head.partition(ANY)[0],
            "_head": head,
            "_middles": middles,
            "_tail": tail,
            "_min_chars": len(self.text) - stars,
            "_max_search_steps": max(MAX_SEARCH_STEPS, search_steps),
        }
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    @classmethod
    def parse(cls, pattern: str) -> "Glob":
        """Return the glob of a pattern with escapes.

        >>> Glob.parse("shop.*").match("shop.pay")
        True
        """
        is_escaped = "\\" in pattern
        if is_escaped:
            pattern = pattern.replace("\\\\", _BACKSLASH).replace("\\*", _STAR).replace("\\?", _QUESTION)
            pattern = unescape(pattern)
        text = _STAR_IN_RUN.sub(_ordered, pattern).replace("*", STAR).replace("?", ANY)
        if is_escaped:
            text = text.replace(_BACKSLASH, "\\").replace(_STAR, "*").replace(_QUESTION, "?")
        return cls(text)

    def match(self, text: str) -> bool:
        """Return whether the glob matches the whole text."""
        if len(text) < self._min_chars or not text.startswith(self.prefix):
            return False
        head, tail = self._head, self._tail
        if head is not self.prefix and not _is_at(0, head, text):
            return False
        if tail is None:
            return len(text) == self._min_chars
        at, end = len(head), len(text) - len(tail)
        if tail and not (text.endswith(tail) or (ANY in tail and _is_at(end, tail, text))):
            return False
        for piece in self._middles:
            chars = len(piece)
            literal = piece.rstrip(ANY)
            if ANY not in literal and (end - at - chars + 1) * len(literal) <= self._max_search_steps:
                at = text.find(literal, at, end - chars + len(literal))
            else:
                at = _leftmost(text, piece, at, end - chars + 1)
            if at < 0:
                return False
            at += chars
        return True


def _ordered(run: re.Match[str]) -> str:
    """Return a run of wildcards with a single star, at the end."""
    return "?" * run[0].count("?") + "*"


def _is_at(at: int, piece: str, text: str) -> bool:
    """Return whether a piece is at a position of a text. The piece must not exceed the end of the text."""
    for literal in piece.split(ANY):
        if not text.startswith(literal, at):
            return False
        at += len(literal) + 1
    return True


def _leftmost(text: str, piece: str, begin: int, end: int) -> int:
    """Return the first position of a piece in a text, from ``begin`` to before ``end``; -1 if none."""
    if begin >= end:
        return -1
    masks = _masks(text)
    last = len(piece) - MAX_GRAM_CHARS
    places = masks[piece[:MAX_GRAM_CHARS]] >> begin
    at = 0
    while places and at < last:
        at = min(at + MAX_GRAM_CHARS, last)
        places &= masks[piece[at : at + MAX_GRAM_CHARS]] >> (begin + at)
        if places.bit_count() * (8 + piece.count(ANY)) <= MAX_TRIED_STEPS:
            return _first_of(places, text, piece, begin, end)
    place = begin + (places & -places).bit_length() - 1
    return place if begin <= place < end else -1


def _first_of(places: int, text: str, piece: str, begin: int, end: int) -> int:
    """Return the first possible position of a piece at which it is; -1 if it is at none.

    Args:
        places: a mask of the possible positions, counted from ``begin``.
        text: that is searched.
        piece: a part of a glob between stars.
        begin: the first position.
        end: the position after the last one.
    """
    digits = f"{places:b}"[::-1]
    at = digits.find("1")
    while 0 <= at < end - begin:
        if _is_at(begin + at, piece, text):
            return begin + at
        at = digits.find("1", at + 1)
    return -1


class _Masks(dict[str, int]):
    """The masks of a text by gram."""

    def __init__(self, text: str) -> None:
        self[ANY] = (1 << len(text)) - 1
        self._text = text

    def __missing__(self, gram: str) -> int:
        chars = len(gram)
        if chars > 1:
            half = 1 << ((chars - 1).bit_length() - 1)  # a power of two, so that grams share their parts
            mask = self[gram[:half]]
            if mask:
                mask &= self[gram[-half:]] >> (chars - half)
        else:
            mask = self._of_character(gram)
        if len(self) < MAX_MASKS:
            self[gram] = mask
        return mask

    def _of_character(self, character: str) -> int:
        text = self._text
        mask = 0
        if text.count(character) > FEW:
            digits = "1".join(["0" * len(part) for part in text.split(character)])
            return int(digits[::-1], 2)
        at = text.find(character)
        while at >= 0:
            mask |= 1 << at
            at = text.find(character, at + 1)
        return mask


@lru_cache(maxsize=12)
def _masks(text: str) -> _Masks:
    # An event has at most 9 values, and each is matched against many globs.
    return _Masks(text)
