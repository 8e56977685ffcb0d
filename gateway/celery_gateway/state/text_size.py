"""The size of texts in memory. Pure.

CPython stores 1, 2 or 4 bytes a character, as the widest one needs. A string that is not ASCII also keeps its
UTF-8 form once it has been encoded, as each text of an event is.
"""


def text_bytes(text: str | None) -> int:
    """Return the size of the characters of a text in bytes, without the object around them (about 50).

    >>> text_bytes("abc"), text_bytes("é"), text_bytes("漢"), text_bytes("😀"), text_bytes(None)
    (3, 3, 5, 8, 0)
    """
    if text is None:
        return 0
    if text.isascii():
        return len(text)
    count = len(text)
    utf8_bytes = len(text.encode("utf-8", "surrogatepass"))
    if utf8_bytes <= 2 * count and _is_latin(text):
        return count + utf8_bytes
    is_wide = len(text.encode("utf-16-le", "surrogatepass")) > 2 * count
    return count * (4 if is_wide else 2) + utf8_bytes


def _is_latin(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True
