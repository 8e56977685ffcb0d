"""From the bytes of a broker message to events: decode, check, clean.

Rules: pure and bounded; ``normalize`` never raises. A message that cannot be read is refused with a reason
that is counted. An invalid event in a list does not affect the others. Nothing is unpickled, loaded as YAML
or decompressed: such bodies are refused by their properties, and not decoded.

Workers send a single object, or a list of objects under the routing key ``task.multi``
(celery/events/dispatcher.py; Celery <= 5.6 also sends empty lists). kombu's tagged values:
kombu/utils/json.py.
"""

import base64
import gc
import json
import math
import re
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgpack
import msgspec

from celery_gateway.events.event import Event, is_time, rfc3339
from celery_gateway.events.message import UNREADABLE, Message

MAX_BODY_BYTES = 8 << 20
"""Maximum length of a body. 24 events (a batch of Celery) with results of 200 kB fit into it."""
MAX_EVENTS = 10_000
"""Maximum number of events in a message; Celery sends at most 24."""
PART_EVENTS = 200
"""Maximum number of events in a part (``normalize_in_parts``): about 10 ms of work for the whole pipeline."""
MAX_VALUES = 100_000
"""Maximum number of nested values in a message that is cleaned: about 50 ms of work."""
MAX_EVENT_VALUES = 20_000
"""Maximum number of nested values in an event; those of Celery have about twenty."""
MAX_DEPTH = 64
"""Maximum number of nested levels; events of Celery have one."""

REFUSED_REASONS = (
    "envelope",
    "content-type",
    "content-encoding",
    "compression",
    "too-large",
    "too-deep",
    "too-complex",
    "undecodable",
    "not-an-object",
    "no-type",
    "reserved-type",
    "gossip",
    "internal",
)
"""Why a message or an event is refused. ``envelope``: the transport's envelope of a message, or its
properties, cannot be read. ``gossip``: elections among workers, which may contain a task. ``internal``: an
error of the gateway."""

_JSON_TYPES = frozenset({"", "application/json"})
_MSGPACK_TYPES = frozenset({"application/x-msgpack", "application/msgpack"})
_ENCODINGS = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii", "binary"})
_GOSSIP = frozenset({"worker-elect", "worker-elect-ack"})
_OWN_FIELDS = ("id", "time", "truncated", "cluster", "fields")
_BIG_BODY_BYTES = 256 << 10

_JSON_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[^][{},"]++|[][{},"]', re.DOTALL)
_TOO_DEEP = object()

_decode_strict_json = msgspec.json.Decoder().decode


class Normalized(NamedTuple):
    """The events of a message in their order, and a reason for each event or message that was refused."""

    events: list[Event]
    refused: tuple[str, ...] = ()


class _Refused(Exception):
    """A message or an event is refused; the text is the reason."""


def normalize(message: Message, received_at: float, cluster: str | None = None) -> Normalized:
    """Return the events of a message, which can be encoded.

    Args:
        message: as a source received it from the broker.
        received_at: epoch seconds; the ``time`` of an event without a usable ``timestamp``
            (``event.is_time``).
        cluster: the name of the broker, which each event gets as ``cluster``.

    Returns:
        Each event has all its fields, and ``time`` (RFC 3339 UTC from ``timestamp``; Celery's ``utcoffset``
        is not applied, since the timestamp is UTC already). Its own fields ``id``, ``time`` and ``truncated``
        (and ``cluster``, if that is given) move to ``fields``, and then its own field ``fields`` does too.
    """
    found = normalize_in_parts(message, received_at, cluster)
    if isinstance(found, Normalized):
        return found
    parts = list(found)
    return Normalized(
        [event for part in parts for event in part.events],
        tuple(reason for part in parts for reason in part.refused),
    )


def normalize_in_parts(
    message: Message, received_at: float, cluster: str | None = None
) -> Normalized | Iterator[Normalized]:
    """Do the same as ``normalize``, but return an iterator of parts for more than ``PART_EVENTS`` events."""
    try:
        body, is_plain = _decode(message)
    except _Refused as refused:
        return Normalized([], (str(refused),))
    items = body if type(body) is list else [body]
    if len(items) > MAX_EVENTS:
        return Normalized([], ("too-complex",))
    cleaner = None if is_plain else _Cleaner()
    if len(items) <= PART_EVENTS:
        return _part(items, cleaner, received_at, cluster)
    return (
        _part(items[start : start + PART_EVENTS], cleaner, received_at, cluster)
        for start in range(0, len(items), PART_EVENTS)
    )


def _part(
    items: list[Any], cleaner: "_Cleaner | None", received_at: float, cluster: str | None
) -> Normalized:
    events: list[Event] = []
    refused_reasons: list[str] = []
    for item in items:
        try:
            events.append(_event(item, cleaner, received_at, cluster))
        except _Refused as refused:
            refused_reasons.append(str(refused))
    return Normalized(events, tuple(refused_reasons))


def _decode(message: Message) -> tuple[Any, bool]:
    """Return the decoded body, and whether it is plain, shallow JSON that needs no cleaning.

    Raises:
        _Refused: the body cannot be read, or must not.
    """
    body = message.body
    content_type = message.content_type or ""
    if content_type not in _JSON_TYPES:
        content_type = content_type.partition(";")[0].strip().lower()
    is_json = content_type in _JSON_TYPES
    if not is_json and content_type not in _MSGPACK_TYPES:
        raise _Refused("envelope" if message.content_type == UNREADABLE.content_type else "content-type")
    if message.compression:
        raise _Refused("compression")
    encoding = message.content_encoding or ""
    if encoding not in _ENCODINGS and encoding.lower() not in _ENCODINGS:
        raise _Refused("content-encoding")
    if len(body) > MAX_BODY_BYTES:
        raise _Refused("too-large")
    # The garbage collector would visit the values of a big body repeatedly: six times the cost.
    pause_collector = len(body) > _BIG_BODY_BYTES and gc.isenabled()
    if pause_collector:
        gc.disable()
    try:
        if not is_json:
            # Keys must be texts: other keys could be chosen to have equal hashes, which costs unbounded time.
            return msgpack.unpackb(body, strict_map_key=True, unicode_errors="replace", timestamp=3), False
        decoded, is_plain = _decode_json(body)
        is_shallow = body.count(b"{") + body.count(b"[") <= MAX_DEPTH
        return decoded, is_plain and is_shallow and b'"__type__"' not in body
    except RecursionError:
        return _decode_each(body), False
    except msgpack.StackError:
        raise _Refused("too-deep") from None
    except (ValueError, TypeError, OverflowError):
        raise _Refused("undecodable") from None
    finally:
        if pause_collector:
            gc.enable()


def _decode_json(body: bytes) -> tuple[Any, bool]:
    """Return decoded JSON, and whether it conforms to the standard.

    Python's json writes and reads what the standard forbids: NaN, Infinity, lone surrogates.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    try:
        return _decode_strict_json(body), True
    except ValueError:
        return json.loads(body.decode("utf-8-sig", "replace"), parse_int=_integer), False


def _decode_each(body: bytes) -> list[Any]:
    """Return the items of a JSON list; ``_TOO_DEEP`` for items that are nested too deeply.

    Raises:
        _Refused: it is not a list, or not JSON.
    """
    if not body.lstrip().startswith(b"["):
        raise _Refused("too-deep")
    items: list[Any] = []
    depth = start = 0
    for token, _ in zip(_JSON_TOKEN.finditer(body), range(MAX_VALUES), strict=False):
        mark = token[0]
        if mark == b'"':  # of a string without an end
            break
        if mark in (b"[", b"{"):
            depth += 1
            start = start or token.end()
        elif mark in (b"]", b"}"):
            depth -= 1
        if (depth == 1 and mark == b",") or (depth == 0 and items):
            items.append(_decode_item(body[start : token.start()]))
            start = token.end()
            if depth == 0:
                return items
    raise _Refused("too-deep")


def _decode_item(text: bytes) -> Any:
    try:
        return _decode_json(text)[0]
    except RecursionError:
        return _TOO_DEEP
    except ValueError:
        raise _Refused("undecodable") from None


def _event(item: Any, cleaner: "_Cleaner | None", received_at: float, cluster: str | None) -> Event:
    """Return one checked event.

    Raises:
        _Refused: it is not an event, or one that subscribers must not get.
    """
    if item is _TOO_DEEP:
        raise _Refused("too-deep")
    event = cleaner.event(item) if cleaner else item
    if type(event) is not dict:
        raise _Refused("not-an-object")
    event_type = event.get("type")
    if type(event_type) is not str or not event_type:
        raise _Refused("no-type")
    if event_type.startswith("gateway-"):
        raise _Refused("reserved-type")
    if event_type in _GOSSIP:
        raise _Refused("gossip")
    if "id" in event or "time" in event or "truncated" in event or (cluster and "cluster" in event):
        own = [field for field in _OWN_FIELDS if field in event and (cluster or field != "cluster")]
        event["fields"] = {field: event.pop(field) for field in own}
    if cluster:
        event["cluster"] = cluster
    timestamp = event.get("timestamp")
    event["time"] = rfc3339(timestamp if is_time(timestamp, received_at) else received_at)
    return event


class _Cleaner:
    """Converts decoded values to plain JSON values, within the limits of one message."""

    def __init__(self) -> None:
        self._values_left = MAX_VALUES
        self._event_values_left = MAX_EVENT_VALUES

    def event(self, item: Any) -> Any:
        """Return one event of the message cleaned, as ``clean`` does."""
        self._event_values_left = MAX_EVENT_VALUES
        return self.clean(item)

    def clean(self, value: Any, depth: int = 0) -> Any:
        """Return a value of plain JSON types.

        NaN and infinities become ``None``, lone surrogates U+FFFD, kombu's tagged values their text. An
        object with an unknown tag stays unchanged.

        Raises:
            _Refused: too deep, or too many values.
        """
        kind = type(value)
        if kind is str:
            return value if value.isascii() else _without_lone_surrogates(value)
        if kind is int or kind is bool or value is None:
            return value
        if kind is float:
            return value if math.isfinite(value) else None
        if depth > MAX_DEPTH:
            raise _Refused("too-deep")
        if kind is dict or kind is list:
            self._event_values_left -= len(value)
            if self._event_values_left < 0:
                raise _Refused("too-complex")
            self._values_left -= len(value)
            if self._values_left < 0:
                raise _Refused("too-complex")
        if kind is list:
            return [self.clean(item, depth + 1) for item in value]
        if kind is dict:
            cleaned = {self._key(key): self.clean(item, depth + 1) for key, item in value.items()}
            return _untagged(cleaned) if cleaned.keys() == {"__type__", "__value__"} else cleaned
        # Values of msgpack only: bytes, an extension, a time.
        return _text(value) if kind is bytes else _text(value.data) if kind is msgpack.ExtType else str(value)

    def _key(self, key: str | bytes) -> str:
        return _without_lone_surrogates(key if isinstance(key, str) else _text(key))


def _untagged(tagged: dict[str, Any]) -> Any:
    """Return the value of an object that kombu tagged with a type; other objects stay unchanged."""
    tag, value = tagged["__type__"], tagged["__value__"]
    if tag in ("datetime", "date", "time", "decimal", "bytes", "base64") and type(value) is str:
        return value
    if tag == "uuid" and type(value) is dict and type(value.get("hex")) is str:
        try:
            return str(uuid.UUID(hex=value["hex"]))
        except ValueError:
            return tagged
    return tagged


def _integer(digits: str) -> int | None:
    """Return an integer; ``None`` if it has more than ``sys.get_int_max_str_digits()`` digits."""
    try:
        return int(digits)
    except ValueError:
        return None


def _without_lone_surrogates(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _text(value: bytes) -> str:
    """Return bytes as text if they are UTF-8, else in base64, as kombu does."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
