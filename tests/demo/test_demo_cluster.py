"""The demo's cluster, heard from outside: a queue on celeryev, over the same in-memory broker."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery._state import _set_task_join_will_block, task_join_will_block

from celery_gateway.demo import traffic
from celery_gateway.demo.cluster import NODE, Cluster
from celery_gateway.demo.tasks import make_app

Event = dict[str, Any]

EVERY_KIND = {
    "task-sent",
    "task-received",
    "task-started",
    "task-succeeded",
    "task-failed",
    "task-retried",
    "task-rejected",
    "task-revoked",
    "task-progress",
    "worker-online",
    "worker-heartbeat",
}


class Listener:
    """Gathers all events in a thread of its own, and lets a test wait until it has seen enough."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = threading.Condition()
        self._stopping = threading.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="listener")

    def _listen(self) -> None:
        app = make_app()
        receiver = app.events.Receiver(app.connection_for_read(), handlers={"*": self._hear})
        with receiver.Consumer() as (connection, channel, _):
            self._listening.set()
            while not self._stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    connection.drain_events(timeout=0.2)
            # memory:// keeps a queue and its binding after its consumer is gone, and goes on filling it;
            # it deletes a queue only by its bindings, and leaves the exchange's own note of them to unbind
            queue = receiver.queue(channel)
            queue.delete()
            queue.unbind_from(receiver.exchange, routing_key="#")

    def _hear(self, event: Event) -> None:
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def wait_for(self, enough: Callable[[list[Event]], Any], timeout_seconds: float = 30) -> Any:
        """What `enough` returns of the events so far, as soon as that is true."""
        with self._news:
            answer = self._news.wait_for(lambda: enough(self.events), timeout_seconds)
        assert answer, f"not seen in {timeout_seconds} s; seen: {sorted({e['type'] for e in self.events})}"
        return answer

    def __enter__(self) -> "Listener":
        self._thread.start()
        assert self._listening.wait(5)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        self._thread.join(5)


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


@pytest.fixture(autouse=True)
def nothing_left(listener: Listener, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a test does with its cluster: afterwards all is as before, and nothing was said."""
    caplog.set_level(logging.DEBUG)
    threads = set(threading.enumerate())
    signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    levels = [logging.getLogger(name).level for name in ("celery", "kombu")]
    will_block = task_join_will_block()
    yield
    _set_task_join_will_block(will_block)  # the worker sets it for the whole process, in which tests wait
    assert set(threading.enumerate()) == threads
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == signals
    assert [logging.getLogger(name).level for name in ("celery", "kombu")] == levels
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def first(events: list[Event], **fields: Any) -> Event | None:
    return next((event for event in events if fields.items() <= event.items()), None)


def test_shows_every_kind_of_event(
    listener: Listener, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    early = [(start / 4, script) for start, script in traffic.SCRIPTS]
    monkeypatch.setattr(traffic, "SCRIPTS", tuple(early))
    with Cluster():
        listener.wait_for(lambda events: {event["type"] for event in events} >= EVERY_KIND, 60)

        receipt = listener.wait_for(lambda events: first(events, type="task-sent", name="mail.send_receipt"))
        order = [event for event in listener.events if event.get("root_id") == receipt["root_id"]]
        assert first(order, name="shop.checkout", uuid=receipt["root_id"], parent_id=None)
        assert {event["name"] for event in order} == {
            *("shop.checkout", "shop.charge", "shop.pack", "shop.ship", "mail.send_receipt"),
        }
        listener.wait_for(lambda events: first(events, type="task-succeeded", uuid=receipt["uuid"]))

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("demo-")]
    listener.wait_for(lambda events: first(events, type="worker-offline"))
    assert capfd.readouterr() == ("", "")


def test_starts_again(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what the first run left in the broker nor the environment keeps a second one from running."""
    for variable in ("BROKER_URL", "BROKER_READ_URL", "BROKER_WRITE_URL", "RESULT_BACKEND"):
        monkeypatch.setenv(f"CELERY_{variable}", "redis://a-real-one.invalid/0")
    cluster = Cluster()
    for _ in range(2):
        with cluster:
            listener.wait_for(lambda events: first(events, type="task-succeeded"))
        listener.wait_for(lambda events: first(events, type="worker-offline"))
        listener.events.clear()
        make_app().control.shutdown(destination=[NODE])  # nobody is there to read it


def test_start_and_stop_may_be_called_at_any_time(listener: Listener) -> None:
    cluster = Cluster()
    cluster.stop()
    cluster.start()
    cluster.start()
    cluster.stop()
    cluster.stop()
    assert len([event for event in listener.events if event["type"] == "worker-online"]) <= 1


def test_stops_in_a_signal_handler(listener: Listener) -> None:
    cluster = Cluster()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: cluster.stop())
    try:
        cluster.start()
        listener.wait_for(lambda events: first(events, type="task-started"))
        signal.raise_signal(signal.SIGUSR1)
        listener.wait_for(lambda events: first(events, type="worker-offline"))
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("delay_ms", [0, 1, 3, 10, 30])
def test_stops_while_it_starts(delay_ms: int) -> None:
    cluster = Cluster()
    stopper = threading.Timer(delay_ms / 1000, cluster.stop)
    stopper.start()
    with contextlib.suppress(RuntimeError):  # as it should be, when stop() came before the worker was ready
        cluster.start()
    stopper.join()
    cluster.stop()
