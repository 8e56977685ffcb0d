"""The faults of the chaos test: which, when, at which gateway, and how each is undone.

The seed and its number determine each fault; which gateway leads, and when all are ready, does not depend on
them.

Faults overlap, but each gateway has one at a time. Every ``ALONE_EVERY``-th fault waits until all gateways
are ready, and the next one waits until an event was delivered: such a fault is *alone*, so its delay is that
of one failure.
"""

import heapq
import json
import random
import time
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

from tests.support.fleet import Fleet, Member
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis_server import RedisServer

PAUSE_SECONDS = 0.8
"""Between two faults, on average."""
ALONE_EVERY = 7
ALONE_SECONDS = 30.0
"""A fault that is alone stays so for this time at most."""
CALM_SECONDS = 30.0
"""How long a fault waits until all gateways are ready."""
RESTART_SECONDS = (0.1, 3.0)
FREEZE_SECONDS = (4.0, 7.0)
"""Beyond the time after which another gateway claims the lead, 2 s."""
STALL_SECONDS = (1.0, 8.0)
ALL_STOPPED_SECONDS = (2.0, 12.0)
LEADER_SHARE = 0.5

KINDS = {
    "kill -9": 5.0,
    "SIGTERM": 3.0,
    "freeze": 5.0,
    "stall": 4.0,
    "stall, then cut": 2.0,
    "cut": 3.0,
    "broker restarted": 0.4,
    "broker killed": 0.4,
    "all killed": 0.3,
    "all terminated": 0.3,
}
"""The kinds of faults, each with its weight."""
REDIS_KINDS = {"log killed": 0.8}
GLOBAL = frozenset({"broker restarted", "broker killed", "all killed", "all terminated", "log killed"})


class Stage(NamedTuple):
    """What can be broken. ``redis`` keeps the log, if RabbitMQ does not."""

    node: RabbitMQ
    redis: RedisServer | None
    fleet: Fleet


class Record(NamedTuple):
    """A fault that was injected.

    Attributes:
        is_leader: whether it concerned the gateway that led; false for a fault of everything.
        at: the time from which the delay counts, in epoch seconds: that of the fault, or that at which the
            broker, or all gateways, were started again.
        is_alone: see the module.
    """

    number: int
    kind: str
    is_leader: bool
    at: float
    is_alone: bool


Ask = Callable[[str], dict[str, Any]]


class Faults:
    """Injects faults: call ``step`` often, until ``is_done``.

    Args:
        total: the number of faults.
        ask: sends a command to the clients (``chaos_clients``).

    Attributes:
        records: the faults so far.
        shown: for the caller.
    """

    def __init__(self, stage: Stage, seed: int, total: int, ask: Ask) -> None:
        self.records: list[Record] = []
        self.shown = 0
        self._stage = stage
        self._seed = seed
        self._chance = random.Random(f"{seed} 0")  # of the next fault
        self._total = total
        self._ask = ask
        self._busy: dict[Member, str] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._next_at = time.monotonic()
        self._calm_until: float | None = None  # a fault waits until all are ready, or until then
        kinds = KINDS | (REDIS_KINDS if stage.redis is not None else {})
        self._kinds, self._weights = list(kinds), list(kinds.values())
        self._drawn: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether all faults were injected, and undone."""
        return len(self.records) >= self._total and not self._due

    def step(self) -> None:
        """Undo what is due, and inject the next fault if it is time."""
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2]()
        if now < self._next_at or len(self.records) >= self._total:
            return
        if self._drawn is None:
            self._chance = random.Random(f"{self._seed} {len(self.records)}")
            self._drawn = self._chance.choices(self._kinds, self._weights)[0]
        is_alone = len(self.records) % ALONE_EVERY == 0
        if (is_alone or self._drawn.startswith("all ")) and not self._is_calm(now):
            return
        kind, self._drawn, self._calm_until = self._drawn, None, None
        pause = self._chance.expovariate(1 / PAUSE_SECONDS)
        self._next_at = now + pause
        if kind in GLOBAL:
            self._break_everything(kind, is_alone)
        else:
            self._break_member(kind, is_alone)
        if is_alone:
            self._wait_alone(pause)

    def delays(self) -> dict[int, list[float]]:
        """Return the delays in seconds that the probes have measured, by the numbers of the faults."""
        return {int(number): found for number, found in self._ask("marks")["marks"].items()}

    def _is_calm(self, now: float) -> bool:
        if self._calm_until is None:
            self._calm_until = now + CALM_SECONDS
        if now > self._calm_until and not self._busy:
            return True
        return not self._busy and all(member.is_ready() for member in self._stage.fleet.members)

    def _wait_alone(self, pause: float) -> None:
        """Put off further faults until an event was delivered at each probe, and all is undone."""
        number = self.records[-1].number
        expected = len(self._stage.fleet.members) - (self.records[-1].kind not in GLOBAL)
        until = time.monotonic() + ALONE_SECONDS

        def look() -> None:
            found = self.delays().get(number, [])
            if len(found) >= expected or time.monotonic() > until:
                self._next_at = time.monotonic() + pause
            else:
                self._later(0.2, look)

        self._next_at = until + 60
        look()

    # ---- one gateway

    def _break_member(self, kind: str, is_alone: bool) -> None:
        fleet = self._stage.fleet
        free = [member for member in fleet.members if member not in self._busy and member.is_running]
        wants_leader = is_alone or self._chance.random() < LEADER_SHARE
        choice = self._chance.randrange(1 << 16)
        if not free:
            self._drawn = kind
            self._next_at = time.monotonic() + 0.2
            return
        leader = fleet.leader()
        others = [member for member in free if member is not leader]
        if leader is not None and leader in free and (wants_leader or not others):
            member = leader
        else:
            member = others[choice % len(others)]
        probes = [at for at, each in enumerate(fleet.members) if each is not member and each in free]
        self._record(kind, member is leader, is_alone, probes)
        self._busy[member] = kind
        self._inject(kind, member)

    def _inject(self, kind: str, member: Member) -> None:
        chance = self._chance
        pause = chance.uniform(*RESTART_SECONDS)
        if kind == "kill -9":
            member.kill()
            self._later(pause, lambda: self._launch(member))
        elif kind == "SIGTERM":
            member.terminate()
            self._when_ended(member, lambda: self._later(pause, lambda: self._launch(member)))
        elif kind == "freeze":
            member.freeze()
            self._later(chance.uniform(*FREEZE_SECONDS), lambda: self._undo(member, member.wake))
        elif kind == "cut":
            member.cut()
            self._undo(member, member.mend)
        else:
            member.stall()
            if kind != "stall":
                self._later(
                    chance.uniform(*STALL_SECONDS), lambda: self._undo(member, member.cut, member.mend)
                )
            else:
                self._later(chance.uniform(*STALL_SECONDS), lambda: self._undo(member, member.mend))

    def _launch(self, member: Member) -> None:
        member.launch()
        self._later(self._chance.uniform(0, 3), lambda: self._undo(member))

    def _undo(self, member: Member, *steps: Callable[[], None]) -> None:
        for step in steps:
            step()
        del self._busy[member]

    def _when_ended(self, member: Member, then: Callable[[], None]) -> None:
        if member.is_running:
            self._later(0.1, lambda: self._when_ended(member, then))
        else:
            then()

    # ---- everything

    def _break_everything(self, kind: str, is_alone: bool) -> None:
        node, redis, fleet = self._stage
        everyone = [at for at, member in enumerate(fleet.members) if member not in self._busy]
        if kind == "broker restarted":
            node.restart()
        elif kind == "broker killed":
            node.stop()
            node.start()
        elif kind == "log killed":
            assert redis is not None
            redis.stop()
            redis.start()
        else:
            self._stop_all(kind, is_alone)
            return
        self._record(kind, False, is_alone, everyone)

    def _stop_all(self, kind: str, is_alone: bool) -> None:
        members = self._stage.fleet.members
        for member in members:
            self._busy[member] = kind
            if kind == "all killed":
                member.kill()
            else:
                member.terminate()
        self._record(kind, False, is_alone, [])
        number = self.records[-1].number
        pause = self._chance.uniform(*ALL_STOPPED_SECONDS)

        def start() -> None:
            for member in members:
                self._launch(member)
            self._mark(number, time.time(), list(range(len(members))))

        self._later(pause, lambda: self._when_all_ended(start))

    def _when_all_ended(self, then: Callable[[], None]) -> None:
        if any(member.is_running for member in self._stage.fleet.members):
            self._later(0.1, lambda: self._when_all_ended(then))
        else:
            then()

    # ----

    def _record(self, kind: str, is_leader: bool, is_alone: bool, probes: list[int]) -> None:
        record = Record(len(self.records), kind, is_leader, time.time(), is_alone)
        self.records.append(record)
        if probes:
            self._mark(record.number, record.at, probes)

    def _mark(self, number: int, at: float, probes: list[int]) -> None:
        self._ask("mark " + json.dumps({"number": number, "at": at, "probes": probes}))

    def _later(self, seconds: float, step: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), step))
