"""Hostile bodies through a real broker (how many: tests/support/thorough.py), and good events between them.

They are published once; then each test looks at another thing that must hold: the gateway runs on, nothing
was unpickled, every message and every refusal is counted, every good event was delivered, and memory and
pauses stayed within bounds.
"""

import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import msgpack
import pytest

from celery_gateway.events.normalize import REFUSED_REASONS
from tests.events.test_normalize import BAD, MSGPACK, refuse_constant
from tests.support import hostile
from tests.support.gateway_process import GatewayProcess
from tests.support.hostile import EVENT, Body
from tests.support.rabbitmq import RabbitMQ, wait_for
from tests.support.raw_publisher import Properties, RawPublisher
from tests.support.stream_client import NdjsonStream
from tests.support.thorough import tries

pytestmark = pytest.mark.timeout(400)  # the first test waits for the flood

HOSTILE_BODIES = tries(60_000)
SEED = 20261121
GOOD_EVERY = 10
MAX_BATCH_MESSAGES, MAX_BATCH_BYTES = 1_000, 20 << 20
"""Two batches are under way at most: far from the limits of the gateway's queue (100,000 messages, 64 MiB),
at which the broker would drop messages."""
HISTORY_BYTES = 16 << 20
MAX_RESIDENT_BYTES = 400 << 20
"""At its peak. There may be at once: the program (60 MiB), the history (16 MiB), some ten thousand tasks
(20 MiB), two batches of bodies (40 MiB), and one event of 8 MiB: its body, values, encoding and frames, and
what waits of it in the streams' buffers."""
STATUSES = 1
"""The counter of events has this entry of the history, too: that the gateway consumes."""
MAX_ANSWER_SECONDS = 5.0
"""Generous, for busy machines: the costliest of the bodies takes half a second of CPU time."""


class Good:
    """The good events, each with its number, all by one host that nobody else names."""

    def __init__(self) -> None:
        self.host = f"good-{random.getrandbits(64):x}"
        self.sent = 0
        self._messages = 0

    def next(self) -> Body:
        """Alone, in a list between bad ones, in msgpack, or a step of a task that the first one names."""
        way, task = self._messages % 6, f"{self.host}-{self._messages // 6}"
        self._messages += 1
        if way == 0:
            return self._alone("task-received", uuid=task, name=self.host, root_id=task, parent_id=None)
        if way == 1:
            return self._alone("task-started", uuid=task)
        if way == 2:
            return self._alone("task-succeeded", uuid=task, result="None", runtime=0.1)
        if way == 3:
            packed = msgpack.packb(json.loads(self._event("shop-packed")))
            return Body(packed, Properties(MSGPACK, "binary"), (EVENT,))
        if way == 4:
            return self._alone("shop-paid")
        items, outcomes = [], []
        for name, reason in BETWEEN.items():
            items += [BAD[name], self._event("shop-listed")]
            outcomes += [reason, EVENT]
        return Body(b"[%b]" % b",".join(items), Properties(), tuple(outcomes))

    def _alone(self, type: str, **fields: Any) -> Body:
        return Body(self._event(type, **fields), Properties(), (EVENT,))

    def _event(self, type: str, **fields: Any) -> bytes:
        self.sent += 1
        about = {"type": type, "hostname": self.host, "number": self.sent, "timestamp": time.time()}
        return json.dumps(about | fields).encode()


BETWEEN = {
    "null": "not-an-object",
    "no type": "no-type",
    "a control message": "reserved-type",
    "gossip": "gossip",
    "70 levels": "too-deep",
}
"""Some of BAD, and why each is refused."""


class Everything(NdjsonStream):
    """A client without a filter: counts the lines; keeps those that are not JSON as the standard has it."""

    def __init__(self, url: str) -> None:
        self.count = 0
        self.gaps = 0
        self.wrong: list[str] = []
        super().__init__(url)

    def append(self, event: dict[str, Any]) -> None:
        self.gaps += event["type"] == "gateway-gap"
        self.count += not event["type"].startswith("gateway-")
        if event["type"] == "gateway-open":
            super().append(event)

    def _messages(self) -> Iterator[dict[str, Any]]:
        begun: list[bytes] = []  # of a line: one of 8 MiB comes in many chunks
        for chunk in self.response.iter_raw():
            first, *others = chunk.split(b"\n")
            begun.append(first)
            for following in others:
                line = b"".join(begun)
                begun = [following]
                try:
                    event = json.loads(line.decode(), parse_constant=refuse_constant)
                    assert isinstance(event["id"], str)
                    yield event
                except (ValueError, AssertionError, LookupError) as error:
                    self.wrong.append(f"{error!r}: {line[:200]!r}")


class Answers:
    """Asks for /healthz again and again; how long the slowest answer took."""

    def __init__(self, url: str) -> None:
        self.count = 0
        self.slowest_seconds = 0.0
        self.failed: list[str] = []
        self._url = url
        self._stopping = Event()
        self._thread = Thread(target=self._run, daemon=True, name="answers")
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(MAX_ANSWER_SECONDS * 4)

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=MAX_ANSWER_SECONDS * 3) as client:
            while not self._stopping.wait(0.05):
                started = time.monotonic()
                try:
                    client.get("/healthz").raise_for_status()
                    self.count += 1
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - started)


@dataclass
class Flood:
    """What was published, and what came of it.

    `metrics` are by name, labels included as they are written. Of the same moment are `counted`, how many
    events the stream without a filter had, and `lost`, the gateway's own: tasks whose workers are gone.
    """

    gateway: GatewayProcess
    good: Good
    everything: Everything
    answers: Answers
    marker: Path
    messages: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    unclear: Counter[str] = field(default_factory=Counter)
    of_host: list[dict[str, Any]] = field(default_factory=list)
    of_name: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    counted: int = 0
    lost: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed_on(self) -> float:
        """How many of the events published were not refused."""
        return self.outcomes.total() + self.unclear.total() - sum(map(self.refused, REFUSED_REASONS))

    def count(self, batch: list[Body]) -> None:
        self.messages += len(batch)
        for body in batch:
            (self.unclear if body.or_refused else self.outcomes).update(body.outcomes)

    def refused(self, reason: str) -> float:
        return self.metrics[f'celery_gateway_refused_total{{reason="{reason}"}}']


def bodies(drawn: list[Body], marker: Path) -> Iterator[Body]:
    """All the hostile ones, mixed, the big ones spread among them."""
    chance = random.Random(SEED)
    wrong = list(hostile.of_every_wrong_type())
    mixed = [*drawn, *wrong, *hostile.of_every_property(), *hostile.of_code(marker)]
    mixed += [*hostile.of_many_names(tries(10_000)), *hostile.of_odd_properties()]
    big = len(hostile.BIG) * len(hostile.BIG_SIZES)
    mixed += islice(hostile.recombined(chance, drawn + wrong), tries(15_000))
    mixed += islice(hostile.changed(chance, drawn + wrong), HOSTILE_BODIES - big - len(mixed))
    chance.shuffle(mixed)
    between = len(mixed) // big
    for number, body in enumerate(hostile.big()):
        yield from mixed[number * between : (number + 1) * between]
        yield body
    yield from mixed[big * between :]


def batches(hostile_bodies: Iterator[Body], good: Good) -> Iterator[list[Body]]:
    batch: list[Body] = []
    size_bytes = 0
    for number, body in enumerate(hostile_bodies):
        if size_bytes + len(body.data) > MAX_BATCH_BYTES or len(batch) >= MAX_BATCH_MESSAGES:
            yield batch
            batch, size_bytes = [], 0
        batch.append(body)
        size_bytes += len(body.data)
        if number % GOOD_EVERY == 0:
            batch.append(good.next())
    yield batch


def metrics(client: httpx.Client) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in client.get("/metrics").text.splitlines() if line[0] != "#"]
    return {name: float(value) for name, _, value in lines}


def wait_until_taken(client: httpx.Client, messages: int) -> None:
    """Return once the gateway has taken so many; sooner if it was away, for then it never will."""

    def is_over() -> bool:
        now = metrics(client)
        return now["celery_gateway_messages_total"] >= messages or now["celery_gateway_source_gaps_total"] > 0

    assert wait_for(is_over, 60), f"of {messages} messages not all were taken"


@pytest.fixture(scope="module")
def rabbitmq(own_rabbitmq: RabbitMQ) -> RabbitMQ:
    """Not the node of the other tests, which would wait behind the flood."""
    return own_rabbitmq


@pytest.fixture(scope="module")
def flood(broker: str, folder: Path) -> Iterator[Flood]:
    gateway = GatewayProcess(broker, folder, options=("--history-bytes", str(HISTORY_BYTES)))
    gateway.start()
    publisher = RawPublisher(broker)
    try:
        yield published(gateway, publisher, folder / "it-was-run")
    finally:
        publisher.close()
        gateway.stop()


def published(gateway: GatewayProcess, publisher: RawPublisher, marker: Path) -> Flood:
    good, drawn = Good(), hostile.drawn(1_000)
    answers = Answers(gateway.url)
    with (
        httpx.Client(base_url=gateway.url, timeout=60) as client,
        Everything(gateway.url) as everything,
        NdjsonStream(gateway.url, {"hostname": good.host}) as of_host,
        NdjsonStream(gateway.url, {"name": good.host}) as of_name,
        NdjsonStream(gateway.url, {"type": "task-lost"}) as lost,
    ):
        flood = Flood(gateway, good, everything, answers, marker)
        try:
            before = 0
            for batch in batches(bodies(drawn, marker), good):
                wait_until_taken(client, before)
                before = flood.messages
                publisher.send((body.data, body.properties) for body in batch)
                flood.count(batch)
            publisher.finish()
            wait_until_taken(client, flood.messages)
            # The last events to come are those that waited for what names their task.
            wait_for(lambda: metrics(client)["celery_gateway_events_waiting"] == 0, 10)

            def is_all_delivered() -> bool:
                flood.metrics = metrics(client)
                flood.counted = everything.count
                flood.lost = [event for event in lost.events if event.get("source") == "gateway"]
                total = flood.metrics["celery_gateway_events_total"] - STATUSES
                is_counted = flood.counted == total or everything.gaps > 0
                return is_counted and total == flood.passed_on + len(flood.lost)

            wait_for(is_all_delivered, 20)
            wait_for(lambda: len(of_host.events) >= good.sent, 20)
        finally:
            answers.stop()
        flood.of_host, flood.of_name = of_host.events, of_name.events
    return flood


def test_the_gateway_runs_on_and_was_never_away(flood: Flood) -> None:
    assert httpx.get(f"{flood.gateway.url}/readyz").status_code == 200
    assert flood.metrics["celery_gateway_source_gaps_total"] == 0
    log = flood.gateway.log.read_text()
    assert "Traceback" not in log
    assert not re.search(r" (ERROR|CRITICAL) |not consuming", log)
    assert "refused so far" in log


def test_nothing_was_unpickled_and_no_yaml_was_loaded(flood: Flood) -> None:
    assert not flood.marker.exists()


def test_every_message_is_counted(flood: Flood) -> None:
    assert flood.messages == HOSTILE_BODIES * (GOOD_EVERY + 1) // GOOD_EVERY
    assert flood.metrics["celery_gateway_messages_total"] == flood.messages


def test_every_refusal_is_counted_by_its_reason(flood: Flood) -> None:
    for reason in set(REFUSED_REASONS) - {"internal", "envelope"}:  # envelopes are Redis'
        sure = flood.outcomes[reason]
        unclear = flood.unclear.total() if reason == "content-type" else flood.unclear[reason]
        assert sure > 0, f"no body is refused as {reason}"
        assert sure <= flood.refused(reason) <= sure + unclear, reason


def test_everything_else_is_passed_on(flood: Flood) -> None:
    total = flood.metrics["celery_gateway_events_total"] - STATUSES
    assert total == flood.passed_on + len(flood.lost)
    assert flood.everything.wrong == []
    assert flood.counted == total or flood.everything.gaps > 0


def test_every_good_event_is_delivered_once_and_in_order(flood: Flood) -> None:
    assert [event.get("number") for event in flood.of_host] == list(range(1, flood.good.sent + 1))


def test_a_task_is_known_by_its_name_all_the_while(flood: Flood) -> None:
    steps = [("task-received", "RECEIVED"), ("task-started", "STARTED"), ("task-succeeded", "SUCCESS")]
    assert [(event["type"], event["state"]) for event in flood.of_name[:-3]] == (
        steps * (len(flood.of_name) // 3 - 1)
    )
    assert len(flood.of_name) > HOSTILE_BODIES // GOOD_EVERY // 3
    for event in flood.of_name:
        assert event["root_id"] == event["uuid"]


def test_memory_is_bounded(flood: Flood) -> None:
    status = Path(f"/proc/{flood.gateway.pid}/status").read_text()
    (peak_kilobytes,) = re.findall(r"VmHWM:\s*(\d+) kB", status)
    print(f"{int(peak_kilobytes) >> 10} MiB at its peak")
    assert int(peak_kilobytes) << 10 < MAX_RESIDENT_BYTES
    assert flood.metrics["celery_gateway_history_bytes"] <= HISTORY_BYTES


def test_it_answers_all_the_while(flood: Flood) -> None:
    print(f"{flood.answers.count} answers, the slowest after {flood.answers.slowest_seconds:.2f} s")
    assert flood.answers.failed == []
    assert flood.answers.count > 20
    assert flood.answers.slowest_seconds < MAX_ANSWER_SECONDS
