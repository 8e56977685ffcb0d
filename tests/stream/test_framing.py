"""The framings as clients read them: SSE with a parser of the WHATWG specification, NDJSON by its lines."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import httpx_sse
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.events.event import encode
from celery_gateway.stream.framing import (
    CHUNKED_FORMATS,
    FORMATS,
    LAST_CHUNK,
    NDJSON,
    SSE,
    WEBSOCKET,
    WebSocket,
)
from celery_gateway.stream.messages import (
    ControlMessage,
    bookmark_message,
    close_message,
    gap_message,
    open_message,
)
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

TABLE = json.loads((Path(__file__).parents[1] / "conformance" / "sse.json").read_text("utf-8"))
CASES = [pytest.param(case, id=case["rule"]) for case in TABLE["cases"]]
WRITTEN = [pytest.param(case, id=case["rule"]) for case in TABLE["cases"] if case["frames"] is not None]
DRAWN = settings(deadline=None, max_examples=tries(200), derandomize=True)


class Dispatched(NamedTuple):
    """A MessageEvent, with the names of a browser."""

    type: str
    data: str
    lastEventId: str


class EventSource:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6, sentence by sentence."""

    def __init__(self, stream: bytes) -> None:
        self.dispatched: list[Dispatched] = []
        self.last_event_id = ""
        self.reconnection_time: int | None = None
        self._data = self._event_type = self._id = ""
        text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
        *lines, _unfinished = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in lines:
            self._line(line)

    def _line(self, line: str) -> None:
        if line == "":
            self._dispatch()
        elif line[0] == ":":
            pass
        elif ":" in line:
            at = line.index(":")
            field, value = line[:at], line[at + 1 :]
            self._field(field, value[1:] if value[:1] == " " else value)
        else:
            self._field(line, "")

    def _field(self, field: str, value: str) -> None:
        if field == "event":
            self._event_type = value
        elif field == "data":
            self._data += value + "\n"
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value and set(value) <= set("0123456789"):
            self.reconnection_time = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        if self._data == "":
            self._event_type = ""
            return
        data = self._data[:-1] if self._data[-1] == "\n" else self._data
        self.dispatched.append(Dispatched(self._event_type or "message", data, self.last_event_id))
        self._data = self._event_type = ""


def written(framing: SSE | NDJSON | WebSocket, frame: dict[str, Any]) -> bytes:
    """Return a frame of the conformance table as the gateway writes it."""
    id = frame["id"].encode()
    match frame["kind"]:
        case "event":
            return framing.event(id, frame["json"].encode())
        case "keepalive":
            return framing.keepalive(id)
        case "open":
            return framing.control(id, open_message(id, frame["resume"]))
        case "gap":
            return framing.control(id, gap_message(id, frame["reason"], frame["lost"]))
        case "close":
            return framing.control(id, close_message(id, frame["reason"], frame.get("retry_ms")))
        case kind:
            raise AssertionError(f"the table has a frame of kind {kind!r}")


@pytest.mark.parametrize("case", CASES)
def test_an_event_source_dispatches_the_messages_of_the_table(case: dict[str, Any]) -> None:
    read = EventSource(case["stream"].encode())
    assert [message._asdict() for message in read.dispatched] == case["dispatches"]
    assert read.last_event_id == case["lastEventId"]
    assert read.reconnection_time == case["reconnectionTime"]


@pytest.mark.parametrize("case", WRITTEN)
def test_the_frames_of_the_table_are_written_as_its_stream(case: dict[str, Any]) -> None:
    assert b"".join(written(SSE(), frame) for frame in case["frames"]).decode() == case["stream"]


@pytest.mark.parametrize("case", WRITTEN)
def test_ndjson_has_the_same_messages_with_their_types(case: dict[str, Any]) -> None:
    lines = b"".join(written(NDJSON(), frame) for frame in case["frames"]).split(b"\n")
    assert lines.pop() == b""
    for line, frame in zip(lines, case["frames"], strict=True):
        message = json.loads(line)
        if frame["kind"] == "event":
            assert line.decode() == frame["json"]
        else:
            kind = "bookmark" if frame["kind"] == "keepalive" else frame["kind"]
            expected = {key: value for key, value in frame.items() if key != "kind"}
            assert message == expected | {"type": f"gateway-{kind}"}


# ----------------------------------------------------------------------------------- drawn streams

TEXTS = st.text(
    st.one_of(
        st.sampled_from(list('\n\r\t\0\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\ufeff: \\"')),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=12,
)
VALUES = st.recursive(
    st.one_of(
        TEXTS, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
EVENTS = st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4)
CONTROLS = st.one_of(
    st.tuples(st.just("open"), st.sampled_from(["live", "resumed", "reset"])),
    st.tuples(st.just("gap"), st.sampled_from(["evicted", "slow", "broker", "unknown-id"])),
    st.tuples(st.just("close"), st.sampled_from(["ready", "drain", "slow", "expired", "limit"])),
    st.tuples(st.just("keepalive"), st.just("")),
)
RETRY_MS = 1234
STREAMS = st.lists(st.one_of(EVENTS, CONTROLS), max_size=8)


def control(item: tuple[str, Any], id: bytes) -> ControlMessage:
    kind, word = item
    match kind:
        case "open":
            return open_message(id, word)
        case "gap":
            return gap_message(id, word, None)
        case "close":
            return close_message(id, word, RETRY_MS)
        case _:
            return bookmark_message(id)


@pytest.mark.slow
@DRAWN
@given(STREAMS)
def test_every_stream_is_read_by_an_event_source_as_it_was_written(stream: list[Any]) -> None:
    framing, frames, expected, last_id = SSE(), [], [], ""
    for number, item in enumerate(stream, 1):
        last_id = f"epoch-{number}"
        id = last_id.encode()
        if isinstance(item, dict):
            json_bytes = encode(item)
            frames.append(framing.event(id, json_bytes))
            expected.append(Dispatched("message", json_bytes.decode(), last_id))
        else:
            message = control(item, id)
            is_keepalive = item[0] == "keepalive"
            frames.append(framing.keepalive(id) if is_keepalive else framing.control(id, message))
            expected.append(Dispatched(message.type, message.json.decode(), last_id))
    read = EventSource(b"".join(frames))
    assert read.dispatched == expected
    assert read.last_event_id == last_id
    # Each frame is complete by itself: a stream may begin and end with any of them.
    assert [message for frame in frames for message in EventSource(frame).dispatched] == expected


@pytest.mark.slow
@DRAWN
@given(STREAMS)
def test_every_stream_is_read_by_httpx_sse_as_it_was_written(stream: list[Any]) -> None:
    framing = SSE()
    content = b"".join(
        framing.event(b"e-1", encode(item))
        if isinstance(item, dict)
        else framing.keepalive(b"e-1")
        if item[0] == "keepalive"
        else framing.control(b"e-1", control(item, b"e-1"))
        for item in stream
    )
    response = httpx.Response(200, headers={"content-type": SSE.media_type}, content=content)
    messages = list(httpx_sse.EventSource(response).iter_sse())
    assert all(isinstance(message.json(), dict) for message in messages)
    assert [message.event for message in messages] == [
        "message" if isinstance(item, dict) else control(item, b"e-1").type for item in stream
    ]
    given_events = [item for item in stream if isinstance(item, dict)]
    assert [json.loads(message.data) for message in messages if message.event == "message"] == given_events


@pytest.mark.slow
@DRAWN
@given(STREAMS)
def test_every_message_is_one_line_of_ndjson(stream: list[Any]) -> None:
    framing = NDJSON()
    for number, item in enumerate(stream, 1):
        id = b"epoch-%d" % number
        if isinstance(item, dict):
            line, expected = framing.event(id, encode(item)), item
        elif item[0] == "keepalive":
            line, expected = framing.keepalive(id), {"type": "gateway-bookmark", "id": id.decode()}
        else:
            message = control(item, id)
            line, expected = framing.control(id, message), json.loads(message.json)
            assert expected["type"] == message.type == f"gateway-{item[0]}"
            assert expected["id"] == id.decode()
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert b"\r" not in line
        assert json.loads(line) == expected


def test_an_event_is_the_same_json_in_both_framings() -> None:
    json_bytes = encode({"type": "task-failed", "traceback": 'a\n  "b"\r\n\u2028'})
    assert EventSource(SSE().event(b"e-1", json_bytes)).dispatched[0].data.encode() == json_bytes
    assert NDJSON().event(b"e-1", json_bytes) == json_bytes + b"\n"


def test_control_messages_have_the_documented_fields() -> None:
    id = b"epoch-12"
    messages = [
        open_message(id, "reset"),
        gap_message(id, "slow", None),
        gap_message(id, "broker", 3),
        close_message(id, "ready"),
        close_message(id, "drain", 700),
        bookmark_message(id),
    ]
    assert [json.loads(message.json) for message in messages] == [
        {"type": "gateway-open", "id": "epoch-12", "resume": "reset"},
        {"type": "gateway-gap", "id": "epoch-12", "reason": "slow", "lost": None},
        {"type": "gateway-gap", "id": "epoch-12", "reason": "broker", "lost": 3},
        {"type": "gateway-close", "id": "epoch-12", "reason": "ready"},
        {"type": "gateway-close", "id": "epoch-12", "reason": "drain", "retry_ms": 700},
        {"type": "gateway-bookmark", "id": "epoch-12"},
    ]


def unchunked(stream: bytes) -> bytes:
    """Return the content of HTTP/1.1's chunked coding (RFC 9112 section 7.1), the last chunk included."""
    data = b""
    while True:
        size, _, stream = stream.partition(b"\r\n")
        length = int(size, 16)
        data, end, stream = data + stream[:length], stream[length : length + 2], stream[length + 2 :]
        assert end == b"\r\n"
        if not length:
            assert stream == b""
            return data


@pytest.mark.slow
@DRAWN
@given(st.sampled_from(["sse", "ndjson"]), st.lists(st.lists(EVENTS, min_size=1, max_size=3), max_size=3))
def test_the_chunked_framings_write_the_same_stream_in_chunks(format: str, batches: list[list[Any]]) -> None:
    def stream(framing: SSE | NDJSON) -> bytes:
        return b"".join(
            framing.batch([framing.event(b"e-1", encode(item)) for item in batch]) for batch in batches
        )

    assert unchunked(stream(CHUNKED_FORMATS[format]) + LAST_CHUNK) == stream(FORMATS[format])


@pytest.mark.parametrize("case", WRITTEN)
def test_the_frames_of_the_table_are_the_same_in_chunks(case: dict[str, Any]) -> None:
    for format, framing in FORMATS.items():
        direct = CHUNKED_FORMATS[format]
        chunked = direct.batch([written(direct, frame) for frame in case["frames"]])
        assert unchunked(chunked + LAST_CHUNK) == b"".join(
            written(framing, frame) for frame in case["frames"]
        )
        assert direct.media_type == framing.media_type


def text_messages(stream: bytes) -> list[bytes]:
    """Return a server's WebSocket messages (RFC 6455 section 5.2): each one final text frame, not masked."""
    messages = []
    while stream:
        assert stream[0] == 0x81, "FIN, no extension, text"
        size, stream = stream[1], stream[2:]
        assert size < 128, "a server does not mask"
        for marker, width, least in ((126, 2, 126), (127, 8, 1 << 16)):
            if size == marker:
                size, stream = int.from_bytes(stream[:width]), stream[width:]
                assert size >= least, "the shortest form of a length has to be used"
                break
        assert len(stream) >= size
        messages.append(stream[:size])
        stream = stream[size:]
    return messages


@pytest.mark.slow
@DRAWN
@given(STREAMS)
def test_every_message_is_one_text_message_of_a_websocket(stream: list[Any]) -> None:
    frames, expected = [], []
    for item in stream:
        if isinstance(item, dict):
            expected.append(encode(item))
            frames.append(WEBSOCKET.event(b"e-1", expected[-1]))
        else:
            message = control(item, b"e-1")
            expected.append(message.json)
            is_keepalive = item[0] == "keepalive"
            frames.append(WEBSOCKET.keepalive(b"e-1") if is_keepalive else WEBSOCKET.control(b"e-1", message))
    assert text_messages(WEBSOCKET.batch(frames)) == expected


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65_535, 65_536, 100_000])
def test_a_text_message_of_any_length_is_read_whole(size: int) -> None:
    assert text_messages(WEBSOCKET.event(b"e-1", b"x" * size) * 2) == [b"x" * size] * 2


def test_the_framings_are_found_by_format_and_have_their_media_types() -> None:
    assert {name: framing.media_type for name, framing in FORMATS.items()} == {
        "sse": "text/event-stream",
        "ndjson": "application/x-ndjson",
    }
