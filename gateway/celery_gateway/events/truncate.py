"""Truncate an object whose JSON is too long for the readers of a stream.

The longest values lose most: all values get the same limit, as high as the total allows, and longer values
are cut. A text keeps its beginning. A list or an object keeps its shape and loses the ends of its longest
texts. A value that cannot be cut to the limit becomes ``null``. The field ``truncated`` lists the names of
these fields.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from celery_gateway.events.event import decode_object, encode

ELLIPSIS = "…"
"""The last character of a text that was cut."""
MAX_NAMES = 100
"""Maximum number of names in ``truncated``."""

LEAST_BYTES = 64
"""A field that would have to be cut to less than this is left out."""
MAX_PROTECTED_BYTES = 1_000
"""Maximum length of a protected value that stays whole."""

_PROTECTED = frozenset(
    (
        "id",
        "type",
        "uuid",
        "name",
        "state",
        "root_id",
        "parent_id",
        "hostname",
        "timestamp",
        "time",
        "cluster",
    )
)
"""Fields that clients need to route and to resume."""
_ELLIPSIS_BYTES = len(ELLIPSIS.encode())


def truncate(fields: dict[str, Any], max_bytes: int) -> dict[str, Any]:
    """Return an object with values cut, whose encoded JSON has at most ``max_bytes``.

    Args:
        fields: an object as ``normalize`` leaves it, whose JSON is longer; its field ``truncated``, if any,
            is that of an earlier truncation. The object is not changed.
        max_bytes: at least 2,000 (``settings.MIN_EVENT_BYTES``).

    Returns:
        The fields in their order, and ``truncated``: the names of those that were cut or left out, at most
        ``MAX_NAMES`` of them. The short values of ``_PROTECTED`` stay whole. Other fields are left out if
        there are too many.
    """
    cut = list(fields.get("truncated", ()))
    names = {name: len(encode(name)) + 2 for name in fields if name != "truncated"}  # a colon and a comma
    values = {name: len(encode(fields[name])) for name in names}
    listed_bytes = min(max_bytes // 4, sum(len(encode(name)) + 1 for name in {*cut, *names}))
    room = max_bytes - listed_bytes - len('{"truncated":[]}')
    whole = {name for name in names if name in _PROTECTED and values[name] <= MAX_PROTECTED_BYTES}
    room -= sum(names[name] + values[name] for name in whole)
    kept: set[str] = set()
    least = 0
    for name in sorted(names.keys() - whole, key=lambda name: (names[name] + values[name], name)):
        least += names[name] + min(values[name], LEAST_BYTES)
        if least > room:
            break
        kept.add(name)
    room -= sum(names[name] for name in kept)
    lost: set[str] = set()  # they become null, which leaves more room to others
    while True:
        limit = _limit([values[name] for name in kept - lost], room - len(lost) * len("null"))
        more = {name for name in kept - lost if values[name] > limit and _least(fields[name]) > limit}
        if not more:
            break
        lost |= more
    whole.update(name for name in kept - lost if values[name] <= limit)
    cut += [name for name in names if name not in whole]
    result = {
        name: fields[name] if name in whole else None if name in lost else _cut(fields[name], limit)
        for name in names
        if name in whole or name in kept
    }
    result["truncated"] = _listed(dict.fromkeys(cut), listed_bytes)
    return result


def shorten(json: bytes, max_bytes: int) -> bytes:
    """Return an encoded object, truncated if it is longer than ``max_bytes``; 0 means no limit.

    >>> shorten(b'{"type":"task-sent"}', 0)
    b'{"type":"task-sent"}'
    """
    return _shortened(json, max_bytes) if 0 < max_bytes < len(json) else json


@lru_cache(maxsize=8)
def _shortened(json: bytes, max_bytes: int) -> bytes:
    """Truncate once for all clients with the same limit."""
    return encode(truncate(decode_object(json), max_bytes))


def _listed(names: Iterable[str], max_bytes: int) -> list[str]:
    """Return the names that fit, shorter ones first, at most ``MAX_NAMES``; in their original order."""
    names = list(names)
    fitting: set[str] = set()
    for name in sorted(names, key=len)[:MAX_NAMES]:
        max_bytes -= len(encode(name)) + 1
        if max_bytes < 0:
            break
        fitting.add(name)
    return [name for name in names if name in fitting]


def _limit(sizes: Iterable[int], total: int) -> int:
    """Return the highest limit such that values cut to it take at most ``total``.

    >>> _limit([10, 100, 200], 150)
    70
    """
    left = sorted(sizes)
    for index, size in enumerate(left):
        count = len(left) - index
        if size * count > total:
            return max(0, total // count)
        total -= size
    return max(left, default=0)


def _least(value: Any) -> int:
    """Return the lowest number of bytes of JSON to which a value can be cut."""
    if isinstance(value, str):
        return LEAST_BYTES
    texts: list[int] = []
    _measure(value, texts)
    return len(encode(value)) - sum(texts) + len(texts) * len('""')


def _cut(value: Any, limit: int) -> Any:
    """Return a value cut to at most ``limit`` bytes of JSON; ``_least`` must allow that."""
    if isinstance(value, str):
        return _cut_text(value, limit)
    texts: list[int] = []
    _measure(value, texts)
    rest_bytes = len(encode(value)) - sum(texts)
    return _cut_texts(value, _limit(texts, limit - rest_bytes))


def _size(text: str) -> int:
    """Return the length of a text's JSON in bytes."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return len(text) + 2
    return len(encode(text))


def _measure(value: Any, texts: list[int]) -> None:
    """Append the encoded sizes of all texts in a value."""
    if isinstance(value, str):
        texts.append(_size(value))
    elif isinstance(value, list):
        for item in value:
            _measure(item, texts)
    elif isinstance(value, dict):
        for item in value.values():
            _measure(item, texts)


def _cut_texts(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        return _cut_text(value, limit)
    if isinstance(value, list):
        return [_cut_texts(item, limit) for item in value]
    if isinstance(value, dict):
        return {key: _cut_texts(item, limit) for key, item in value.items()}
    return value


def _cut_text(text: str, limit: int) -> str:
    """Return the beginning of a text whose JSON has at most ``limit`` bytes, and at least two."""
    if _size(text) <= limit:
        return text
    room = limit - 2 - _ELLIPSIS_BYTES
    text = text[: max(0, room)]  # a character takes a byte or more
    while text and (excess := len(encode(text)) - 2 - room) > 0:
        text = text[: -max(1, excess // 6)]  # and at most six
    return text + ELLIPSIS if room >= 0 else ""
