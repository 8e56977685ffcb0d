r"""The messages of the log: a head, and the lines that it describes.

A message is a JSON object, the ``Head``, and one line of JSON for each entry and each waiting event, joined
by ``\n``. There are these kinds:

==========  ================================================================================================
``claim``   a gateway takes the lead: its ``term`` begins with the next entry
``batch``   entries of the leader, possibly none (a sign of life)
``seen``    another gateway has read up to ``first``: a sign of life, too
``resign``  the leader stops: another one may take the lead at once
==========  ================================================================================================

Pure.
"""

from typing import Any, NamedTuple

import msgspec

VERSION = 1


class NewerFormat(ValueError):
    """A later version of the gateway has written to the log."""


class Reached(NamedTuple):
    """How far a leader has processed a source.

    All messages before ``offset`` are processed, and the first ``events`` events of the message there.
    """

    offset: int
    events: int = 0


class Line(NamedTuple):
    """One entry of the stream, as the log has it.

    Attributes:
        json: the joined event, or a control message, encoded, without ``id``.
        own: how many of its fields, from the first on, the event had before it was joined; 0 for a control
            message, -1 for an event of the gateway itself.
        arrived: when the event arrived, in epoch seconds, as it was applied to its task; of a control message
            when it was made.
        held: the number under which the event waited before; 0 if it did not wait.
        origin: the values of ``ORIGIN_FIELDS`` of its task; ``None`` if the event has the same.
    """

    json: bytes
    own: int
    arrived: float = 0.0
    held: int = 0
    origin: tuple[str | None, ...] | None = None


class Held(NamedTuple):
    """An event that waits for the name of its task, encoded; ``number`` counts them within a term."""

    number: int
    json: bytes


class Head(msgspec.Struct, omit_defaults=True):
    """The head of a message.

    Attributes:
        kind: see the module.
        term: the leadership, a random name: the ids of its entries begin with it. Of a gateway that does not
            lead: that of the leader.
        gateway: the name of the gateway that wrote it.
        at: when it was written, in epoch seconds; within a term it never goes back.
        first: the position of the first entry; with none, that of the next entry of the log.
        own: ``Line.own`` of each entry.
        arrived: ``Line.arrived`` of each entry.
        released: ``Line.held``, where it is not 0, by the index of the entry.
        origins: ``Line.origin``, where there is one, by the index of the entry.
        held: the numbers of the waiting events, whose lines follow those of the entries.
        reached: by cluster (``""`` without one), after this message.
        written_bytes: how many bytes the log has had, with this message; never goes back.
        terms: the terms before and this one, each with its first position, the oldest first; in the first
            batch of a term and now and then.
        secret: drawn for a new log, and then copied; where ``terms`` are. Page tokens are encrypted with it:
            each gateway reads those of the others.
        sources: the status of the leader's sources, as its last ``gateway-status`` has it; where ``terms``
            are, for readers that begin behind that message.
        number: of a ``seen`` message: counts those of its gateway.
        version: of this format.
    """

    kind: str
    term: str
    gateway: str
    at: float
    first: int = 0
    own: list[int] = []
    arrived: list[float] = []
    released: dict[int, int] = {}
    origins: dict[int, tuple[str | None, ...]] = {}
    held: list[int] = []
    reached: dict[str, Reached] = {}
    written_bytes: int = 0
    terms: list[tuple[str, int]] = []
    secret: str = ""
    sources: list[dict[str, Any]] = []
    number: int = 0
    version: int = VERSION


class Batch(NamedTuple):
    """A message, decoded."""

    head: Head
    lines: list[Line]
    held: list[Held]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Head).decode


def encode(head: Head, lines: list[Line] | None = None, held: list[Held] | None = None) -> bytes:
    """Return a message. The fields of the head that describe lines are set here."""
    lines, held = lines or [], held or []
    head.own = [line.own for line in lines]
    head.arrived = [line.arrived for line in lines]
    head.released = {index: line.held for index, line in enumerate(lines) if line.held}
    head.origins = {index: line.origin for index, line in enumerate(lines) if line.origin is not None}
    head.held = [each.number for each in held]
    return b"\n".join([_encode(head), *[line.json for line in lines], *[each.json for each in held]])


def decode(data: bytes) -> Batch:
    """Return the content of a message.

    Raises:
        NewerFormat: it is of a later version.
        ValueError: it is not one.
    """
    first, *texts = data.split(b"\n")
    head = _decode(first)  # msgspec's errors are ValueErrors
    if head.version > VERSION:
        raise NewerFormat(f"the log was written by a later version of celery-gateway (format {head.version})")
    count = len(head.own)
    if len(texts) != count + len(head.held) or count != len(head.arrived):
        raise ValueError("a message of the log has another number of lines than its head says")
    released, origins = head.released, head.origins
    lines = list(map(Line, texts, head.own, head.arrived))
    if released or origins:
        lines = [
            line._replace(held=released.get(index, 0), origin=origins.get(index))
            for index, line in enumerate(lines)
        ]
    held = [Held(number, json) for number, json in zip(head.held, texts[count:], strict=True)]
    return Batch(head, lines, held)


def head_of(data: bytes) -> Head:
    """Return the head of a message, without its lines. Raises ``ValueError`` as ``decode`` does."""
    return _decode(data[: data.index(b"\n")] if b"\n" in data else data)


def split_joined(event: dict[str, Any], own: int) -> dict[str, Any]:
    """Take the fields out of a joined event that the join has added, and return them.

    Args:
        own: ``Line.own``.
    """
    added = {}
    for _ in range(len(event) - own):
        field, value = event.popitem()
        added[field] = value
    return added
