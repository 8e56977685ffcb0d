"""Clients of `GET /events`: one reads NDJSON, one SSE, both in a thread, so that a test can wait for events.

A client is connected, and has its `gateway-open`, when it has been made; what is sent after that must arrive.
"""

import json
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Thread
from types import TracebackType
from typing import Any, ClassVar, Self

import httpx
from httpx_sse import EventSource, ServerSentEvent

from tests.support.wire import EventFields, Recording, Wire

JOINED = frozenset({"name", "root_id", "parent_id", "queue", "state", "attempt"})
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class EventStream(Recording):
    """What both have in common.

    `events` holds everything after `gateway-open` except bookmarks and `gateway-status`; `statuses` holds the
    latter.
    """

    query: ClassVar[dict[str, str]] = {}
    headers: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        url: str,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        timeout_seconds: float = 30,
    ) -> None:
        super().__init__()
        self.last_event_id: str | None = None
        self.statuses = Recording()
        self._client = httpx.Client(timeout=httpx.Timeout(timeout_seconds, read=None))
        request = self._client.build_request(
            "GET", f"{url}/events", params=self.query | (params or {}), headers=self.headers | (headers or {})
        )
        self.response = self._client.send(request, stream=True)
        if self.response.status_code != 200:
            self.response.read()
            self._client.close()
            raise AssertionError(f"{request.url}: {self.response.status_code} {self.response.text[:500]}")
        self._thread = Thread(target=self._run, daemon=True, name="stream")
        self._thread.start()
        try:
            self.opened = self.until(bool, timeout_seconds)[0]
            assert self.opened["type"] == "gateway-open", f"the first message is {self.opened}"
            with self._changed:
                del self._events[0]
        except BaseException:
            self.close()
            raise

    def closed(self, timeout_seconds: float = 30) -> bool:
        """Waits for the server to end the stream; False when it does not."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def close(self) -> None:
        # Closing a socket does not wake the thread that reads from it; shutting it down does.
        with suppress(OSError):
            self.response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _messages(self) -> Iterator[EventFields]:
        raise NotImplementedError

    def _run(self) -> None:
        reason = "the server ended the stream"
        try:
            for message in self._messages():
                self.last_event_id = message.get("id", self.last_event_id)
                if message["type"] == "gateway-status":
                    self.statuses.append(message)
                elif message["type"] != "gateway-bookmark":
                    self.append(message)
        except Exception as error:
            reason = f"the stream broke: {error!r}"
        self.end(reason)
        self.statuses.end(reason)


StreamFactory = Callable[..., EventStream]
"""The fixture `stream`."""


class NdjsonStream(EventStream):
    """One JSON object a line; `gateway-bookmark` only moves `last_event_id`."""

    query: ClassVar = {"format": "ndjson"}

    def _messages(self) -> Iterator[EventFields]:
        # Not response.iter_lines(), which would also split at U+2028 and its like inside a string.
        rest = b""
        for chunk in self.response.iter_bytes():
            *lines, rest = (rest + chunk).split(b"\n")
            yield from map(json.loads, lines)
        assert not rest, f"the stream ended within a line: {rest[:100]!r}"


class SseStream(EventStream):
    """An SSE client as httpx_sse reads it.

    `frames` holds what it read, with event and id, from `gateway-open` on; `gateway-status` is left out.
    """

    headers: ClassVar = {"Accept": "text/event-stream", "Cache-Control": "no-store"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.frames: list[ServerSentEvent] = []
        super().__init__(*args, **kwargs)

    def _messages(self) -> Iterator[EventFields]:
        for frame in EventSource(self.response).iter_sse():
            self.last_event_id = frame.id or self.last_event_id
            if frame.data:
                if frame.event != "gateway-status":
                    self.frames.append(frame)
                yield json.loads(frame.data)


def delivered(
    wire: Wire, client: EventStream, uuid: str, *types: str, timeout_seconds: float = 40
) -> list[EventFields]:
    """A task's events as the gateway gave them, found to be exactly those that Celery sent.

    Waits until at least the given types were on the wire. `task-sent` has to be one of them, although it is
    the first to happen: its sender may be the last to be heard.
    """
    sent = wire.until_types(uuid, *types, timeout_seconds=timeout_seconds)
    client.until(lambda events: sum(e.get("uuid") == uuid for e in events) >= len(sent), timeout_seconds)
    received = client.of(uuid)
    assert_delivered(received, sent)
    return received


def one(events: Sequence[EventFields], type: str) -> EventFields:
    """The only event of its type."""
    (event,) = (event for event in events if event["type"] == type)
    return event


def assert_delivered(received: Sequence[EventFields], sent: Sequence[EventFields]) -> None:
    """The gateway gave exactly the events sent, in their order: every field as it was, its own added."""
    assert [event["type"] for event in received] == [event["type"] for event in sent]
    for ours, theirs in zip(received, sent, strict=True):
        _assert_same(ours, theirs)
    ids = [event["id"] for event in received]
    assert len(set(ids)) == len(ids), f"an id came twice: {ids}"


def _assert_same(ours: EventFields, theirs: EventFields) -> None:
    context = f"sent {theirs}\nreceived {ours}"[:3000]
    # An event that brings an id, a time or a truncated of its own finds them again under "fields".
    moved: EventFields = {key: theirs[key] for key in ("id", "time", "truncated") if key in theirs}
    kept = {key: value for key, value in theirs.items() if key not in moved}
    always = {"id", "time"} | ({"fields"} if moved else set())
    # As JSON text, so that 1, 1.0 and true are not the same.
    assert _text({key: ours.get(key, "(missing)") for key in kept}) == _text(kept), context
    assert not moved or _text(ours["fields"]) == _text(moved), context
    added = ours.keys() - kept.keys()
    if theirs["type"].startswith("task-"):
        assert added == always | (JOINED - kept.keys()), context
    elif theirs["type"].startswith("worker-"):
        assert added == always, context
    else:
        assert always <= added <= always | JOINED, context
    assert isinstance(ours["id"], str) and ours["id"], context
    assert RFC3339.fullmatch(ours["time"]), context
    made = datetime.fromtimestamp(theirs["timestamp"], UTC)
    assert abs(datetime.fromisoformat(ours["time"]) - made) <= timedelta(microseconds=1), context


def _text(fields: EventFields) -> str:
    return json.dumps(fields, sort_keys=True)


def assert_states(
    events: Sequence[EventFields], *steps: tuple[str, str], late: Sequence[str] = ("task-sent",)
) -> None:
    """Each event's (type, state) is the step whose turn it is.

    Events of the types in `late` are from another process than the rest and may be overtaken on their way to
    the broker. One that was, or for which there is no step, has to leave the state as it is.
    """
    due, before = list(steps), None
    happened = [(event["type"], event["state"]) for event in events]
    for type, state in happened:
        turn = next((index for index, step in enumerate(due) if step[0] == type), None)
        if turn is not None and all(step[0] in late for step in due[:turn]):
            del due[:turn]
            assert due.pop(0) == (type, state), f"{happened}\nare not the steps\n{list(steps)}"
        else:
            assert type in late and before is not None, f"{happened}\nare not the steps\n{list(steps)}"
            assert state == before, f"the late {type} moved the state: {happened}"
        before = state
    assert not due, f"{happened}\nlacks {due}"
