"""`GET /statistics` and `GET /failures`: the numbers are those of the plan that the events were made from."""

import json
import random
from collections import Counter
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from celery_gateway.access.authenticator import Authenticator
from celery_gateway.pipeline.clock import Clock
from celery_gateway.state import failure_groups
from celery_gateway.state.activity_report import ITEM_FIELDS
from celery_gateway.state.failure_report import MAX_SHOWN_NAMES
from tests.support.asgi_exchange import Exchange
from tests.support.state_gateway import Event, StateGateway
from tests.support.thorough import variants
from tests.support.token_issuer import issuer_file, token

BEGIN = 1_795_000_000 // 8_640 * 8_640.0
KINDS = ("received", "started", "succeeded", "failed", "retried", "revoked", "rejected")
NAMES = {"shop.pay": 0.01, "shop.ship": 1.0, "mail.send": 60.0, "media.cut": 900.0}
"""The usual runtime of each name, in seconds."""
WINDOWS = {"1m": (60, 10, 60), "10m": (600, 10, 60), "1h": (3_600, 60, 360), "24h": (86_400, 1_440, 8_640)}
"""By window: its seconds, those of a bucket, and those of a slot of durations."""
PLACES = {"sent": 1, "received": 1, "retried": 1, "rejected": 1, "started": 0}
TRACEBACK = 'Traceback:\n  File "/srv/shop/tasks.py", line 88, in charge\n    raise\n'


class Now:
    """The gateway's clock, which a test sets."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> float:
        return self.now


class Step(NamedTuple):
    """An event: when it arrives, and what it is of. ``wait``, ``runtime``: the duration that it ends."""

    arrives: float
    event: Event
    is_repeated: bool = False
    wait: float | None = None
    runtime: float | None = None

    @property
    def kind(self) -> str:
        return str(self.event["type"]).removeprefix("task-")


class PlannedTask:
    """The events of a task that succeeds, fails, is retried, revoked or rejected."""

    def __init__(self, dice: random.Random, uid: str, name: str, at: float) -> None:
        self.steps: list[Step] = []
        self._dice, self._uid, self._name, self._at = dice, uid, name, at
        self._delay = dice.uniform(0, 1)
        end = dice.choice(("succeeded", "succeeded", "failed", "retried", "revoked", "rejected"))
        if self._attempt(0, end) == "retried":
            self._at += dice.uniform(1, 5)
            self._attempt(1, "succeeded")

    def _add(self, kind: str, wait: float | None = None, runtime: float | None = None, **more: Any) -> None:
        event = {
            "type": f"task-{kind}",
            "uuid": self._uid,
            "timestamp": self._at,
            "hostname": "w@h",
            "pid": 7,
        }
        event |= {"clock": len(self.steps) + 1} | more
        self.steps.append(Step(self._at + self._delay, event, wait=wait, runtime=runtime))

    def _attempt(self, retries: int, end: str) -> str:
        dice = self._dice
        about = {"name": self._name, "root_id": self._uid, "parent_id": None, "retries": retries}
        eta = self._at + dice.uniform(-5, 20) if dice.random() < 0.3 else None
        about["eta"] = None if eta is None else datetime.fromtimestamp(eta, UTC).isoformat()
        due = None
        if dice.random() < 0.8:
            due = self._at
            self._add("sent", queue="q", **about)
        self._at += dice.uniform(0.01, 3)
        due = self._at if due is None else due
        self._add("received", **about)
        self._at += dice.expovariate(0.2)
        if end == "revoked":
            self._add("revoked", terminated=False)
            return end
        self._add("started", wait=max(0.0, self._at - max(due, eta or 0.0)))
        runtime = NAMES[self._name] * dice.lognormvariate(0, 1)
        self._at += runtime
        if end == "succeeded":
            self._add(end, result="None", **{"runtime": runtime})
            self.steps[-1].event["runtime"] = runtime
        elif end == "failed":
            cause = dice.choice(("PaymentTimeout", "KeyError"))
            self._add(end, runtime=runtime, exception=f"{cause}('order {dice.randrange(9_999)}')")
            self.steps[-1].event["traceback"] = TRACEBACK
        elif end == "retried":
            self._add(end, exception="Retry('in 3s')", traceback="")
        else:
            self._add(end, requeue=False)
        return end


def plan(seed: int, tasks: int) -> list[Step]:
    """Return the steps of tasks within 4,000 s, in the order of arrival; some of them come twice."""
    dice = random.Random(seed)
    steps: list[Step] = []
    for number in range(tasks):
        name = dice.choice(list(NAMES))
        steps += PlannedTask(dice, f"{name}-{number}", name, BEGIN + dice.uniform(0, 4_000)).steps
    for step in dice.sample(steps, len(steps) // 8):
        steps.append(step._replace(arrives=step.arrives + dice.uniform(0, 0.5), is_repeated=True))
    return sorted(steps, key=lambda step: step.arrives)


def reference(steps: list[Step], now: float, window: str, name: str | None) -> dict[str, Any]:
    """Return the numbers of a name (`None`: of all) from the steps that have arrived."""
    seconds, bucket_seconds, slot_seconds = WINDOWS[window]
    steps = [step for step in steps if name is None or step.event["uuid"].startswith(name)]
    last = now // bucket_seconds
    first = last - seconds // bucket_seconds + 1
    counted = [step for step in steps if not step.is_repeated and step.arrives // bucket_seconds >= first]
    counts = Counter(step.kind for step in counted)
    ends = {step.event["uuid"]: step.kind for step in steps if not step.is_repeated}
    places = Counter(PLACES.get(kind) for kind in ends.values())
    found: dict[str, Any] = {kind: counts[kind] for kind in KINDS}
    found |= {"running": places[0], "waiting": places[1], "lost": 0}
    by_bucket = Counter((step.kind, step.arrives // bucket_seconds) for step in counted)
    numbers = range(int(first), int(last) + 1)
    found["buckets"] = {"seconds": bucket_seconds, "start": first * bucket_seconds} | {
        kind: [by_bucket[kind, number] for number in numbers] for kind in ("succeeded", "failed", "retried")
    }
    begin = (now - seconds) // slot_seconds * slot_seconds
    recent = [step for step in steps if not step.is_repeated and step.arrives >= begin]
    for field in ("wait", "runtime"):
        values = sorted(value for step in recent if (value := getattr(step, field)) is not None)
        found[field] = values
    return found


def check(item: dict[str, Any], expected: dict[str, Any]) -> None:
    for field in ("wait", "runtime"):
        values, found = expected.pop(field), item[field]
        if not values:
            assert found is None
            continue
        assert found["count"] == len(values)
        assert found["max"] == pytest.approx(values[-1], abs=1e-5)
        for part in (50, 95, 99):
            exact = values[ceil(part / 100 * len(values)) - 1]
            assert found[f"p{part}"] == pytest.approx(exact, rel=0.02, abs=2e-4), (field, part)
    assert {field: item[field] for field in expected} == expected


@pytest.mark.parametrize("seed", variants(1, [1, 2, 3]))
async def test_the_statistics_are_those_of_the_plan(seed: int) -> None:
    clock = Now()
    gateway = StateGateway(clock=Clock(clock))
    gateway.pipeline.tasks.activity.begin(BEGIN)
    steps, done = plan(seed, 250), 0
    for until in (BEGIN + 61, BEGIN + 1_000, BEGIN + 4_003, BEGIN + 9_000):
        while done < len(steps) and steps[done].arrives <= until:
            clock.now = steps[done].arrives
            gateway.put(steps[done].event)
            done += 1
        clock.now = until
        for window in WINDOWS:
            body = await gateway.get(f"/statistics?window={window}")
            assert (body["window"], body["time"], body["since"]) == (WINDOWS[window][0], until, BEGIN)
            assert set(body) == {"window", "time", "since", "complete", "names", "other", "total", "id"}
            expected = {name: reference(steps[:done], until, window, name) for name in NAMES}
            shown = {
                name: numbers
                for name, numbers in expected.items()
                if any(numbers[field] for field in (*KINDS, "running", "waiting"))
            }
            assert {item["name"] for item in body["names"]} == set(shown)
            ended = [sum(item[kind] for kind in ("succeeded", "failed", "revoked")) for item in body["names"]]
            assert ended == sorted(ended, reverse=True)
            for item in body["names"]:
                assert set(item) == set(ITEM_FIELDS) - {"cluster"}
                check(item, shown[item["name"]])
            check(body["total"], reference(steps[:done], until, window, None))
            assert body["total"]["name"] is None and body["other"] is None
    failed = [step for step in steps[:done] if step.kind == "failed" and not step.is_repeated]
    failures = (await gateway.get("/failures"))["failures"]
    by_cause = Counter(step.event["exception"].partition("(")[0] for step in failed)
    assert {each["exception"]: each["count"] for each in failures} == by_cause
    for each in failures:
        own = [step for step in failed if step.event["exception"].startswith(each["exception"])]
        assert each["names"] == Counter(step.event["uuid"].rpartition("-")[0] for step in own)
        assert (each["first"], each["last"]) == (round(own[0].arrives, 3), round(own[-1].arrives, 3))
        assert (each["uuid"], each["worker"], "cluster" in each) == (own[-1].event["uuid"], "w@h", False)
        assert each["message"] == own[-1].event["exception"].partition("'")[2][:-2]
        assert each["frame"] == "shop/tasks.py:88 in charge"
        assert len(each["signature"]) == 16
    assert [each["last"] for each in failures] == sorted((each["last"] for each in failures), reverse=True)
    newest = {step.event["uuid"].rpartition("-")[0]: step for step in failed}
    for item in (await gateway.get("/statistics?window=24h"))["names"]:
        step = newest[item["name"]]
        assert item["last_failure"] == {
            "uuid": step.event["uuid"],
            "time": round(step.arrives, 3),
            "exception": step.event["exception"],
        }


def events_of(uid: str, name: str, *, fails: bool = False, hostname: str = "w@h") -> list[Event]:
    common = {"uuid": uid, "hostname": hostname, "pid": 7, "timestamp": BEGIN}
    kinds: list[Event] = [
        {"type": "task-received", "name": name, "root_id": uid},
        {"type": "task-started"},
        {"type": "task-failed", "exception": f"E('{uid}')", "traceback": TRACEBACK}
        if fails
        else {"type": "task-succeeded", "result": "None", "runtime": 2.0},
    ]
    return [common | {"clock": number} | kind for number, kind in enumerate(kinds)]


def shop_gateway(**options: Any) -> StateGateway:
    clock = Now()
    clock.now += 5
    return StateGateway(clock=Clock(clock), **options)


async def test_names_and_fields_can_be_chosen() -> None:
    gateway = shop_gateway()
    for name in ("shop.pay", "shop.ship", "mail.send"):
        gateway.put(*events_of(name, name))
    body = await gateway.get("/statistics?name=shop.*,!shop.ship&fields=succeeded,runtime&format=json")
    middle = pytest.approx(2.0, rel=0.02)
    summary = {"count": 1, "p50": middle, "p95": middle, "p99": middle, "max": 2.0}
    assert body["names"] == [{"name": "shop.pay", "succeeded": 1, "runtime": summary}]
    assert body["total"] == {"name": None, "succeeded": 1, "runtime": summary}
    assert (await gateway.get("/statistics?cluster=eu"))["names"] == []
    assert (await gateway.get("/statistics?name=none"))["total"]["succeeded"] == 0


async def test_counting_begins_with_the_gateway_or_with_the_first_event_of_a_log() -> None:
    gateway, follower = shop_gateway(), shop_gateway()
    assert (await follower.get("/statistics"))["since"] is None
    await gateway.pipeline.start()
    try:
        assert (await gateway.get("/statistics"))["since"] == BEGIN + 5
    finally:
        await gateway.pipeline.stop()
    follower.put(*events_of("a", "shop.pay"))
    assert (await follower.get("/statistics"))["since"] == BEGIN + 5


async def test_times_are_rounded_to_milliseconds() -> None:
    clock = Now()
    clock.now += 0.123456
    gateway = StateGateway(clock=Clock(clock))
    gateway.pipeline.tasks.activity.begin(BEGIN + 0.1234)
    gateway.put(*events_of("a", "shop.pay", fails=True))
    body = await gateway.get("/statistics")
    assert (body["since"], body["time"]) == (BEGIN + 0.123, BEGIN + 0.123)
    assert body["names"][0]["last_failure"]["time"] == BEGIN + 0.123
    (failure,) = (await gateway.get("/failures"))["failures"]
    assert (failure["first"], failure["last"]) == (BEGIN + 0.123, BEGIN + 0.123)


async def test_failures_can_be_chosen() -> None:
    gateway = shop_gateway()
    gateway.put(*events_of("a", "shop.pay", fails=True), *events_of("b", "mail.send", fails=True))
    gateway.put(*events_of("1", "shop.pay", fails=True), *events_of("2", "shop.pay", fails=True))

    async def found(query: str) -> list[tuple[str, int, dict[str, int]]]:
        body = await gateway.get(f"/failures?{query}")
        return [(each["message"], each["count"], each["names"]) for each in body["failures"]]

    one, two, three = ("2", 2, {"shop.pay": 2}), ("b", 1, {"mail.send": 1}), ("a", 1, {"shop.pay": 1})
    assert sorted(await found("")) == sorted([one, two, three])
    assert await found("name=mail.*") == [two]
    assert sorted(await found("name=shop.*")) == sorted([one, three])
    assert len(await found("limit=1")) == 1
    assert len(await found("since=1m")) == 3
    assert await found("since=2100-01-01T00:00:00Z") == []


async def test_what_failed_last_is_found_among_many_names(tmp_path: Path) -> None:
    """A name and a scope find their failures although many names of others have the same cause."""
    gateway = shop_gateway(authenticator=Authenticator(issuer_file(tmp_path)))
    names = [f"b.{number}" for number in range(failure_groups.MAX_NAMES + 5)]
    for number, name in enumerate((*names, "b.0", "a.victim")):
        gateway.put(*events_of(str(number), name, fails=True))

    async def groups(query: str = "", **scope: Any) -> Any:
        headers = {"authorization": f"Bearer {token(celery_gateway=scope, sub='x')}"}
        exchange = await Exchange(gateway.app, f"/failures{query}", headers=headers).done()
        assert exchange.status == 200
        return json.loads(exchange.body)["failures"]

    assert [each["names"] for each in await groups("?name=a.victim")] == [{"a.victim": 1}]
    assert [each["names"] for each in await groups(any=[{"name": "a.*"}])] == [{"a.victim": 1}]
    assert await groups("?name=b.1") == []
    (everything,) = await groups()
    assert (everything["count"], len(everything["names"])) == (len(names) + 2, MAX_SHOWN_NAMES)


async def test_clusters_are_named() -> None:
    gateway = shop_gateway(clusters=("eu", "us"))
    for cluster in ("eu", "us"):
        gateway.put(*events_of("a", "shop.pay", fails=True), cluster=cluster)
    body = await gateway.get("/statistics?cluster=us")
    assert [(item["name"], item["cluster"], item["failed"]) for item in body["names"]] == [
        ("shop.pay", "us", 1)
    ]
    assert (await gateway.get("/statistics"))["total"]["failed"] == 2
    assert [each["count"] for each in (await gateway.get("/failures?cluster=eu"))["failures"]] == [1]
    assert [each["names"] for each in (await gateway.get("/failures"))["failures"]] == [{"shop.pay": 2}]
    for cluster in ("eu", "us"):
        (failure,) = (await gateway.get(f"/failures?cluster={cluster}"))["failures"]
        assert failure["cluster"] == cluster


@pytest.mark.parametrize(
    ("target", "parameter"),
    [
        ("/statistics?window=59s", "window"),
        ("/statistics?window=25h", "window"),
        ("/statistics?window=1", "window"),
        ("/statistics?window=1h&window=2h", "window"),
        ("/statistics?fields=uuid", "fields"),
        ("/statistics?format=sse", "format"),
        ("/statistics?queue=q", "queue"),
        ("/statistics?since=1h", "since"),
        ("/statistics?name=", "name"),
        ("/failures?limit=0", "limit"),
        ("/failures?limit=1001", "limit"),
        ("/failures?since=soon", "since"),
        ("/failures?window=1h", "window"),
        ("/failures?format=ndjson", "format"),
    ],
)
async def test_a_bad_request_is_an_error(target: str, parameter: str) -> None:
    error = await shop_gateway().get_error(target, 400)
    assert error["parameter"] == parameter


async def test_a_scope_shows_its_names_only(tmp_path: Path) -> None:
    gateway = shop_gateway(authenticator=Authenticator(issuer_file(tmp_path)))
    for number, name in enumerate(("shop.pay", "shop.pay", "bank.pay")):
        gateway.put(*events_of(f"{name}{number}", name, fails=True, hostname=f"{name}@h"))

    async def get(path: str, **scope: Any) -> Any:
        headers = {"authorization": f"Bearer {token(celery_gateway=scope, sub='x')}"}
        exchange = await Exchange(gateway.app, path, headers=headers).done()
        assert exchange.status == 200
        return json.loads(exchange.body)

    shop: dict[str, Any] = {"any": [{"name": "shop.*"}]}
    body = await get("/statistics", **shop)
    assert [(item["name"], item["failed"]) for item in body["names"]] == [("shop.pay", 2)]
    assert (body["total"]["failed"], body["total"]["received"], body["other"]) == (2, 2, None)
    failures = (await get("/failures", **shop))["failures"]
    assert failures and all(each["names"] == {"shop.pay": each["count"]} for each in failures)
    assert not any("bank" in json.dumps(each) for each in failures)
    assert len((await get("/statistics"))["names"]) == 2
    for condition in ({"queue": "*"}, {"name": "shop.*", "state": "FAILURE"}, {"root_id": "shop*"}):
        body = await get("/statistics", any=[condition])
        assert (body["names"], body["total"]["failed"]) == ([], 0), condition
        assert (await get("/failures", any=[condition]))["failures"] == []
    hiding = shop | {"hide": ["exception", "runtime", "hostname"]}
    body = await get("/statistics", **hiding)
    assert set(body["names"][0]["last_failure"]) == {"uuid", "time"}
    assert body["names"][0]["runtime"] is None
    assert (await get("/failures", **hiding))["failures"] == []
    assert (await get("/failures", **shop, hide=["traceback"]))["failures"] == []
    failures = (await get("/failures", **shop, hide=["worker"]))["failures"]
    assert failures and all(each["worker"] is None for each in failures)


async def test_the_metrics_have_their_size() -> None:
    gateway = shop_gateway()
    gateway.put(*events_of("a", "shop.pay"), *events_of("b", "shop.ship"))
    text = (await gateway.request("/metrics")).text
    assert "celery_gateway_statistics_names 2.0" in text
    assert "celery_gateway_statistics_bytes " in text
