"""Recordings as files: what is written, read and played, also from files that are cut or damaged."""

import gzip
import json
import math
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from celery_gateway import __version__
from celery_gateway.broker.recording_source import RecordingSource, recording_url
from celery_gateway.broker.urls import brokers
from celery_gateway.errors import GatewayError, RecordingError, SourceError
from celery_gateway.events.event import rfc3339
from celery_gateway.events.message import Message
from celery_gateway.events.normalize import normalize
from celery_gateway.recording import compression, recording_file
from celery_gateway.recording.own_fields import JOINED_FIELDS, for_broker, for_gateway, is_of_gateway
from celery_gateway.recording.playback import Playback, Step
from celery_gateway.recording.recording_file import RecordingReader, RecordingWriter, new_header
from celery_gateway.state.task_table import TaskTable

pytestmark = pytest.mark.unit

START = 1_796_000_000.0
ENDINGS = ("ndjson.zst", "ndjson.gz", "ndjson")
Event = dict[str, Any]


def recorded(seconds: float, type: str = "task-started", **fields: Any) -> Event:
    """An event as a gateway sends it, so many seconds after `START`."""
    stamp = START + seconds
    return {"id": f"x-{seconds}", "type": type, "timestamp": stamp, "time": rfc3339(stamp), **fields}


def written(path: Path, *lines: Event | bytes, header: dict[str, Any] | None = None) -> Path:
    """A recording with these lines, which begins at `START`."""
    writer = RecordingWriter(path.open("wb"), path.name)
    made = new_header(__version__, {}, None, ())._replace(recorded_at=str(rfc3339(START)))
    writer.write_header(made._replace(**header or {}))
    for line in lines:
        writer.write(line if isinstance(line, bytes) else json.dumps(line).encode())
    writer.close()
    return path


def played(path: Path, started_at: float = START, **options: Any) -> tuple[list[Step], Playback]:
    playback = Playback(path, **options)
    return list(playback.steps(started_at)), playback


# ---- the file


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_was_flushed_can_be_read_from_a_file_that_is_cut_anywhere(ending: str, tmp_path: Path) -> None:
    path, now = tmp_path / f"whole.{ending}", 0.0
    writer = RecordingWriter(path.open("wb"), path.name, lambda: now)
    writer.write_header(new_header(__version__, {"name": ["shop.*"], "type": ()}, "10m", ("eu",)))
    sizes = {0: path.stat().st_size}
    for number in range(1, 31):
        writer.write(b'{"type":"task-sent","uuid":"%d"}' % number)
        if number % 3 == 0:
            now += 4  # a frame ends with every third flush
            writer.flush()
            assert path.stat().st_size == writer.bytes_written
            sizes[number] = path.stat().st_size
    writer.close()
    whole = list(RecordingReader(path).lines())
    assert len(whole) == 30
    assert RecordingReader(path).header == recording_file.Header(
        1, __version__, RecordingReader(path).header.recorded_at, {"name": ["shop.*"]}, "10m", ("eu",)
    )
    data = path.read_bytes()
    cut = tmp_path / "cut"  # compression is detected by the content
    for size in (*range(sizes[0], len(data), 7), *sizes.values()):
        cut.write_bytes(data[:size])
        reader = RecordingReader(cut)
        found = list(reader.lines())
        flushed = max(number for number, flushed_size in sizes.items() if flushed_size <= size)
        assert found == whole[: len(found)] and len(found) >= flushed, size
        assert reader.problem is not None or size in sizes.values() or len(found) == 30 or ending == "ndjson"


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_damaged_file_is_read_up_to_the_damage(ending: str, tmp_path: Path) -> None:
    lines = [recorded(number, uuid=random.randbytes(20).hex()) for number in range(2_000)]
    path = written(tmp_path / f"x.{ending}", *lines)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = os.urandom(200).replace(b"\n", b"x")
    path.write_bytes(data)
    steps, playback = played(path)
    assert 0 <= len(steps) < 2_000
    assert playback.skipped >= 1 if ending == "ndjson" else "damaged" in str(playback.problem)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not a recording"),
        (b"hello\n", "is not a recording"),
        (b'{"type":"gateway-open","id":"a-1"}\n', "is not a recording"),
        (b'{"type":"gateway-recording","format":"1"}\n', "is not a recording"),
        (b"[" * 100_000 + b"\n", "is not a recording"),
        (
            b'{"type":"gateway-recording","format":2,"celery_gateway":"9.0"}\n',
            "has format 2 (written by .* 9.0)",
        ),
        (b'{"type":"gateway-recording","form', "ends in the middle of a line, before its first line"),
        (b"\x28\xb5\x2f\xfd", "ends in the middle of its compressed data"),
        (gzip.compress(b"x", mtime=0)[:8], "ends in the middle of its compressed data"),
    ],
)
def test_what_is_no_recording_is_refused_with_the_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(RecordingError, match=reason.replace("(", r"\(").replace(")", r"\)")):
        Playback(tmp_path / "x")
    with pytest.raises(RecordingError, match="No such file"):
        Playback(tmp_path / "missing")


def test_broken_lines_are_skipped_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_file, "MAX_LINE_BYTES", 300 << 10)
    broken = [
        b"{",
        b"\xff\xfe",
        b"[1]",
        b"{}",
        b'{"type":7}',
        b"[" * 5_000,
        b'{"type":"long","x":"%b"}' % (b"x" * (2 << 20)),
    ]
    path = written(
        tmp_path / "x.zst", recorded(0, uuid="a"), *broken, b"", b"  ", recorded(1, uuid="b"), b'{"type":"a"}'
    )
    steps, playback = played(path)
    assert [step.event and step.event.get("uuid") for step in steps] == ["a", "b", None]
    assert (playback.events, playback.skipped, playback.problem) == (3, len(broken), None)


def test_without_zstd_gzip_works_and_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "x.zst", recorded(0))

    def missing() -> Any:
        raise RecordingError("zstd is not installed: run pip install backports.zstd")

    monkeypatch.setattr(compression, "zstd_module", missing)
    assert not compression.has_zstd()
    for call in (lambda: written(tmp_path / "y.zst"), lambda: played(path)):
        with pytest.raises(RecordingError, match="pip install"):
            call()
    assert len(played(written(tmp_path / "y.gz", recorded(0)))[0]) == 1


# ---- the times


def test_the_pace_is_that_of_the_recording_and_times_are_moved_to_now(tmp_path: Path) -> None:
    eta = "2026-11-30T04:00:00+00:00"
    path = written(
        tmp_path / "x.gz", recorded(5), recorded(8, eta=eta), recorded(7), recorded(12, expires="never")
    )
    steps, _ = played(path, START + 1_000)
    assert [step.due for step in steps] == [0, 3, 3, 7]
    events = [step.event or {} for step in steps]
    assert [event["timestamp"] - START for event in events] == [1_000, 1_003, 1_002, 1_007]
    assert events[1]["eta"] == "2026-11-30T04:16:35+00:00" and events[3]["expires"] == "never"
    kept, _ = played(path, START + 1_000, keeps_times=True)
    assert [step.event and step.event["timestamp"] for step in kept] == [START + s for s in (5, 8, 7, 12)]


@pytest.mark.parametrize("speed", [10.0, 0.5, math.inf])
def test_at_any_speed_times_keep_their_distances_and_are_never_in_the_future(
    speed: float, tmp_path: Path
) -> None:
    path = written(tmp_path / "x.gz", *(recorded(second) for second in (0, 30, 60)))
    steps, _ = played(path, START + 1_000, speed=speed)
    assert [step.due for step in steps] == [0, 30 / speed, 60 / speed]
    ages = [START + 1_000 + step.due - (step.event or {})["timestamp"] for step in steps]
    assert min(ages) >= 0 and min(ages[0], ages[-1]) == pytest.approx(0, abs=1e-6)
    stamps = [(step.event or {})["timestamp"] for step in steps]
    assert [stamp - stamps[0] for stamp in stamps] == pytest.approx([0, 30, 60])


def test_an_event_that_was_late_does_not_set_the_pace(tmp_path: Path) -> None:
    lines = [recorded(-7_000, uuid="late"), recorded(1), recorded(2), {"type": "a-b", "time": "?"}]
    assert [step.due for step in played(written(tmp_path / "x", *lines))[0]] == [0, 0, 1, 1]
    # With --since the events of the past do.
    path = written(tmp_path / "y", *lines, header={"since": "earliest"})
    assert [step.due for step in played(path)[0]] == [0, 7_001, 7_002, 7_002]


def test_in_a_loop_tasks_have_new_ids_which_still_name_each_other(tmp_path: Path) -> None:
    path = written(tmp_path / "x", recorded(0, uuid="a", root_id="a"), recorded(5, uuid="b", root_id="a"))
    steps = Playback(path, is_looped=True).steps(START)
    first, second, third = ([next(steps), next(steps)] for _ in range(3))
    assert [step.due for step in (*first, *second, *third)] == [0, 5, 5, 10, 10, 15]
    ids = [[(step.event or {})["uuid"] for step in each] for each in (first, second, third)]
    assert ids[0] == ["a", "b"] and len({*ids[0], *ids[1], *ids[2]}) == 6
    assert [(step.event or {})["root_id"] for step in second] == [ids[1][0]] * 2
    assert [(step.event or {})["timestamp"] - START for step in second] == [5, 10]


def test_a_short_loop_does_not_spin(tmp_path: Path) -> None:
    steps = Playback(written(tmp_path / "x", recorded(0)), is_looped=True, speed=math.inf).steps(START)
    assert [next(steps).due for _ in range(3)] == [0, 1, 2]


def test_a_long_recording_is_played_in_constant_memory(tmp_path: Path) -> None:
    import tracemalloc

    path = written(
        tmp_path / "x.zst", *(recorded(n / 100, uuid=str(n), text="x" * 500) for n in range(10_000))
    )
    playback = Playback(path, speed=math.inf)
    tracemalloc.start()
    try:
        count = sum(1 for _ in playback.steps(START))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 10_000 and peak < 4 << 20, peak


# ---- the fields


def test_an_event_for_a_broker_is_the_event_that_was_sent() -> None:
    """Normalized and joined by the real stages; `task-received` and the custom event name the task."""
    about = {"name": "shop.pay", "root_id": "r", "parent_id": None}
    sent: list[Event] = [
        {"type": "task-sent", "uuid": "a", **about, "queue": "high", "exchange": "", "routing_key": "high"},
        {"type": "task-received", "uuid": "a", **about, "args": "()"},
        {"type": "task-started", "uuid": "a", "fields": {"own": 1}},
        {"type": "task-failed", "uuid": "a", "exception": "E()", "id": 5, "time": "noon", "fields": [1]},
        {"type": "worker-heartbeat", "freq": 2.0, "truncated": True},
        {"type": "task-started", "uuid": "nobody has named it"},
    ]
    table = TaskTable(max_tasks=10)
    joined: list[Event] = []
    for event in sent:
        stamped = {**event, "hostname": "w1@host", "timestamp": time.time()}
        (normal,) = normalize(Message(json.dumps(stamped).encode()), time.time()).events
        joined += table.join(normal, 0.0)
    joined += table.release(5.0)
    assert len(joined) == len(sent)
    for before, after in zip(sent, joined, strict=True):
        assert set(JOINED_FIELDS) <= after.keys() or "uuid" not in after
        own = for_broker(for_gateway({**after, "id": "x-1", "truncated": ["args"]}))
        del own["hostname"], own["timestamp"]
        assert own == before


def test_custom_events_keep_what_may_be_their_own() -> None:
    event = {"type": "task-progress", "uuid": "a", "name": "shop.pay", "root_id": None, "state": "STARTED"}
    assert for_broker(dict(event)) == {k: v for k, v in event.items() if v is not None}


def test_messages_of_the_gateway_are_not_played_but_gaps_are(tmp_path: Path) -> None:
    lost = recorded(1, "task-lost", source="gateway", uuid="a")
    assert is_of_gateway(lost) and not is_of_gateway({**lost, "source": "mine"})
    gap = {"type": "gateway-gap", "reason": "broker", "lost": None, "id": "x-1"}
    steps, playback = played(written(tmp_path / "x", recorded(0), gap, lost, {"type": "gateway-status"}))
    assert [step.event is None for step in steps] == [False, True]
    assert (playback.events, playback.skipped) == (1, 0)


def test_each_broker_of_a_recording_has_its_own_events(tmp_path: Path) -> None:
    lines = [recorded(n, cluster=cluster) for n, cluster in enumerate(("eu", "us", "eu"))]
    path = written(tmp_path / "x", *lines, header={"clusters": ("eu", "us")})
    assert [step.due for step in played(path, cluster="eu")[0]] == [0, 2]
    assert [step.due for step in played(path, cluster="us")[0]] == [1]
    steps, _ = played(path)
    assert len(steps) == 3 and not any("cluster" in (step.event or {}) for step in steps)
    # A recording without names can be played under any, and keeps an own field of this name.
    steps, _ = played(written(tmp_path / "y", recorded(0, cluster="own")), cluster="eu")
    assert [(step.event or {})["cluster"] for step in steps] == ["own"]


# ---- the URL


def test_a_recording_is_a_broker_by_its_url(tmp_path: Path) -> None:
    path = written(tmp_path / "a b,c;amqp:@x#?%41.zst", recorded(0))
    url = recording_url(path, speed=2.5, is_looped=True)
    (broker,) = brokers(url)
    assert broker.urls == (url,)
    RecordingSource(broker.urls)
    (named,) = brokers([f"eu={url}"])
    assert (named.name, named.urls) == ("eu", (url,))


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ("?speed=0", "a number above 0"),
        ("?speed=nan", "a number above 0"),
        ("?loop=yes", "allowed values are 0, 1"),
        ("?pace=1", "the parameters are"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(ending: str, reason: str, tmp_path: Path) -> None:
    path = written(tmp_path / "x", recorded(0))
    with pytest.raises(SourceError, match=reason):
        RecordingSource([f"recording://{path}{ending}"])
    with pytest.raises(SourceError, match="absolute path"):
        RecordingSource(["recording://x.zst"])
    with pytest.raises(GatewayError, match="No such file"):
        RecordingSource([f"recording://{path}.missing"])
