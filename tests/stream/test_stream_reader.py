"""The phases of a stream, without an event loop: what each call returns, and the phase after it."""

import json
from typing import Any

import pytest

from celery_gateway.events.filter import Filter
from celery_gateway.events.filter_parser import parse
from celery_gateway.events.matcher import Matcher
from celery_gateway.stream.cohort import Cohort
from celery_gateway.stream.flushed import Flushed
from celery_gateway.stream.framing import FORMATS
from celery_gateway.stream.history import Entry, History
from celery_gateway.stream.initial_snapshot import NO_RESUME, SnapshotPage
from celery_gateway.stream.limits import Limits
from celery_gateway.stream.messages import CloseReason
from celery_gateway.stream.stream_reader import Phase, StreamReader

pytestmark = pytest.mark.unit

FRAMING = FORMATS["ndjson"]


class Log:
    """A history, and the position up to which it was flushed."""

    def __init__(self, entries: int) -> None:
        self.history = History(max_bytes=1 << 30, epoch="e")
        self.flushed_position = Flushed()
        self.append(entries)

    def append(self, entries: int) -> None:
        for _ in range(entries):
            id = self.history.id_of(self.history.position + 1)
            self.history.append(Entry(id, (None,) * 10, None, b'{"type":"event","id":"%b"}' % id))
        self.flushed_position.position = self.history.position

    @property
    def flushed(self) -> int:
        return self.flushed_position.position

    def cohort(self, filter: Matcher | None = None) -> Cohort:
        cost = Limits().filters.reserve()
        return Cohort(self.history, filter or Filter(), FRAMING, self.flushed_position, cost)

    def reader(
        self, position: int = 0, snapshot: "Pages | None" = None, *, is_resumed: bool = False
    ) -> StreamReader:
        return StreamReader(self.cohort(), position, snapshot, is_resumed=is_resumed)


class Pages:
    """An initial snapshot of given pages, of which each second read returns none."""

    def __init__(self, *pages: SnapshotPage) -> None:
        self.read_count = 0
        self.filters: list[Matcher] = []
        self.is_closed = False
        self._pages = list(pages)

    def read(self) -> SnapshotPage | None:
        self.read_count += 1
        return self._pages.pop(0) if self.read_count % 2 == 0 else None

    def refilter(self, filter: Matcher) -> None:
        self.filters.append(filter)

    def close(self) -> None:
        self.is_closed = True


def texts(chunk: bytes) -> list[str]:
    """Return the messages of a chunk: the position of an event, the type or the text of others."""
    return [line if line[0] != "{" else _text(json.loads(line)) for line in chunk.decode().splitlines()]


def _text(message: dict[str, Any]) -> str:
    return str(message["id"]).removeprefix("e-") if message["type"] == "event" else str(message["type"])


def read_all(reader: StreamReader) -> list[str]:
    found = []
    while reader.has_more:
        found += texts(reader.read())
    return found


def test_a_stream_that_has_read_everything_is_live_until_it_lags() -> None:
    log = Log(3)
    reader = log.reader(1)
    assert (reader.phase, reader.backlog, reader.position) == (Phase.LAGGING, 2, 1)
    assert texts(reader.read()) == ["2", "3"]
    assert (reader.phase, reader.backlog, reader.read()) == (Phase.LIVE, 0, b"")
    log.append(2)
    assert (reader.phase, reader.position) == (Phase.LIVE, 5), "its cohort has sent these entries"
    reader.lag()
    log.append(1)
    assert (reader.phase, read_all(reader)) == (Phase.LAGGING, ["6"])


def test_the_initial_snapshot_of_a_new_stream_comes_first() -> None:
    log = Log(3)
    pages = Pages(SnapshotPage(b"page 1\n", None), SnapshotPage(b"page 2\n", 2))
    reader = log.reader(0, pages)
    assert reader.id.endswith(NO_RESUME)
    assert reader.backlog > log.flushed
    assert read_all(reader) == ["page 1", "page 2", "3"]
    assert (reader.id, pages.is_closed) == (b"e-3", True)


def test_the_initial_snapshot_of_a_resumed_stream_comes_among_the_entries() -> None:
    log = Log(4)
    pages = Pages(SnapshotPage(b"page 1\n", None), SnapshotPage(b"page 2\n", 3))
    reader = log.reader(1, pages, is_resumed=True)
    assert reader.id == b"e-1"
    assert read_all(reader) == ["page 1", "2", "3", "page 2", "4"]


def test_a_closing_stream_gets_the_rest_and_then_the_close_message() -> None:
    log = Log(2)
    reader = log.reader()
    reader.end("drain", None)
    assert (reader.phase, reader.is_close_due) == (Phase.CLOSING, False)
    assert read_all(reader) == ["1", "2", "gateway-close"]
    assert (reader.phase, reader.read(), reader.read_close()) == (Phase.ENDED, b"", b"")


@pytest.mark.parametrize(("reason", "rest"), [("limit", []), ("ready", ["1", "2"])])
def test_only_the_reason_limit_skips_the_rest(reason: CloseReason, rest: list[str]) -> None:
    reader = Log(2).reader()
    reader.end(reason, {"known": 1})
    assert read_all(reader) == [*rest, "gateway-close"]


def test_a_stream_that_is_cut_off_gets_the_close_message_with_the_id_to_resume_from() -> None:
    log = Log(2)
    reader = log.reader(1)
    assert reader.read_close() == b"", "it was not ended"
    reader.end("slow", None)
    message = json.loads(reader.read_close())
    assert (message["reason"], message["id"]) == ("slow", "e-1")
    assert reader.phase is Phase.ENDED


def test_a_live_stream_that_ends_has_only_its_close_message_left() -> None:
    reader = Log(1).reader(1)
    reader.read()
    assert reader.phase is Phase.LIVE
    reader.end("drain", None)
    assert reader.is_close_due
    assert read_all(reader) == ["gateway-close"]


def test_a_stream_moves_to_another_cohort_at_its_position() -> None:
    log = Log(2)
    pages = Pages(SnapshotPage(b"page\n", 0))
    reader = log.reader(0, pages)
    none = log.cohort(parse({"type": ["none"]}))
    reader.move_to(none)
    assert reader.cohort is none
    assert pages.filters == [none.filter]
    assert read_all(reader) == ["page"]


def test_a_closed_stream_releases_its_initial_snapshot() -> None:
    pages = Pages(SnapshotPage(b"page\n", 0))
    reader = Log(1).reader(0, pages)
    reader.close()
    reader.close()
    assert (reader.phase, pages.is_closed, reader.read()) == (Phase.ENDED, True, b"")
