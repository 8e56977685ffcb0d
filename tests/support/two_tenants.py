"""Events of two tenants that share a broker, and an oracle of what a scope shows of them.

The oracle is written from docs/security.md, and shares no code with the gateway: a filter is compared with
the values of the first `task-sent` or `task-received` of a task, and without a value nothing passes.

Each event has a `mark`, such as `bank-7`, by which it is recognized in a response. All other texts of a
tenant contain its name, so a text of one tenant in a response for the other one is easy to find.
"""

import random
import time
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

Event = dict[str, Any]
Filter = Mapping[str, str | list[str]]

SHOP, BANK = "shop", "bank"
AGE_SECONDS = 300
"""The age of the first event of each tenant. Gateways use only timestamps of the last ten minutes."""
NAMING = ("task-sent", "task-received")
STATES = {
    "task-sent": "PENDING",
    "task-received": "RECEIVED",
    "task-started": "STARTED",
    "task-succeeded": "SUCCESS",
    "task-failed": "FAILURE",
    "task-retried": "RETRY",
    "task-progress": "PROGRESS",
}


class Tenant:
    """Makes the events of one tenant, from a time on. Their times do not depend on those of others."""

    def __init__(self, name: str, begin: float) -> None:
        self.name = name
        self.begin = begin
        self.events: list[Event] = []

    def event(self, type: str, task: int | None = None, **fields: Any) -> None:
        number = len(self.events) + 1
        made = {
            "type": type,
            "hostname": f"worker@{self.name}",
            "timestamp": self.begin + number,
            "utcoffset": 0,
            "pid": 7,
            "clock": number,
            "mark": f"{self.name}-{number}",
        }
        if task is not None:
            made["uuid"] = self.uuid(task)
        self.events.append(made | fields)

    def uuid(self, task: int) -> str:
        return f"{self.name}-uuid-{task}"

    def named(self, type: str, task: int, root: int | None = None, **fields: Any) -> None:
        """A `task-sent` or `task-received`."""
        values: Event = {
            "name": f"{self.name}.pay",
            "root_id": self.uuid(root or task),
            "parent_id": self.uuid(root) if root else None,
            "args": f"('{self.name} args',)",
            "kwargs": f"{{'card': '{self.name} kwargs'}}",
            "retries": 0,
            "eta": None,
            "expires": None,
        }
        if type == "task-sent":
            values |= {"queue": f"{self.name}-queue", "hostname": f"gen1@{self.name}"}
        self.event(type, task, **values | fields)


def recently() -> float:
    """The time at which the events of a test begin, in epoch seconds."""
    return float(int(time.time())) - AGE_SECONDS


def events_of(tenant: str, begin: float) -> list[Event]:
    """The events of a tenant, with tasks of every kind."""
    t = Tenant(tenant, begin)
    t.event("worker-online", freq=2.0, sw_ident=f"{tenant} py")
    # 1: complete, with progress and a result. 2, 3: its children.
    t.named("task-sent", 1)
    t.named("task-received", 1)
    t.event("task-started", 1)
    t.event("task-progress", 1, progress=0.5, note=f"{tenant} note")
    t.named("task-received", 2, root=1)
    t.event("task-started", 2)
    t.event("task-failed", 2, exception=f"KeyError('{tenant}')", traceback=f"in {tenant}")
    # 3: retried.
    t.named("task-sent", 3, root=1)
    t.named("task-received", 3, root=1)
    t.event("task-started", 3)
    t.event("task-retried", 3, exception=f"Timeout('{tenant}')", traceback=f"of {tenant}")
    t.named("task-received", 3, root=1, retries=1)
    t.event("task-started", 3)
    t.event("task-succeeded", 3, result=f"'{tenant} result 3'", runtime=0.5)
    t.event("task-succeeded", 1, result=f"'{tenant} result'", runtime=1.5)
    # 4: an event before its task. 5: a task of which only its start is known.
    t.event("task-started", 4)
    before = {"timestamp": t.events[-1]["timestamp"] - 0.5, "clock": t.events[-1]["clock"] - 1}
    t.named("task-received", 4, **before)
    t.event("task-started", 5)
    # Custom events: without a task, and of a task that nothing else has named.
    t.event("audit-login", user=f"{tenant} user")
    t.event("task-progress", 6, name=f"{tenant}.custom", root_id=t.uuid(6), progress=0.1)
    t.event("worker-heartbeat", freq=2.0, active=3, processed=40 + len(tenant), loadavg=[1, 2, 3])
    return t.events


def lies_of(tenant: str, other: str, begin: float) -> list[Event]:
    """Events of a tenant whose values claim that they belong to the other one."""
    t, o = Tenant(tenant, begin), Tenant(other, begin)
    claims: Event = {
        "name": f"{other}.pay",
        "root_id": o.uuid(1),
        "parent_id": o.uuid(1),
        "queue": f"{other}-queue",
        "args": f"('{tenant} lies',)",
    }
    t.event("audit-login", user=f"{tenant} liar", state="SUCCESS", **claims)
    t.event("task-progress", 4, progress=0.7, note=f"{tenant} lies", **claims)
    t.event("task-progress", 17, progress=0.7, note=f"{tenant} lies", **claims)
    t.named("task-sent", 18)
    t.named("task-received", 18)
    sent, received = [{field: event[field] for field in ("timestamp", "clock")} for event in t.events[-2:]]
    t.named("task-received", 18, **claims | received)  # as if it were the same event again
    t.named("task-sent", 18, **claims | sent)
    t.event("task-progress", 18, progress=0.9, **claims)
    t.named("task-received", 19, parent_id=o.uuid(1))  # a child of the other one's task
    for event in t.events:
        event["mark"] += "-lie"
        event["timestamp"] += 100
    return t.events


class World(NamedTuple):
    """Events in the order in which they arrive: `late` ones after streams have begun."""

    early: list[Event]
    late: list[Event]

    def without(self, tenant: str) -> "World":
        """The world in which a tenant does not exist."""
        return World(*([event for event in part if _owner(event) != tenant] for part in self))


def world(seed: int) -> World:
    """Return events of both tenants, merged at random; each tenant's own order is kept."""
    dice = random.Random(seed)
    begin = recently()
    left = [events_of(SHOP, begin), [*events_of(BANK, begin), *lies_of(BANK, SHOP, begin)]]
    merged: list[Event] = []
    while left := [events for events in left if events]:
        merged.append(dice.choices(left, [len(events) for events in left])[0].pop(0))
    middle = dice.randrange(len(merged) // 3, 2 * len(merged) // 3)
    return World(merged[:middle], merged[middle:])


def _owner(event: Event) -> str:
    return str(event["mark"]).partition("-")[0]


class Emitted(NamedTuple):
    """An event in the order of the stream, with the values that scopes compare."""

    mark: str
    facts: dict[str, str | None]


class Oracle:
    """Follows what a gateway has received, and knows what each scope shows of it."""

    def __init__(self) -> None:
        self.emitted: list[Emitted] = []
        self.tasks: dict[str, dict[str, str | None]] = {}
        self._waiting: dict[str, list[Event]] = {}

    def receive(self, events: Iterable[Event]) -> None:
        for event in events:
            self._receive(event)

    def release(self) -> None:
        """Pass on the events that have waited in vain for the name of their task."""
        for uuid in tuple(self._waiting):
            self._release(uuid)

    def events(self, scope: Mapping[str, Any]) -> list[str]:
        """The marks of the events that a scope shows."""
        return [mark for mark, facts in self.emitted if shows(scope, facts)]

    def uuids(self, scope: Mapping[str, Any]) -> set[str]:
        """The tasks that a scope of uuid, root_id, name, queue or state shows."""
        return {uuid for uuid, facts in self.tasks.items() if shows(scope, facts)}

    def _receive(self, event: Event) -> None:
        uuid, type = event.get("uuid"), event["type"]
        if uuid is None:
            self._emit(event, {})
        elif uuid in self.tasks:
            self._apply(event)
        elif type in NAMING:
            self._release(uuid, event)
            self._apply(event)
        elif "name" in event and "root_id" in event and uuid not in self._waiting:
            self.tasks[uuid] = {"uuid": uuid}
            self._apply(event)
        else:
            self._waiting.setdefault(uuid, []).append(event)

    def _release(self, uuid: str, naming: Event | None = None) -> None:
        self.tasks[uuid] = {"uuid": uuid}
        if naming is not None:
            self._name(naming)
        for event in self._waiting.pop(uuid, ()):
            self._apply(event)

    def _name(self, event: Event) -> None:
        facts = self.tasks[event["uuid"]]
        if "name" not in facts:
            facts |= {field: event[field] for field in ("name", "root_id", "parent_id")}
        if facts.get("queue") is None and event["type"] == "task-sent":
            facts["queue"] = event["queue"]

    def _apply(self, event: Event) -> None:
        facts = self.tasks[event["uuid"]]
        if event["type"] in NAMING:
            self._name(event)
        state = facts.get("state")
        is_over = state in ("SUCCESS", "FAILURE") or (
            event["type"] == "task-sent" and state not in (None, "PENDING")
        )
        is_again = event["type"] == "task-received" and state in ("STARTED", "PROGRESS")
        if not is_over and not is_again:
            facts["state"] = STATES[event["type"]]
        self._emit(event, facts)

    def _emit(self, event: Event, facts: Mapping[str, str | None]) -> None:
        own = {field: event.get(field) for field in ("type", "uuid", "hostname", "cluster")}
        self.emitted.append(Emitted(event["mark"], own | dict(facts)))


def shows(scope: Mapping[str, Any], facts: Mapping[str, str | None]) -> bool:
    """Return whether a scope shows what has these values."""
    filters: list[Filter] | None = scope.get("any")
    return filters is None or any(
        all(_passes(patterns, facts.get(field)) for field, patterns in filter.items()) for filter in filters
    )


def _passes(patterns: str | list[str], value: str | None) -> bool:
    if value is None:
        return False
    listed = [patterns] if isinstance(patterns, str) else patterns
    wanted = [pattern for pattern in listed if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in listed if pattern.startswith("!")]
    return (not wanted or any(fnmatchcase(value, pattern) for pattern in wanted)) and not any(
        fnmatchcase(value, pattern) for pattern in unwanted
    )


def texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value, with the names of fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)
