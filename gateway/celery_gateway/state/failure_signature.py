r"""The signature of a failure: what failures with the same cause have in common.

It has the class of the exception, its message without what differs from task to task (numbers, ids, quoted
texts, addresses), and the last own frame of the traceback: not of Celery, an installed package or Python's
standard library, if there is another one.

Only the ends of long texts are read. Each text is read once, so that the time is proportional to its length.
Pure.
"""

import re
from hashlib import blake2b
from typing import NamedTuple

MAX_MESSAGE_CHARS = 1_000
MAX_CLASS_CHARS = 200
TRACEBACK_CHARS = 16_000
"""How much of the end of a traceback is read."""
MAX_FRAME_CHARS = 300

_FRAME = re.compile(r'File "([^"\n]{1,800})", line (\d{1,9})(?:, in ([^\n]{1,200}))?')
# As packageOf in clients/dashboard/src/traceback.ts; tests/support/library_files.json has examples.
_LIBRARY = re.compile(
    r"""(?:[\\/](?:site|dist)-packages|\.whl)[\\/]"""
    r"""|(?:^|[\\/])(?:celery[\\/](?:(?:app|worker|utils|backends|concurrency|events|bin|loaders|contrib)[\\/]"""
    r"""|(?:canvas|result|local|_state|schedules|beat)\.py)|(?:kombu|billiard|vine|amqp)[\\/])"""
    r"""|^<frozen |[\\/]lib(?:64)?[\\/]py(?:thon|py)[0-9][0-9A-Za-z.]*[\\/]|[\\/]python[0-9]+\.zip[\\/]"""
    r"""|(?:[Pp]ython|conda|forge|versions\\[0-9]|envs\\)[^\\/]{0,80}\\[Ll]ib\\"""
)
_VARIABLE = re.compile(
    r"""[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"""
    r"""|"[^"\n]{0,300}"|(?<![0-9A-Za-z])'[^'\n]{0,300}'(?![0-9A-Za-z])|`[^`\n]{0,300}`"""
    r"""|0[xX][0-9a-fA-F]+|(?<![0-9A-Za-z])(?=[0-9a-fA-F]*[0-9])[0-9a-fA-F]{7,}(?![0-9A-Za-z])"""
    r"""|[0-9]+"""
)
_TEXT = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
"""The ``repr`` of one text."""
_WRAPPERS = frozenset({"ExceptionWithTraceback"})
"""Exceptions of billiard that only contain another one: the last line of the traceback has that."""


class Signature(NamedTuple):
    """The signature of a failure.

    Attributes:
        key: 16 hexadecimal digits, equal for failures with the same signature.
        exception: the name of its class.
        message: of this failure, at most ``MAX_MESSAGE_CHARS`` characters.
        frame: such as ``shop/tasks.py:88 in charge``; ``None`` if the traceback has none.
    """

    key: str
    exception: str
    message: str
    frame: str | None


def signature(exception: str | None, traceback: str | None) -> Signature:
    """Return the signature of a failure.

    Args:
        exception: the ``repr`` of the exception, as in ``task-failed``.
        traceback: as in ``task-failed``.
    """
    name, message = _split(exception or "")
    tail = "" if traceback is None else traceback[-TRACEBACK_CHARS:]
    if name in _WRAPPERS and tail:
        name, _, message = tail.rstrip().rpartition("\n")[2][: 2 * MAX_MESSAGE_CHARS].partition(": ")
        name = name.rpartition(".")[2]
    name, message = name[:MAX_CLASS_CHARS], message[:MAX_MESSAGE_CHARS]
    frame = last_frame(tail)
    digest = blake2b(digest_size=8)
    for part in (name, normalized(message), frame or ""):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return Signature(digest.hexdigest(), name, message, frame)


def is_wrapper(exception: str) -> bool:
    """Return whether a ``repr`` is that of an exception which only contains another one."""
    return exception.partition("(")[0] in _WRAPPERS


def normalized(message: str) -> str:
    """Return a message without what differs from task to task.

    >>> normalized("order 1295: card '4711' of 3f2504e0-4f89-11d3-9a0c-0305e82c3301 at 0x7f3a")
    'order *: card * of * at *'
    >>> normalized("can't open 'alpha'")  # an apostrophe is no quote
    "can't open *"
    """
    return _VARIABLE.sub("*", message)


def last_frame(traceback: str) -> str | None:
    """Return the last own frame of a traceback, or its last frame if none is own; ``None`` without frames."""
    frames = list(_FRAME.finditer(traceback))
    if not frames:
        return None
    found = next((each for each in reversed(frames) if not _LIBRARY.search(each[1])), frames[-1])
    path = "/".join(re.split(r"[/\\]", found[1])[-2:])
    where = f"{path}:{found[2]}"
    return (where if found[3] is None else f"{where} in {found[3].strip()}")[:MAX_FRAME_CHARS]


def _split(exception: str) -> tuple[str, str]:
    """Return the name of the class and the message of a ``repr``: its first argument, if that is a text."""
    text = exception[: 2 * MAX_MESSAGE_CHARS]
    name, bracket, rest = text.partition("(")
    if not bracket:
        name, _, rest = text.partition(":")
        return name.strip(), rest.strip()
    rest = rest.removesuffix(")").removesuffix(",")
    if _TEXT.fullmatch(rest):
        rest = rest[1:-1]
    return name.strip().rpartition(".")[2], rest
