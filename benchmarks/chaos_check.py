"""The final checks of the chaos test: the log of each gateway, the clients, the numbers and the tasks."""

import asyncio
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import aiohttp
import httpx
import msgspec

from benchmarks.chaos_tally import Tally
from tests.support.fleet import task_records

READ_SECONDS = 120.0
START_EVENTS = 3_000
"""How many events are published while a broker starts, at most."""
NEAR = 3_000
"""How many entries a gap may be away from the events that are missing."""


class Message(msgspec.Struct):
    """The fields of an event or a control message that the test reads."""

    type: str
    id: str
    hostname: str = ""
    name: str | None = None
    uuid: str = ""
    state: str | None = None
    number: int = -1
    timestamp: float = 0.0
    resume: str = ""
    reason: str = ""


decode = msgspec.json.Decoder(Message).decode

FILTERS: dict[str, Callable[[Message], bool]] = {
    "": lambda message: True,
    "type=task-succeeded,shop-*": lambda message: (
        message.type == "task-succeeded" or message.type.startswith("shop-")
    ),
    "name=chaos.task_3": lambda message: message.name == "chaos.task_3",
    "state=STARTED": lambda message: message.state == "STARTED",
}
"""The filters of the subscribers, each with its meaning written in another way."""


def position_of(id: str) -> int:
    """Return the position in an id, which clients must not do, but a test may."""
    return int(id.rpartition("-")[2])


class Reader(Protocol):
    """A client, as the checks see it (``chaos_clients.Client``)."""

    who: str
    filter: str
    start: int | None
    position: int
    positions: "array[int]"
    hashes: "array[int]"


class Log:
    """The whole stream as one gateway gives it, without control messages that are not of the log.

    Attributes:
        hashes: of the bytes of each entry, from position 1 on.
        positions: of these.
        gaps: their positions.
        numbers: how often each number is there, and where.
        lost: how often each task was lost; these are events of the gateway itself.
        passed: for each filter, the positions and hashes of the events that it selects.
    """

    def __init__(self) -> None:
        self.positions, self.hashes = array("q"), array("q")
        self.numbers: Counter[int] = Counter()
        self.position_of: dict[int, int] = {}
        self.lost: Counter[str] = Counter()
        self.terms: set[str] = set()
        self.gaps: list[int] = []
        self.passed = {text: (array("q"), array("q")) for text in FILTERS}

    def add(self, line: bytes) -> None:
        message = decode(line)
        position = position_of(message.id)
        self.terms.add(message.id.rpartition("-")[0])
        self.positions.append(position)
        self.hashes.append(hash(line))
        if message.type == "gateway-gap":
            self.gaps.append(position)
        if message.type.startswith("gateway-"):
            return
        if message.type == "task-lost":
            self.lost[message.uuid] += 1
        if message.number >= 0:
            self.numbers[message.number] += 1
            self.position_of[message.number] = position
        for text, (positions, hashes) in self.passed.items():
            if FILTERS[text](message):
                positions.append(position)
                hashes.append(hash(line))


async def check(
    tally: Tally,
    gateways: Sequence[str],
    clients: Sequence[Reader],
    truth: dict[str, Any],
    restarts: int,
) -> None:
    """Make all checks, and record the violations.

    Args:
        truth: what the publisher has written.
        restarts: how often the broker was started again: the log may have a gap for each.
    """
    end = max(client.position for client in clients)
    logs = []
    for url in gateways:
        log = Log()
        try:
            async with asyncio.timeout(READ_SECONDS):
                await _read(url, end, log, tally)
        except (TimeoutError, aiohttp.ClientError):
            at = log.positions[-1] if log.positions else 0
            tally.violation(url, f"the whole log could not be read: position {at} of {end}")
        logs.append(log)
    for url, log in zip(gateways[1:], logs[1:], strict=True):
        _compare(tally, url, log.positions, log.hashes, logs[0].positions, logs[0].hashes)
    _check_numbers(tally, logs[0], truth)
    _check_lost(tally, logs[0], truth)
    tally.counts["gaps"] = len(logs[0].gaps)
    if len(logs[0].gaps) > restarts:
        tally.violation("the log", f"has {len(logs[0].gaps)} gaps, {restarts} are due: {logs[0].gaps[:10]}")
    for client in clients:
        positions, hashes = logs[0].passed[client.filter]
        first = next((at for at, each in enumerate(positions) if each > (client.start or 0)), len(positions))
        _compare(tally, client.who, client.positions, client.hashes, positions[first:], hashes[first:])
    whole = {uid: task["fields"] for uid, task in truth["tasks"].items() if _is_whole(task, logs[0])}
    await asyncio.to_thread(_check_tasks, tally, gateways, whole)
    tally.counts["entries"] = len(logs[0].positions)
    tally.counts["terms"] = len(logs[0].terms)


async def _read(url: str, end: int, log: Log, tally: Tally) -> None:
    """Read a gateway's stream from the first entry up to a position."""
    seen = 0
    async with (
        aiohttp.ClientSession(read_bufsize=1 << 20) as session,
        session.get(f"{url}/events?since=earliest&format=ndjson") as response,
    ):
        rest = b""
        async for chunk in response.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                seen += 1
                message = decode(line)
                if seen == 1 and (message.resume, position_of(message.id)) != ("resumed", 0):
                    tally.violation(url, f"since=earliest opened as {line!r}")
                if seen <= 2 or message.type == "gateway-bookmark":
                    continue  # gateway-open, and the status for this stream
                if position_of(message.id) > end:
                    return
                log.add(line)
                if position_of(message.id) == end:
                    return


def _compare(
    tally: Tally,
    who: str,
    positions: "array[int]",
    hashes: "array[int]",
    expected_positions: "array[int]",
    expected_hashes: "array[int]",
) -> None:
    if positions != expected_positions:
        got, due = Counter(positions), Counter(expected_positions)
        missing, more = sorted((due - got).elements()), sorted((got - due).elements())
        told = f"{len(missing)} missing {missing[:5]}…{missing[-1:]}, {len(more)} too many {more[:5]}"
        tally.violation(who, told if missing or more else "another order")
    elif hashes != expected_hashes:
        wrong = [
            at
            for at, pair in zip(positions, zip(hashes, expected_hashes, strict=True), strict=True)
            if pair[0] != pair[1]
        ]
        tally.violation(who, f"{len(wrong)} entries have other bytes, the first at position {wrong[0]}")


def _check_numbers(tally: Tally, log: Log, truth: dict[str, Any]) -> None:
    """Each event that the broker has confirmed is in the log once; an uncertain one at most once.

    While a RabbitMQ starts, it confirms messages and drops them for streams that have no leader yet. Such
    events may be missing if the log has a gap there.
    """
    uncertain = set(truth["uncertain"])
    missing = [n for n in range(truth["published"]) if n not in log.numbers and n not in uncertain]
    unreported = [number for number in missing if not _is_reported(number, log, truth)]
    twice = [number for number, count in log.numbers.items() if count > 1]
    tally.counts["dropped by the broker"] = len(missing) - len(unreported)
    if unreported:
        tally.violation("the log", f"lacks {len(unreported)} events without a gap, numbers {unreported[:10]}")
    if twice:
        tally.violation("the log", f"has {len(twice)} events more than once, numbers {twice[:10]}")
    if list(log.positions) != list(range(1, len(log.positions) + 1)):
        tally.violation("the log", "its positions do not follow on each other from 1 on")


def _is_reported(number: int, log: Log, truth: dict[str, Any]) -> bool:
    """Whether a missing event was published right after a restart of the broker, and there is a gap there."""
    since = [at for at in truth["reconnects"] if at <= number <= at + START_EVENTS]
    after = (later for later in range(number, number + START_EVENTS) if later in log.position_of)
    position = log.position_of.get(next(after, -1))
    return bool(since) and position is not None and any(abs(at - position) <= NEAR for at in log.gaps)


def _check_lost(tally: Tally, log: Log, truth: dict[str, Any]) -> None:
    """Each task of a crashed worker is lost once, and no other task is."""
    tasks = {uid: task["fields"] for uid, task in truth["tasks"].items() if _is_whole(task, log)}
    due = {uid: 1 for uid, task in tasks.items() if task["state"] == "LOST"}
    lost = {uid: count for uid, count in log.lost.items() if uid in tasks}
    wrong = [uid for uid in due | lost if due.get(uid) != lost.get(uid)]
    if wrong:
        tally.violation(
            "the log", f"task-lost is missing, wrong or repeated for {len(wrong)} tasks: {wrong[:9]}"
        )


def _is_whole(task: dict[str, Any], log: Log) -> bool:
    """Whether all events of a task are in the log."""
    return all(number in log.numbers for number in task["numbers"])


def _check_tasks(tally: Tally, gateways: Sequence[str], truth: dict[str, Any]) -> None:
    """The records are the same at each gateway, and correct."""
    try:
        tables = [task_records(url) for url in gateways]
    except (AssertionError, httpx.HTTPError) as error:
        tally.violation("the tasks", f"cannot be read: {error!r}")
        return
    tally.counts["tasks"] = len(tables[0])
    for url, table in zip(gateways[1:], tables[1:], strict=True):
        if table.keys() != tables[0].keys():
            tally.violation(url, f"has {len(table)} tasks, {gateways[0]} has {len(tables[0])}")
        differing = [uid for uid, record in tables[0].items() if table.get(uid, record) != record]
        if differing:
            one, other = tables[0][differing[0]], table[differing[0]]
            fields = {field: (one[field], other[field]) for field in one if one[field] != other[field]}
            tally.violation(url, f"{len(differing)} records differ, as {differing[0]}: {fields}")
    wrong = [
        (
            uid,
            {field: (record[field], value) for field, value in truth[uid].items() if record[field] != value},
        )
        for uid, record in tables[0].items()
        if uid in truth and any(record[field] != value for field, value in truth[uid].items())
    ]
    if wrong:
        tally.violation(gateways[0], f"{len(wrong)} tasks have another state than the truth: {wrong[:3]}")
