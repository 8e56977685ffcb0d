"""Reading kombu's envelopes of messages in Redis (kombu/transport/virtual/base.py).

- kombu's own consumer raises at the first envelope that it cannot read, and loses the batch and the
  connection with it. Here such an envelope becomes ``UNREADABLE``, and nothing else is lost.
- Text of an envelope that is not UTF-8 is read as kombu reads it.

Pure.
"""

import binascii
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

from celery_gateway.events.message import UNREADABLE, Message

MAX_PAYLOAD_BYTES = 12 << 20
"""A larger envelope is not decoded: with base64, a body of 8 MiB (the most that is read) needs 10.7 MiB."""
MAX_SEEN_TAGS = 10_000

_UNREADABLE: tuple[Message, Mapping[str, Any], str] = (UNREADABLE, {}, "")


class EnvelopeReader:
    """Reads payloads to messages.

    Args:
        has_duplicates: whether a message can arrive on two channels; the second one is skipped.
    """

    def __init__(self, has_duplicates: bool) -> None:
        self._seen: OrderedDict[str, None] | None = OrderedDict() if has_duplicates else None

    def message(self, payload: bytes) -> Message | None:
        """Return the message of a payload: ``UNREADABLE`` if its envelope is, ``None`` for a duplicate."""
        message, _, tag = read_envelope(payload)
        if self._seen is not None and tag:
            if tag in self._seen:
                return None
            self._seen[tag] = None
            if len(self._seen) > MAX_SEEN_TAGS:
                self._seen.popitem(last=False)
        return message


def read_envelope(payload: bytes | str) -> tuple[Message, Mapping[str, Any], str]:
    """Return the message in an envelope, its headers, and its delivery tag (empty without one)."""
    if len(payload) > MAX_PAYLOAD_BYTES:  # as a body of this size it is counted as too large
        return Message(payload if isinstance(payload, bytes) else payload.encode()), {}, ""
    try:
        envelope = _decoded(payload)
        properties, headers = envelope["properties"], envelope.get("headers") or {}
        body, encoding = envelope["body"], properties.get("body_encoding")
        content_type, content_encoding = envelope.get("content-type"), envelope.get("content-encoding")
        compression, tag = headers.get("compression"), properties.get("delivery_tag")
        if not isinstance(content_type, str | None) or not isinstance(content_encoding, str | None):
            return _UNREADABLE
        data = body.encode("utf-8", "surrogatepass")
        if encoding is not None and encoding.lower() != "utf-8":
            if encoding != "base64":
                return _UNREADABLE
            data = binascii.a2b_base64(data)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, LookupError):
        return _UNREADABLE
    message = Message(data, content_type, content_encoding, None if compression is None else str(compression))
    return message, headers, tag if isinstance(tag, str) else ""


def _decoded(payload: bytes | str) -> Any:
    try:
        return msgspec.json.decode(payload)
    except msgspec.DecodeError:  # a NaN in the headers, or bytes that are not UTF-8: kombu reads both
        return json.loads(payload if isinstance(payload, str) else payload.decode("utf-8", "replace"))
