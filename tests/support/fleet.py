"""A fleet: several gateways with one shared log behind one nginx, whose processes and networks can be broken.

Each gateway reaches the broker, and the server of the log if that is another one, through TCP proxies of its
own. nginx has no affinity: a client that reconnects is served by any gateway.

Call everything from the main thread: it starts processes.
"""

import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.support.gateway_process import GatewayProcess
from tests.support.nginx import Nginx
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQ, free_port, wait_for
from tests.support.redis_server import RedisServer

READY_SECONDS = 60.0
_LEADS = re.compile(r"^(\S+ \S+) INFO log: this gateway \((\S+)\) leads, from entry (\d+) on$", re.MULTILINE)


class Leadership(NamedTuple):
    """A gateway has begun to lead: when (as its log has it), under which name, from which position on."""

    at: str
    name: str
    first: int


class Member(GatewayProcess):
    """One gateway of a fleet, always at the same port.

    Attributes:
        proxies: its ways to the broker, and to the server of the log.
        is_frozen: whether it is stopped by SIGSTOP.
        leaderships: those that are in its log, the oldest first; see ``read_log``.
    """

    def __init__(self, *args: Any, proxies: Sequence[Proxy], **more: Any) -> None:
        super().__init__(*args, **more)
        self.proxies = proxies
        self.is_frozen = False
        self.leaderships: list[Leadership] = []
        self._read_bytes = 0

    @property
    def is_running(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self._process is not None and self._process.returncode is None

    def kill(self) -> None:
        """``kill -9``, and wait for the end."""
        process, self._process = self._process, None
        self.is_frozen = False
        if process is not None:
            process.kill()

    def terminate(self) -> None:
        """Send SIGTERM; ``is_running`` is false when it has shut down."""
        assert self._process is not None
        self._process.signal(signal.SIGTERM)

    def freeze(self) -> None:
        """Stop it, so that it does nothing until ``wake``."""
        assert self._process is not None
        self._process.signal(signal.SIGSTOP)
        self.is_frozen = True

    def wake(self) -> None:
        """Let a frozen gateway go on, or a dead one stay dead."""
        self.is_frozen = False
        if self._process is not None:
            self._process.signal(signal.SIGCONT)

    def stall(self) -> None:
        """Let nothing pass between it and its servers; what is under way arrives after ``mend``."""
        for proxy in self.proxies:
            proxy.stall()

    def cut(self) -> None:
        """Reset its connections to its servers."""
        for proxy in self.proxies:
            proxy.cut()

    def mend(self) -> None:
        """Let everything pass again."""
        for proxy in self.proxies:
            proxy.resume()

    def read_log(self) -> None:
        """Bring ``leaderships`` up to date."""
        if not self.log.exists():
            return
        with self.log.open("rb") as log:
            log.seek(self._read_bytes)
            data = log.read()
        data = data[: data.rfind(b"\n") + 1]
        self._read_bytes += len(data)
        for at, name, first in _LEADS.findall(data.decode(errors="replace")):
            self.leaderships.append(Leadership(at, name, int(first)))


class Fleet:
    """See the module; ``running`` makes one.

    Attributes:
        broker_url: the URL of the broker without a proxy, for publishers.
        members: the gateways.
        nginx: ``nginx.url`` is that of all gateways.
    """

    def __init__(self, broker_url: str, members: Sequence[Member], nginx: Nginx | None) -> None:
        self.broker_url = broker_url
        self.members = members
        self.nginx = nginx

    def start(self) -> None:
        """Start all gateways that do not run, and wait until they are ready."""
        for member in self.members:
            if not member.is_running:
                member.launch()
        self.wait_ready()

    def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> None:
        """Wait until all gateways are ready.

        Raises:
            AssertionError: one is not; the message has the end of its log.
        """
        for member in self.members:
            assert wait_for(member.is_ready, timeout_seconds), f"not ready: {member.url}\n{member.tail(40)}"

    def leader(self) -> Member | None:
        """Return the gateway that began to lead last, alive or not; ``None`` if none has led yet."""
        found: tuple[str, Member] | None = None
        for member in self.members:
            member.read_log()
            if member.leaderships and (found is None or member.leaderships[-1].at > found[0]):
                found = member.leaderships[-1].at, member
        return found[1] if found else None

    def wait_leader(self, *, other_than: Member | None = None) -> Member:
        """Wait for a gateway that leads, other than the one that has failed.

        Raises:
            AssertionError: there is none in time; the message has the ends of all logs.
        """
        found: list[Member] = []

        def is_found() -> bool:
            leader = self.leader()
            if leader is None or leader is other_than or not leader.is_running:
                return False
            found.append(leader)
            return True

        assert wait_for(is_found, READY_SECONDS), self.tail()
        return found[0]

    def others(self, member: Member) -> list[Member]:
        """Return the other gateways."""
        return [other for other in self.members if other is not member]

    @property
    def failovers(self) -> int:
        """How often a gateway has begun to lead."""
        for member in self.members:
            member.read_log()
        return sum(len(member.leaderships) for member in self.members)

    def heal(self) -> None:
        """Undo all faults: wake, reconnect and start everything, and wait until it is ready."""
        for member in self.members:
            member.mend()
            member.wake()
        self.start()

    def stop(self) -> None:
        """End all gateways."""
        for member in self.members:
            member.kill()

    def tail(self, lines: int = 20) -> str:
        """Return the ends of the logs of all gateways."""
        return "\n\n".join(f"{member.url}\n{member.tail(lines)}" for member in self.members)


@contextmanager
def running(
    node: RabbitMQ,
    broker_url: str,
    folder: Path,
    *,
    count: int = 3,
    log: str | RedisServer = "rabbitmq",
    options: Sequence[str] = (),
    has_nginx: bool = True,
) -> Iterator[Fleet]:
    """Run a fleet during the block; the gateways are ready at the beginning.

    Args:
        node: the broker of ``broker_url``.
        folder: for logs and files.
        count: the number of gateways.
        log: the value of ``--log``, or the Redis server that keeps the log.
        options: further arguments of ``serve``.
        has_nginx: whether nginx runs; its clients use the root path ``/celery``.
    """
    with ExitStack() as stack:
        members = []
        for _ in range(count):
            proxies = [stack.enter_context(Proxy(node.port))]
            value = log
            if isinstance(log, RedisServer):
                proxies.append(stack.enter_context(Proxy(log.port)))
                value = proxies[-1].url(log.url)
            arguments = ["--log", str(value), *options]
            if has_nginx:
                arguments += ["--root-path", "/celery"]
            members.append(
                Member(
                    proxies[0].url(broker_url), folder, options=arguments, port=free_port(), proxies=proxies
                )
            )
        nginx = _nginx(folder / "nginx", [member.port for member in members]) if has_nginx else None
        fleet = Fleet(broker_url, members, nginx)
        stack.callback(fleet.stop)
        if nginx is not None:
            nginx.start()
            stack.callback(nginx.stop)
        fleet.start()
        yield fleet


def _nginx(folder: Path, ports: Sequence[int]) -> Nginx:
    """Return an nginx as it is shipped for a shared log, with a server for each gateway."""
    file = "upstream-shared-log.conf"
    last = "server 127.0.0.1:8556 max_fails=1 fail_timeout=2s;"  # ``Nginx`` replaces the first two ports
    more = [last.replace("8556", str(port)) for port in ports[2:]]
    replace = {
        "nginx.conf": {"include celery-gateway/upstream.conf;": f"include celery-gateway/{file};"},
        file: {last: "\n".join([last, *more])},
    }
    return Nginx(folder, *ports, replace=replace)


def task_records(url: str) -> dict[str, dict[str, Any]]:
    """Return all task records of a gateway, by the task's id."""
    records: dict[str, dict[str, Any]] = {}
    cursor: str | None = None
    with httpx.Client(timeout=60) as client:
        while True:
            query = {"limit": "1000"} | ({"cursor": cursor} if cursor else {})
            response = client.get(f"{url}/tasks", params=query)
            assert response.status_code == 200, response.text[:500]
            page = response.json()
            records |= {record["uuid"]: record for record in page["tasks"]}
            cursor = page["cursor"]
            if cursor is None:
                return records
