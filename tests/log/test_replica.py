"""Several replicas of one log, in virtual time: whatever fails, all have the same entries, each once."""

import asyncio
import random
from dataclasses import dataclass, field

import pytest
import uvloop

from celery_gateway.log.batch import Batch, Line
from celery_gateway.log.follower import Restart
from celery_gateway.log.memory_log import MemoryLog, MemoryServer
from celery_gateway.log.replica import Replica
from tests.support.thorough import tries
from tests.support.virtual_time import run

pytestmark = pytest.mark.unit


@dataclass
class Gateway:
    """A gateway that does nothing but follow the log, and write numbers while it leads."""

    server: MemoryServer
    name: str
    read: list[bytes] = field(default_factory=list)
    begun_at: int | None = None
    terms: list[str] = field(default_factory=list)
    restarts: int = 0
    is_frozen: bool = False

    def __post_init__(self) -> None:
        self.engine: MemoryLog = self.server.engine()
        self.replica = Replica(self.engine, self.name, self)
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            try:
                await self.replica.run()
            except Restart:
                self.restarts += 1
                self.read, self.begun_at = [], None
                self.engine = self.server.engine()
                self.replica = Replica(self.engine, self.name, self)

    # ---- log.replica.Follower

    def on_begin(self, position: int, terms: list[tuple[str, int]]) -> None:
        assert self.begun_at is None
        self.begun_at = position

    def on_term(self, term: str) -> None:
        self.terms.append(term)

    def on_batch(self, batch: Batch, *, is_own: bool) -> None:
        assert self.begun_at is not None
        assert batch.head.first == self.begun_at + len(self.read) + 1
        assert is_own == (self.replica.is_leading and batch.head.gateway == self.name)
        self.read += [line.json for line in batch.lines]

    def on_warm(self) -> None: ...
    def on_lead(self) -> None: ...
    def on_follow(self) -> None: ...
    def on_connection(self, reason: str) -> None: ...

    def write(self, json: bytes) -> bool:
        """Write an entry, if this gateway leads."""
        if self.replica.is_leading:
            self.replica.writer.add(Line(json, 1))
            self.replica.writer.flush(0.0)
        return self.replica.is_leading

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


async def until(condition, seconds: float = 60.0) -> float:
    """Wait until a condition is true; return how long that took, in virtual seconds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not condition():
        assert loop.time() < began + seconds
        await asyncio.sleep(0.01)
    return loop.time() - began


async def pair(server: MemoryServer) -> tuple[Gateway, Gateway]:
    """Return a gateway that leads, and one that follows."""
    first = Gateway(server, "first")
    await until(lambda: first.replica.is_leading)
    second = Gateway(server, "second")
    await until(lambda: second.replica.is_warm)
    return first, second


def leaders(gateways: list[Gateway]) -> list[Gateway]:
    return [each for each in gateways if each.replica.is_leading]


def test_the_first_gateway_leads_at_once_and_another_follows() -> None:
    async def main() -> None:
        server = MemoryServer()
        first = Gateway(server, "first")
        assert await until(lambda: first.replica.is_leading) < 1.0
        second = Gateway(server, "second")
        await until(lambda: second.replica.is_warm)
        for number in range(100):
            assert first.write(b"%d" % number)
        await until(lambda: len(second.read) == 100)
        await asyncio.sleep(10)
        assert first.read == second.read
        assert leaders([first, second]) == [first]
        assert first.replica.peers.by_name.keys() == {"second"}

    run(main())


def test_another_gateway_leads_soon_after_the_leader_is_killed_and_at_once_after_it_resigns() -> None:
    async def main() -> None:
        server = MemoryServer()
        first = Gateway(server, "first")
        await until(lambda: first.replica.is_leading)
        second, third = Gateway(server, "second"), Gateway(server, "third")
        await until(lambda: second.replica.is_warm and third.replica.is_warm)
        await first.stop()
        assert 1.0 < await until(lambda: bool(leaders([second, third]))) < 3.0
        (leader,) = leaders([second, third])
        leader.replica.resign()
        await leader.stop()
        others = [each for each in (second, third) if each is not leader]
        assert await until(lambda: bool(leaders(others))) < 0.7

    run(main())


def test_a_leader_that_was_cut_off_begins_again_and_what_it_wrote_meanwhile_is_nowhere() -> None:
    async def main() -> None:
        server = MemoryServer()
        first, second = await pair(server)
        first.write(b"kept")
        await until(lambda: second.read == [b"kept"])
        server.partition(first.engine)
        first.write(b"lost")
        await until(lambda: second.replica.is_leading)
        second.write(b"of the second")
        server.heal(first.engine)
        server.disconnect(first.engine)
        await until(lambda: first.restarts == 1 and first.read == [b"kept", b"of the second"])
        assert second.read == [b"kept", b"of the second"]

    run(main())


def test_a_leader_that_loses_its_connection_sends_again_what_it_has_not_read_back() -> None:
    async def main() -> None:
        server = MemoryServer()
        first, second = await pair(server)
        server.disconnect(first.engine)
        for number in range(20):
            first.write(b"%d" % number)
        await until(lambda: len(second.read) == 20)
        assert first.read == second.read and first.restarts == 0 and first.replica.is_leading

    run(main())


def test_a_claim_at_once_works_in_the_loop_that_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop has no timer for a delay that rounds to 0 ms."""
    monkeypatch.setattr("celery_gateway.log.election.random.uniform", lambda low, high: 0.0)

    async def main() -> None:
        gateway = Gateway(MemoryServer(), "first")
        await until(lambda: gateway.replica.is_leading or gateway.task.done())
        assert gateway.replica.is_leading and not gateway.task.done()
        await gateway.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("seed", range(tries(40)))
def test_all_gateways_agree_whatever_fails(seed: int) -> None:
    """Gateways are stopped, started, cut off and slowed down at random while the leaders write."""
    chance = random.Random(seed)
    random.seed(seed)  # of the replicas

    async def main() -> None:
        server = MemoryServer()
        gateways = [Gateway(server, f"g{number}") for number in range(3)]
        stopped: list[Gateway] = []
        written = 0
        for step in range(150):
            await asyncio.sleep(chance.choice([0.0, 0.01, 0.2, 1.0]))
            for gateway in leaders(gateways):
                for _ in range(chance.randrange(4)):
                    gateway.write(b"%s %d" % (gateway.name.encode(), written))
                    written += 1
            gateway = chance.choice(gateways)
            match chance.randrange(12):
                case 0:
                    server.partition(gateway.engine)
                case 1:
                    server.heal(gateway.engine)
                case 2:
                    server.disconnect(gateway.engine)
                case 3 | 4 as kind:
                    if kind == 4:
                        gateway.replica.resign()
                    await gateway.stop()
                    stopped.append(gateway)
                    gateways[gateways.index(gateway)] = Gateway(server, f"{gateway.name[:2]} of step {step}")
                case 5:
                    server.skip(chance.randrange(5))
        for gateway in gateways:
            server.heal(gateway.engine)
            server.disconnect(gateway.engine)
        await asyncio.sleep(60)
        (leader,) = leaders(gateways)
        leader.write(b"the end")
        await until(lambda: all(each.read[-1:] == [b"the end"] for each in gateways))
        longest = max((each for each in gateways), key=lambda each: len(each.read)).read
        for gateway in gateways:
            assert gateway.begun_at == 0 and gateway.read == longest
        for gateway in stopped:  # what one has read stays
            assert gateway.read == longest[: len(gateway.read)]
        assert len(set(longest)) == len(longest)
        assert len({each.replica.order.term for each in gateways}) == 1
        assert all(each.replica.order.terms == leader.replica.order.terms for each in gateways)

    run(main())


def test_messages_that_no_gateway_has_written_are_skipped() -> None:
    async def main() -> None:
        server = MemoryServer()
        first = Gateway(server, "first")
        await until(lambda: first.replica.is_leading)
        for message in (b"garbage", b"", b"\xff\n", b"{}", b'{"kind":"batch"}\n{}', b"[1]\n\n"):
            first.engine.append(message)
        first.write(b"an entry")
        second = Gateway(server, "second")
        await until(lambda: first.read == second.read == [b"an entry"])
        assert first.replica.foreign.count == second.replica.foreign.count == 6
        assert first.replica.is_leading and first.restarts == 0

    run(main())


def test_a_gateway_waits_while_it_cannot_read_a_later_version() -> None:
    async def main() -> None:
        server = MemoryServer()
        engine = server.engine()
        await engine.open()
        engine.append(b'{"kind":"claim","term":"t","gateway":"new","at":1,"version":2}')
        gateway = Gateway(server, "old")
        await until(lambda: "later version" in gateway.replica.outage.reason)
        await asyncio.sleep(30)
        assert "later version" in gateway.replica.outage.reason and not gateway.replica.is_leading
        await engine.delete()
        await until(lambda: gateway.replica.is_leading and not gateway.replica.outage.reason)

    run(main())
