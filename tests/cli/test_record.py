"""`celery-gateway record` and `replay`, with a real gateway with tokens, and a real Redis."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from celery_gateway.recording.compression import decoded_chunks
from celery_gateway.recording.recording_file import RecordingReader
from tests.support.access_file import AccessFile
from tests.support.command import QUIET, call
from tests.support.gateway_process import ROOT, GatewayProcess
from tests.support.publisher import task_event, walk
from tests.support.rabbitmq import Process, free_port, wait_for
from tests.support.redis_server import RedisServer, envelope, redis_server
from tests.support.thorough import variants

Event = dict[str, Any]
MADE_BY_GATEWAY = {"id", "time", "timestamp"}


class Lab(NamedTuple):
    """A gateway that consumes database 0 of a Redis."""

    redis: RedisServer
    gateway: GatewayProcess
    token: str
    folder: Path

    def send(self, *events: Event) -> None:
        with self.redis.client() as client:
            for event in events:
                client.publish(f"/0.celeryev/{event['type'].replace('-', '.')}", envelope(event))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "celery_gateway", *arguments]

    def record(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command("record", "--url", self.gateway.url, *arguments),
            env=QUIET | {"GATEWAY_TOKEN": self.token},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def start(self, *arguments: str) -> Process:
        log = self.folder / f"{uuid.uuid4().hex[:8]}.log"
        environment = QUIET | {"GATEWAY_TOKEN": self.token}
        return Process(self.command(*arguments), log=log, env=environment, cwd=self.folder)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("record")
    access = AccessFile(folder)
    token = access.create("recorder", ["events", "state"])
    with redis_server(folder) as redis:
        gateway = GatewayProcess(redis.url, folder, options=("--auth", str(access.path)))
        try:
            gateway.start()
            yield Lab(redis, gateway, token, folder)
        finally:
            gateway.stop()


class Sample(NamedTuple):
    """Events that were sent, and their recording."""

    path: Path
    sent: list[Event]
    lines: list[Event]


@pytest.fixture(scope="module")
def sample(lab: Lab) -> Sample:
    root = str(uuid.uuid4())
    sent = [
        *walk("shop.order", uid=root),
        *walk("shop.pay", root_id=root),
        task_event("task-progress", root, name="shop.order", root_id=root, current=3, id="own", time="noon"),
        task_event("worker-heartbeat", "", freq=2.0, active=0, processed=5),
    ]
    del sent[-1]["uuid"]
    start = time.time()
    for number, event in enumerate(sent):
        event["timestamp"] = start - 3 + number / 10  # 0.7 s in all
    lab.send(*sent)
    done = lab.record("sample.ndjson.zst", "--since", "earliest", "--events", str(len(sent)), "--for", "30")
    assert done.returncode == 0, done.stderr
    assert f"--events: {len(sent)} events are recorded: recorded {len(sent)} events" in done.stderr
    path = lab.folder / "sample.ndjson.zst"
    lines = [json.loads(line or b"") for line in RecordingReader(path).lines()]
    return Sample(path, sent, lines)


@contextmanager
def replaying(lab: Lab, *arguments: str) -> Iterator[str]:
    """Within the block a recording is served; the URL."""
    url = f"http://127.0.0.1:{free_port()}"
    process = lab.start("replay", "--port", url.rpartition(":")[2], *arguments)
    try:
        process.wait_until(lambda: f"Open    {url}/" in process.tail(), 40)
        yield url
    finally:
        process.stop()


def events(url: str, count: int) -> list[Event]:
    """The first events of the gateway, so many."""
    found: list[Event] = []
    parameters = {"format": "ndjson", "since": "earliest"}
    with httpx.stream("GET", f"{url}/events", params=parameters, timeout=30) as response:
        for line in response.iter_lines():
            message = json.loads(line)
            assert message["type"] != "gateway-gap"
            if not message["type"].startswith("gateway-"):
                found.append(message)
            if len(found) == count:
                return found
    raise AssertionError(f"the stream has ended: {found}")


def has_ended(url: str) -> bool:
    """Whether the recording has ended that a gateway replays."""
    return "the recording has ended" in httpx.get(f"{url}/readyz").text


def own(event: Event) -> Event:
    return {name: value for name, value in event.items() if name not in MADE_BY_GATEWAY}


# ---- record


def test_a_recording_has_the_events_as_they_were_streamed_and_no_secret(lab: Lab, sample: Sample) -> None:
    assert [line["type"] for line in sample.lines] == [event["type"] for event in sample.sent]
    for line, event in zip(sample.lines, sample.sent, strict=True):
        shown = {k: v for k, v in event.items() if k not in ("id", "time")}
        assert line | shown == line and line["id"]
    header = RecordingReader(sample.path).header
    assert (header.format, header.filter, header.since, header.clusters) == (1, {}, "earliest", ())
    text = repr(header) + json.dumps(sample.lines)
    assert lab.token not in text and "Bearer" not in text and str(lab.gateway.port) not in text
    assert sample.path.stat().st_mode & 0o777 == 0o600


def test_filters_and_standard_output(lab: Lab, sample: Sample) -> None:
    done = lab.record("-", "--since", "earliest", "--name", "shop.pay", "--events", "3", "--for", "30")
    header, *lines = map(json.loads, done.stdout.splitlines())
    assert header["type"] == "gateway-recording" and header["filter"] == {"name": ["shop.pay"]}
    assert {line["name"] for line in lines} == {"shop.pay"} and len(lines) == 3
    closed = subprocess.run(
        f"{' '.join(lab.command('record', '-', '--url', lab.gateway.url))} --since earliest | head -1",
        shell=True,
        env=QUIET | {"GATEWAY_TOKEN": lab.token},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "gateway-recording" in closed.stdout and "the reader has closed the output" in closed.stderr


def test_the_time_of_for_ends_a_recording_of_nothing(lab: Lab) -> None:
    at_once = lab.record("none.ndjson.gz", "--type", "no-such", "--for", "0.0001")  # before it is connected
    assert at_once.returncode == 0 and "--for: 0.0001 s have passed" in at_once.stderr, at_once.stderr
    done = lab.record("nothing.ndjson.gz", "--type", "no-such", "--for", "2")
    assert done.returncode == 0 and "--for: 2 s have passed: recorded 0 events" in done.stderr, done.stderr
    reader = RecordingReader(lab.folder / "nothing.ndjson.gz")
    assert list(reader.lines()) == [] and reader.problem is None


def test_a_file_is_overwritten_only_by_force(lab: Lab, sample: Sample) -> None:
    before = sample.path.read_bytes()
    done = lab.record(sample.path.name, "--for", "1")
    assert done.returncode == 2 and "--force" in done.stderr
    assert sample.path.read_bytes() == before
    (lab.folder / "old").write_text("old")
    done = lab.record("old", "--force", "--since", "earliest", "--events", "1")
    assert done.returncode == 0 and "gateway-recording" in (lab.folder / "old").read_text()


def test_errors_leave_no_file(lab: Lab) -> None:
    for arguments, code, text in (
        (["x.zst", "--token", "wrong"], 1, "--token-file or GATEWAY_TOKEN"),
        (["x.zst", "--since", "yesterday"], 2, "since"),
        (["x.zst", "--url", "http://127.0.0.1:1"], 1, "cannot connect to"),
        (["missing/x.zst"], 1, "a folder that does not exist"),
    ):
        done = lab.record(*arguments)
        assert done.returncode == code and text in done.stderr, done.stderr
    assert not (lab.folder / "x.zst").exists()
    full = lab.record("/dev/full", "--force", "--since", "earliest", "--for", "30")
    assert full.returncode == 1 and "cannot write /dev/full: No space left" in full.stderr


@pytest.mark.parametrize("number", variants(2, [signal.SIGINT, signal.SIGKILL, signal.SIGTERM]))
def test_a_recording_that_is_stopped_or_killed_has_what_was_received(
    number: signal.Signals, lab: Lab, sample: Sample
) -> None:
    path = lab.folder / f"{number.name}.ndjson.zst"
    process = lab.start("record", "--url", lab.gateway.url, path.name, "--since", "earliest")
    try:
        process.wait_until(path.exists, 40)
        extra = task_event("task-extra", f"{number.name}")
        lab.send(extra)

        def has_extra() -> bool:
            return any(b'"task-extra"' in (line or b"") for line in RecordingReader(path).lines())

        process.wait_until(has_extra, 30)  # within about a second, although the stream is quiet then
        process.signal(number)
        assert wait_for(lambda: process.returncode is not None, 30)
    finally:
        process.kill()
    reader = RecordingReader(path)
    count = len(list(reader.lines()))
    if number != signal.SIGKILL:
        assert process.returncode == 0 and reader.problem is None
        assert f"interrupted: recorded {count} events" in process.tail()
    assert count > len(sample.sent)


# ---- replay


def test_a_replay_is_a_gateway_with_the_same_events_and_its_dashboard(lab: Lab, sample: Sample) -> None:
    with replaying(lab, sample.path.name) as url:
        begin = time.time()
        page = httpx.get(f"{url}/", headers={"Accept": "text/html"})
        assert page.status_code == 200 and "<html" in page.text
        found = events(url, len(sample.lines))
        assert wait_for(lambda: has_ended(url), 30)
        (worker,) = httpx.get(f"{url}/workers").json()["workers"]
        task = httpx.get(f"{url}/tasks/{sample.sent[0]['uuid']}").json()
        assert worker["hostname"] == "w1@host" and task["state"] == "SUCCESS"
    assert [own(event) for event in found] == [own(line) for line in sample.lines]
    moved = [event["timestamp"] - line["timestamp"] for event, line in zip(found, sample.lines, strict=True)]
    assert max(moved) - min(moved) < 1e-3
    assert abs(begin - found[0]["timestamp"]) < 30


def test_a_faster_replay_with_the_old_times_of_a_file_that_is_cut(lab: Lab, sample: Sample) -> None:
    cut = lab.folder / "cut.ndjson"
    with decoded_chunks(sample.path) as chunks:
        lines = b"".join(chunks).splitlines(keepends=True)
    cut.write_bytes(b"".join([*lines[:4], b"{broken\n", *lines[4:]])[:-20])
    left = sample.lines[:-1]
    with replaying(lab, cut.name, "--speed", "max", "--keep-times") as url:
        found = events(url, len(left))
        assert wait_for(lambda: has_ended(url), 30)
    assert found == [{**line, "id": event["id"]} for line, event in zip(left, found, strict=True)]
    logs = [log.read_text() for log in lab.folder.glob("*.log")]
    assert any(f"{len(left)} events; 1 broken lines skipped; the file is incomplete" in log for log in logs)


def test_a_replay_in_a_loop_has_the_tasks_of_each_pass(lab: Lab, sample: Sample) -> None:
    count = len(sample.lines)
    with replaying(lab, sample.path.name, "--loop", "--speed", "max") as url:
        found = events(url, 2 * count)
    assert [event["type"] for event in found[count : 2 * count]] == [line["type"] for line in sample.lines]
    first, second = ({e["uuid"] for e in found[at : at + count] if "uuid" in e} for at in (0, count))
    assert len(first) == len(second) == 2 and not first & second


def test_a_recording_of_several_brokers_is_replayed_as_several(lab: Lab, sample: Sample) -> None:
    path = lab.folder / "clusters.ndjson"
    header = {"type": "gateway-recording", "format": 1, "celery_gateway": "0.1.0", "clusters": ["eu", "us"]}
    lines = [{**line, "cluster": cluster} for line in sample.lines for cluster in ("eu", "us")]
    path.write_text("".join(json.dumps(line) + "\n" for line in [header, *lines]))
    with replaying(lab, path.name, "--speed", "max") as url:
        found = events(url, len(lines))
        workers = httpx.get(f"{url}/workers").json()["workers"]
    assert sorted(worker["cluster"] for worker in workers) == ["eu", "us"]
    for cluster in ("eu", "us"):
        of_one = [own(event) for event in found if event["cluster"] == cluster]
        assert of_one == [own(line) for line in lines if line["cluster"] == cluster]


def test_a_replay_to_a_broker_publishes_what_was_sent(lab: Lab, sample: Sample) -> None:
    with lab.redis.client() as client, client.pubsub() as subscription:
        subscription.psubscribe("/1.celeryev/*")
        assert (subscription.get_message(timeout=10) or {})["type"] == "psubscribe"
        target = lab.redis.url.removesuffix("/0") + "/1"
        done = subprocess.run(
            lab.command("replay", str(sample.path), "--to", target, "--speed", "max", "--keep-times"),
            env=QUIET, cwd=lab.folder, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0 and f"published {len(sample.sent)} events" in done.stderr, done.stderr
        published = []
        for event in sample.sent:
            message = subscription.get_message(timeout=30)
            assert message is not None
            assert message["channel"].decode() == f"/1.celeryev/{event['type'].replace('-', '.')}"
            enveloped = json.loads(message["data"])
            assert enveloped["headers"]["hostname"] == "w1@host"
            published.append(json.loads(base64.b64decode(enveloped["body"])))
    custom = published[6]
    assert (custom.pop("state"), custom.pop("attempt")) == ("SUCCESS", 1)  # they might be its own
    assert published == sample.sent


def test_errors_of_replay_name_the_problem(lab: Lab, sample: Sample) -> None:
    (lab.folder / "text").write_text("hello\n")
    for arguments, code, text in (
        (["text"], 1, "is not a recording"),
        (["missing"], 2, "does not exist"),
        (["sample.ndjson.zst", "--speed", "fast"], 2, "a speed is a number above 0"),
        (["sample.ndjson.zst", "--to", "redis://:secret@127.0.0.1:1/0"], 1, "nothing listens there"),
        (["sample.ndjson.zst", "--to", "memory://"], 1, "use RabbitMQ"),
        (["sample.ndjson.zst", "--to", "a=redis://h,redis://i"], 1, "one broker"),
        (["sample.ndjson.zst", "--host", "0.0.0.0"], 2, "serve --auth FILE --broker 'recording:///"),
    ):
        path = str(lab.folder / arguments[0])
        done = call("replay", path, *arguments[1:])
        assert done.returncode == code and re.search(text, done.stderr), (arguments, done.stderr)
        assert "secret" not in done.stderr and "Traceback" not in done.stderr
    assert os.listdir(lab.folder)
