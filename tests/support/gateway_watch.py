"""A gateway that is watched from outside during an outage: its streams, health endpoints and log."""

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import httpx

from tests.support.gateway_process import GatewayProcess
from tests.support.ledger import GAP, LedgerStream
from tests.support.publisher import Publisher
from tests.support.rabbitmq import wait_for
from tests.support.stream_client import SseStream

POLL_SECONDS = 0.02
OUTAGE_LINES = 3
"""How many lines the log may have of the first seconds of an outage, however often the gateway tries."""


class HealthPoller:
    """Requests /healthz and /readyz again and again, in a thread."""

    def __init__(self, url: str) -> None:
        self.ready: list[tuple[int, str]] = []  # responses of /readyz: status code and reason
        self.unhealthy: list[str] = []
        self._url = url
        self._stopping = Event()
        self._thread = Thread(target=self._run, daemon=True, name="health-poller")
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=5) as client:
            while not self._stopping.wait(POLL_SECONDS):
                try:
                    health, answer = client.get("/healthz"), client.get("/readyz")
                except httpx.TransportError as error:
                    self.unhealthy.append(repr(error))
                    continue
                if health.status_code != 200:
                    self.unhealthy.append(f"/healthz returned {health.status_code} {health.text}")
                self.ready.append((answer.status_code, answer.json()["reason"]))


class GatewayWatch:
    """A gateway, two subscribers from its start, and its health endpoints and log."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self.health = HealthPoller(gateway.url)
        self.stream = LedgerStream(gateway.url)
        self.sse = SseStream(gateway.url)
        self._ready_before = self._gaps_before = 0
        self._log_before = 0

    def mark(self) -> None:
        """Let the methods below look only at what happens after this call."""
        self._ready_before = len(self.health.ready)
        self._gaps_before = len(self.stream.gaps)
        self._log_before = len(self.gateway.log.read_text().splitlines())

    def until_not_ready(self, *words: str, timeout_seconds: float = 30) -> str:
        """Wait until /readyz returns 503 with a reason that has these words; return the reason."""

        def reasons() -> list[str]:
            answers = self.health.ready[self._ready_before :]
            return [reason for code, reason in answers if code == 503 and _has_words(reason, words)]

        assert wait_for(lambda: bool(reasons()), timeout_seconds), (
            f"/readyz never returns {words or '503'}, but {self.health.ready[-1:]}\n{self.gateway.tail()}"
        )
        reason = reasons()[-1]
        assert " " in reason, f"{reason!r} is not a sentence"
        return reason

    def until_ready(self, timeout_seconds: float = 40) -> None:
        """Wait until /readyz returns 200."""
        assert wait_for(lambda: self._seen(200) and self.health.ready[-1][0] == 200, timeout_seconds), (
            f"not ready: {self.health.ready[-1:]}\n{self.gateway.tail()}"
        )

    def until_gap(self, timeout_seconds: float = 40) -> None:
        """Wait until both subscribers have a gap of the broker."""
        assert wait_for(lambda: len(self.stream.gaps) > self._gaps_before, timeout_seconds), (
            f"no gap is reported\n{self.gateway.tail()}"
        )
        assert all(gap["reason"] == "broker" and gap["id"] for gap in self.stream.gaps), self.stream.gaps
        self.sse.until(
            lambda events: (
                [event["id"] for event in events if event["type"] == GAP]
                == [gap["id"] for gap in self.stream.gaps]
            )
        )

    def lines(self) -> list[str]:
        """Return the lines of the log since `mark`."""
        return self.gateway.log.read_text().splitlines()[self._log_before :]

    def assert_logged(self, *words: str) -> None:
        """Check that the log since `mark` has a line with these words, and few lines in all."""
        lines = self.lines()
        assert wait_for(lambda: any(_has_words(line, words) for line in self.lines()), 5), (
            f"no line has {words}:\n" + "\n".join(self.lines())
        )
        assert len(lines) <= OUTAGE_LINES, "\n".join(lines)

    def _seen(self, status_code: int) -> bool:
        return any(code == status_code for code, _ in self.health.ready[self._ready_before :])


def _has_words(line: str, words: Sequence[str]) -> bool:
    return all(word.lower() in line.lower() for word in words)


@contextmanager
def watching(
    broker_url: str, folder: Path, *, options: Sequence[str] = (), is_ready: bool = True
) -> Iterator[GatewayWatch]:
    """Watch a gateway from its start.

    Always checked: /healthz returns 200 throughout, no stream is closed, the log has no traceback and no
    password, and the process exits with 0.

    Args:
        is_ready: whether to wait until the gateway consumes.
    """
    gateway = GatewayProcess(broker_url, folder, options=("--keepalive", "1", *options))
    watch = None
    try:
        if is_ready:
            gateway.start()
        else:
            gateway.launch()
            assert wait_for(lambda: _is_healthy(gateway), 20), gateway.tail()
        watch = GatewayWatch(gateway)
        yield watch
        for stream in (watch.stream, watch.sse):
            assert not stream.closed(timeout_seconds=0), f"a stream was closed\n{gateway.tail()}"
        assert not watch.health.unhealthy, f"{watch.health.unhealthy[:5]}\n{gateway.tail()}"
    finally:
        if watch is not None:
            watch.health.stop()
            watch.stream.close()
            watch.sse.close()
        exit_code = gateway.stop()
    assert exit_code == 0, gateway.tail()
    log = gateway.log.read_text()
    assert "Traceback" not in log, log[-3000:]
    for secret in (":guest@", ":s3cret@", "s3cret"):
        assert secret not in log, log[-3000:]


def _is_healthy(gateway: GatewayProcess) -> bool:
    try:
        return httpx.get(f"{gateway.url}/healthz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def publish_until_seen(url: str, watch: GatewayWatch, timeout_seconds: float = 40) -> None:
    """Declare the exchange and publish events, as any client does, until one of them is on the stream."""
    name = uuid.uuid4().hex
    publisher = Publisher(url)
    try:

        def is_seen() -> bool:
            publisher.send(
                {"type": "ledger-mark", "hostname": "passer-by", "timestamp": time.time(), "mark": name}
            )
            return any(event.get("mark") == name for event in watch.stream.events)

        assert wait_for(is_seen, timeout_seconds), watch.gateway.tail()
    finally:
        publisher.close()
